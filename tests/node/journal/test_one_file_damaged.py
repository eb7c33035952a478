"""The table "one file damaged", the half that an agent keeps, while it runs and at its next start."""

import asyncio
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farmlease.cli.doctor.node import file_findings
from farmlease.crypto import keyring_file
from farmlease.crypto.seal import RecordBinding
from farmlease.domain.diagnosis.finding import Verdict
from farmlease.domain.health import Status
from farmlease.domain.model import Denial, Grant
from farmlease.errors import FarmleaseError
from farmlease.node.sync.node_report import reported_marks
from tests.support.file_damage import WAYS, damage_file, no_hang
from tests.support.journals import ROOT, opened
from tests.support.nodes import JOHN, MARY, Host, Site
from tests.support.patience import within

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and modes are POSIX's")

JOURNAL = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm")
FILES = (*JOURNAL, "journal.mark", "agent.lock", "kept", "kept/evidence", "kept/versions", "kept/versions/one",
         "state", "keyring.json", "cal.pgo")  # fmt: skip
FOLDERS = {"kept", "kept/versions", "state"}
#: SQLite has the shared memory mapped: cut short, the system kills the agent, and the service manager starts it again.
KILLS = {("journal.sqlite-shm", way) for way in ("garbage", "emptied", "huge")}
#: Where nobody tells anything: what an administrator may move away, and what is the user's own.
QUIET = {"kept": "for people, who move it away", "cal.pgo": "the user's own"}
CAPACITY = 3
CUT = """
import sys
from pathlib import Path
from farmlease.node.journal.journal import UseRow
from tests.support.file_damage import damage_file
from tests.support.journals import opened
folder = Path(sys.argv[1])
journal = opened(folder)
journal.write_use(UseRow("7", "named", "active", bytes(500)))
print(journal.incarnation, flush=True)
damage_file(folder / "journal.sqlite-shm", sys.argv[2])
journal.write_use(UseRow("7", "named", "active", bytes(600)))
"""
ROWS: list[str] = []


async def working(site: Site) -> Host:
    """Return a host on which John works, and that has kept something of each kind."""
    host = site.host()
    keyring_file.create(host.ring_file, site.ring)
    await host.granted(JOHN)
    host.write(b"johns licence")
    await host.save()
    host.node.state.evidence.keep("file", "test", b"evidence", 1)
    binding = RecordBinding(pool="qlikview", user_index="A" * 22, lease_id="lease", version=1)
    host.node.state.versions.keep(binding, b"sealed", 1)
    await host.beat()
    await host.node.loops.look_at_keys()
    return host


def path_of(host: Host, name: str) -> Path:
    """Return where a file lies on a host."""
    state = host.folder / "state"
    kept = [path for path in sorted((state / "kept").iterdir()) if path.name != "versions"]
    versions = sorted(path for path in (state / "kept" / "versions").rglob("*") if path.is_file())
    places = {"kept/evidence": kept[0], "kept/versions/one": versions[0], "state": state, "keyring.json": host.ring_file,
              "cal.pgo": host.file()}  # fmt: skip
    return places.get(name, state / name)


def told(host: Host, logs: list[dict[str, object]]) -> list[str]:
    """Return where something is said, by health, by doctor and in the log."""
    host.node.monitor.look()
    checks = [f"health {each.name}" for each in host.node.monitor.health.checks if each.status is not Status.PASS]
    findings = [f"doctor {each.check}" for each in file_findings(host.config) if each.verdict is not Verdict.OK]
    events = [f"log {each['event']}" for each in logs if each["log_level"] in {"warning", "error"}]
    return [*checks, *findings, *dict.fromkeys(events)]


async def answer(host: Host) -> str:
    """Return what a start of Mary's is answered."""
    try:
        decision = await host.start(MARY, "8")
    except FarmleaseError as error:
        return type(error).__name__
    if isinstance(decision, Denial):
        return f"denied: {decision.reason}"
    assert isinstance(decision, Grant)
    return "granted"


