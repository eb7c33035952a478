"""Hooks: what is run, with which arguments, for how long, and that nothing of it changes a lease."""

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from farmlease.config.model import Config
from farmlease.domain.identity import User
from farmlease.domain.session_states import SessionState
from farmlease.node.concurrency import BackgroundTasks
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.sessions.hooks import AT_ONCE, Hook, Hooks
from tests.support.agents import soon
from tests.support.nodes import IDENTITIES, JOHN, Host, Site
from tests.support.patience import until, within


def told_by(folder: Path) -> str:
    """Write a program that notes its arguments, one on each line; return its path."""
    script = folder / "told.sh"
    script.write_text(f"""#!/bin/sh\nfor each in "$@"; do printf '%s\\n' "$each" >> "{folder}/told"; done\n""")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def a_session(user: User = JOHN, session: str = "7") -> NodeSession:
    """A session as hooks are told of."""
    return NodeSession(id=session, state=SessionState.ACTIVE, user=user, pool="clearquest", device="citrix-a")


async def run(
    command: list[str], session: NodeSession, reason: str = "", hook: Hook = Hook.LOST
) -> list[tuple[str, str]]:
    """Tell a hook and wait for it; return what was told of how it ended."""
    errands, ended = BackgroundTasks(), list[tuple[str, str]]()
    Hooks({hook: tuple(command)}, errands, lambda *how: ended.append(how)).run(hook, session, reason)
    await errands.done()
    return ended


@pytest.mark.parametrize("odd", ["; touch x", "$(touch x)", "`touch x`", "a b\tc", "* ? ~ && |", "{reason}", "%s"])
async def test_a_name_stays_one_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    """Nothing in a session's id or a reason is split, expanded, run, or replaced a second time."""
    monkeypatch.chdir(tmp_path)
    await run([told_by(tmp_path), "{user}", "{session}", "{reason}", "{pool}"], a_session(session=odd), reason=odd)
    assert [JOHN.canonical, odd, odd, "clearquest"] == (tmp_path / "told").read_text().split("\n")[:-1]
    assert not (tmp_path / "x").exists()


async def test_placeholders_inside_an_argument(tmp_path: Path) -> None:
    """A placeholder may be a part of an argument; other braces are left alone."""
    await run([told_by(tmp_path), "--why={reason}/{session}", "{other}", "{}"], a_session(), reason="idle")
    assert ["--why=idle/7", "{other}", "{}"] == (tmp_path / "told").read_text().splitlines()


async def test_a_hook_that_takes_too_long_is_killed_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the limit (ten seconds) neither the hook nor a child that holds its output is left."""
    monkeypatch.setattr("farmlease.node.sessions.hooks._LIMIT", within(0.5))
    with structlog.testing.capture_logs() as logs:
        ended = await run(["/bin/sh", "-c", f"sleep 600 & echo $$ $! > {tmp_path}/pids; wait"], a_session())
    assert [("lost", "timeout")] == ended
    assert ["hook.failed"] == [entry["event"] for entry in logs]
    for pid in (tmp_path / "pids").read_text().split():
        soon(lambda pid=pid: gone(int(pid)), f"process {pid} of the hook is still there")  # type: ignore[misc]


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    stat_file = Path(f"/proc/{pid}/stat")
    return not stat_file.exists() or stat_file.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_what_a_hook_prints_is_not_in_the_usual_log() -> None:
    """It may hold names: at debug level its beginning, at the usual one its length only, however much that is."""
    with structlog.testing.capture_logs() as logs:
        ended = await run(["/bin/sh", "-c", "echo secret; head -c 3000000 /dev/zero"], a_session())
    assert [("lost", "ok")] == ended
    assert [(3_000_007, 0)] == [(each["printed"], each["status"]) for each in logs if each["event"] == "hook.ran"]
    outputs = [each["output"] for each in logs if each["log_level"] == "debug"]
    assert [4096] == [len(output) for output in outputs]
    assert "secret" not in str([each for each in logs if each["log_level"] != "debug"])


@pytest.mark.parametrize("command", [["/does/not/exist"], ["/etc/passwd"], ["/bin/sh", "-c", "exit 3"]])
async def test_a_hook_that_fails_is_told_in_the_log(command: list[str]) -> None:
    """Not there, not a program, or failing: an error in the log, and nothing else happens."""
    with structlog.testing.capture_logs() as logs:
        ended = await run(command, a_session())
    assert [("lost", "failed")] == ended
    assert ["error"] == [each["log_level"] for each in logs if each["log_level"] != "debug"]


async def test_an_event_without_a_hook_is_nothing() -> None:
    """Only what is configured is run."""
    errands = BackgroundTasks()
    Hooks({Hook.LOST: ("/does/not/exist",)}, errands, lambda *_: None).run(Hook.GRANTED, a_session())
    assert not errands._tasks


async def test_the_next_session_of_an_id_has_its_own_hook(tmp_path: Path) -> None:
    """Hosts reuse ids: a hook is run for mary's session 7 while john's is still under way."""
    errands = BackgroundTasks()
    hooks = Hooks({Hook.GRANTED: (told_by(tmp_path), "{user}")}, errands, lambda *_: None)
    users = [IDENTITIES.user(name) for name in ("CORP\\john", "CORP\\mary")]
    for user in users:
        hooks.run(Hook.GRANTED, a_session(user))
    await errands.done()
    assert sorted(user.canonical for user in users) == sorted((tmp_path / "told").read_text().splitlines())


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Hooks that open the FIFO ``go`` wait for as long as it takes, until they may end."""
    monkeypatch.setattr("farmlease.node.sessions.hooks._LIMIT", within(60))
    os.mkfifo(tmp_path / "go")

    @contextmanager
    def gone_on() -> Iterator[None]:
        both = os.open(tmp_path / "go", os.O_RDWR)
        try:
            yield
        finally:
            os.close(both)

    return gone_on