async def boot(host: Host) -> str:
    """Start the agent as the daemon does; return why it does not start, empty if it does."""
    try:
        host.boot(await reported_marks(host.site.farm.nodes))
    except FarmleaseError as error:
        return str(error)
    return ""


def note(name: str, way: str, when: str, answered: str, found: list[str]) -> None:
    """Add a row to the table."""
    quiet = next((why for what, why in QUIET.items() if name.startswith(what)), "nothing is lost")
    ROWS.append(f"{name:20}{way:11}{when:16}{answered:22}{', '.join(found) or quiet}")


#: Each file and what happens to it; a folder in the place of a folder is no damage.
ALL = [(name, way) for name in FILES for way in WAYS if not (name in FOLDERS and way == "folder")]
fake = pytest.mark.parametrize("timed", ["fakeredis"], indirect=True)


def damage(path: Path, name: str, way: str) -> None:
    """Damage a file, or a folder, of which the last ways make a file."""
    if name in FOLDERS and way in {"garbage", "emptied", "huge"}:
        damage_file(path, "removed")
        path.touch()
    damage_file(path, way)


@fake
@pytest.mark.parametrize(("name", "way"), [each for each in ALL if each not in KILLS])
async def test_while_the_agent_runs(site: Site, name: str, way: str) -> None:
    """It is told within a heartbeat, or nothing is lost; nothing hangs, and Mary is answered."""
    host = await working(site)
    path = path_of(host, name)
    with capture_logs() as logs, no_hang():
        damage(path, name, way)
        await host.beat()
        await host.node.loops.look_at_keys()
        with suppress(FarmleaseError):
            await host.save()
        answered = await answer(host)
        await asyncio.sleep(0)
        found = told(host, logs)
    note(name, way, "running", answered, found)
    assert "active" == host.states["7"]
    if not found:  # then a restart finds all as it was
        host.restart()
        assert "active" == host.states["7"]


@pytest.mark.parametrize("way", sorted(way for _, way in KILLS))
def test_shared_memory_that_is_cut(tmp_path: Path, way: str) -> None:
    """The system may kill the agent. Its next life goes on with the journal as it was."""
    folder = tmp_path / "state"
    killed = subprocess.run(
        [sys.executable, "-c", CUT, str(folder), way],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=within(120),
    )
    assert killed.returncode in {0, -signal.SIGBUS}, killed.stderr
    with closing(opened(folder)) as journal:
        assert killed.stdout.split() == [journal.incarnation]
        assert ["7"] == [each.session for each in journal.uses()]
    died = "the system kills it" if killed.returncode else "goes on"
    ROWS.append(f"{'journal.sqlite-shm':20}{way:11}{'running':16}{died:22}nothing is lost")


@fake
@pytest.mark.parametrize(("name", "way"), [each for each in ALL if each[0] != "keyring.json"])
async def test_at_the_next_start(site: Site, name: str, way: str) -> None:
    """The agent starts and tells it, or says why it does not; or nothing is lost, and no limit is passed."""
    host = await working(site)
    path = path_of(host, name)
    host.kill()
    with capture_logs() as logs, no_hang():
        damage(path, name, way)
        failed = await boot(host)
        if failed:
            note(name, way, "start", "does not start", [f"the agent: {failed.rpartition(' (')[2]}"])
            assert str(host.folder / "state") in failed
            damage_file(host.folder / "state", "removed")
            host.boot()
            return
        await host.beat()
        answered = await answer(host)
        await host.beat()
        if host.use() is not None:
            with suppress(FarmleaseError):
                await host.save()
        found = told(host, logs)
    note(name, way, "start", answered, found)
    assert found or "active" == host.states["7"]
    assert len([each async for each in site.farm.leases.list_of("qlikview")]) <= CAPACITY


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Read it with -s."""
    with capsys.disabled():
        print("\nfile                damage     when            next start            told by")  # noqa: T201
        print("\n".join(ROWS))  # noqa: T201 - the table is what this is for