async def test_32_run_at_once_and_the_others_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: Callable[[], AbstractContextManager[None]]
) -> None:
    """Of 100 that are due together none is lost: 32 run until they may end, and then the next ones in turn."""
    errands, begun, run = BackgroundTasks(), list[str](), asyncio.create_subprocess_exec

    def noted(*command: str, **more: Any) -> Any:
        begun.append(command[-1])
        return run(*command, **more)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    script = f"echo $1 >> {tmp_path}/began; : < {tmp_path}/go"
    hooks = Hooks({Hook.ENDED: ("/bin/sh", "-c", script, "sh", "{session}")}, errands, lambda *_: None)
    for number in range(100):
        hooks.run(Hook.ENDED, a_session(session=str(number)))

    def began() -> list[str]:
        return (tmp_path / "began").read_text().split() if (tmp_path / "began").exists() else []

    await until(lambda: len(began()) >= AT_ONCE, "not so many run", 60)
    await asyncio.sleep(0.3)
    assert set(map(str, range(AT_ONCE))) == set(began())
    with held():
        await errands.done()
    assert set(map(str, range(100))) == set(began())
    assert [*map(str, range(100))] == begun


async def test_a_hook_about_the_node_does_not_wait_for_those_about_sessions(
    tmp_path: Path, held: Callable[[], AbstractContextManager[None]]
) -> None:
    """A broker is told of a drain while a hundred hooks hang."""
    errands = BackgroundTasks()
    hooks = Hooks(
        {
            Hook.ENDED: ("/bin/sh", "-c", f": < {tmp_path}/go"),
            Hook.DRAINED: (told_by(tmp_path), "{node}"),
        },
        errands,
        lambda *_: None,
    )
    for number in range(100):
        hooks.run(Hook.ENDED, a_session(session=str(number)))
    await hooks.run_for_node(Hook.DRAINED, "ctx-01")
    assert "ctx-01\n" == (tmp_path / "told").read_text()
    with held():
        await errands.done()


@pytest.mark.parametrize("command", [["/does/not/exist"], ["/bin/sh", "-c", "kill -9 $$"]])
async def test_a_hook_that_fails_changes_no_lease(
    site: Site, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Granted, the same again, ended: all as without hooks."""
    plain = Host.config

    def config(host: Host) -> Config:
        given = {"farm": "citrix-a", "node": host.name, "agent": {"state_dir": host.folder / "state"}}
        return Config.model_validate({**given, "hooks": dict.fromkeys(("granted", "ended", "lost"), command)})

    with monkeypatch.context() as patch:
        patch.setattr(Host, "config", property(config))
        host = site.host()
        await host.granted(JOHN)
        await host.agent.settled()
        assert ([("ctx-01", "7")], {"7": "active"}) == (await site.sessions(), host.states)
        await host.end()
        await host.agent.settled()
    assert ([], {}) == (await site.sessions(), host.states)
    assert plain is Host.config
