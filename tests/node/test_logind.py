"""What logind says of login sessions: by a loginctl of the test's own, and by systemd's on a real bus."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from farmlease.node import logind
from farmlease.node.logind import Logind, LoginSession, is_answering, login_session_of
from tests.support.login import FakeLoginctl, fake_loginctl, logind_on_a_bus, scoped
from tests.support.patience import within

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="logind is Linux's")


def session(name: str) -> LoginSession:
    """A login session by its id."""
    return LoginSession("session", name)


@pytest.fixture
def loginctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLoginctl:
    """The first loginctl on PATH."""
    made = fake_loginctl(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/user.slice/user-1000.slice/session-7.scope", session("7")),
        ("/user.slice/user-1000.slice/session-c2.scope/below", session("c2")),
        ("/session-7.scope", session("7")),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", LoginSession("user", "1000")),
        ("/user.slice/user-1000.slice/user@1000.service/session-9.scope", LoginSession("user", "1000")),
        ("/system.slice/cron.service/session-9.scope", None),
        ("/system.slice/cron.service", None),
        ("/session-a b.scope", None),
        ("/", None),
    ],
)
def test_a_process_is_in_the_scope_that_the_system_made(
    monkeypatch: pytest.MonkeyPatch, path: str, found: LoginSession | None
) -> None:
    """A scope below slices is a session's; what a user makes inside of his own service is his own, and no session's."""
    for line in (f"0::{path}", f"1:name=systemd:{path}"):
        monkeypatch.setattr(Path, "read_text", lambda *_, line=line, **__: f"5:cpu:/session-1.scope\n{line}\n")
        assert found == login_session_of(7)


def test_a_process_that_is_gone_is_nowhere() -> None:
    """So is one that is in no session."""
    with subprocess.Popen(["true"]) as short:
        pass
    assert [None, None] == [login_session_of(short.pid), login_session_of(1)]


def test_a_process_is_found_in_a_real_control_group() -> None:
    """The kernel's own words for a process in the scope of a session."""
    with scoped("session-42.scope", "sleep", "600") as process:
        assert session("42") == login_session_of(process.pid)


async def test_all_sessions_are_asked_about_at_once(loginctl: FakeLoginctl) -> None:
    """One run of loginctl for all sessions, one for all users."""
    for name, idle in (("7", True), ("8", False), ("c1", True)):
        loginctl.say(name, idle=idle)
    loginctl.say("1000", idle=True, kind="user")
    asked = [session("c1"), session("8"), session("7"), LoginSession("user", "1000")]
    assert dict(zip(sorted(asked), [True, False, True, True], strict=True)) == await Logind().idle(asked)
    assert 2 == len(loginctl.asked)


async def test_a_session_that_is_gone_hides_no_other(loginctl: FakeLoginctl) -> None:
    """Loginctl stops at the first that it does not know; those after it are asked about all the same."""
    for name in ("1", "3", "5"):
        loginctl.say(name, idle=False)
    known = await Logind().idle([session(str(number)) for number in range(7)])
    assert {session("1"): False, session("3"): False, session("5"): False} == known
    assert len(loginctl.asked) <= 5


async def test_nothing_is_asked_about_nothing(loginctl: FakeLoginctl) -> None:
    """Where no session asks for it, no program is run."""
    assert {} == await Logind().idle([])
    assert [] == loginctl.asked


async def test_a_loginctl_that_hangs_is_ended(loginctl: FakeLoginctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit nothing is known, the log says so once, and nothing of it is left."""
    monkeypatch.setattr(logind, "_LIMIT", 0.3)
    monkeypatch.setattr(logind, "_MOST_UNKNOWN", 1)
    loginctl.say("7", idle=False)
    loginctl.fail(how="hangs")
    host = Logind()
    with structlog.testing.capture_logs() as logs:
        assert [{}, {}] == [await host.idle([session("7")]) for _ in range(2)]
    assert ["logind.failed"] == [each["event"] for each in logs]
    began = time.monotonic()
    assert (False, True) == (is_answering(), time.monotonic() - began < within(2))


async def test_without_logind_nothing_is_known(
    loginctl: FakeLoginctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loginctl that finds no logind, and a host without one, are no error."""
    assert is_answering()
    loginctl.say("7", idle=False)
    loginctl.fail(how="away")
    with structlog.testing.capture_logs() as logs:
        assert (False, {}) == (is_answering(), await Logind().idle([session("7")]))
        (tmp_path / "empty").mkdir()
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
        assert (False, {}) == (is_answering(), await Logind().idle([session("7")]))
    assert [] == logs


async def test_a_real_bus_is_asked_by_systemds_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desktop says on the bus that it idles, and no longer; a session that logind does not know is not known."""
    with logind_on_a_bus(tmp_path) as host:
        monkeypatch.setenv("PATH", f"{host.programs}:{os.environ['PATH']}")
        assert await asyncio.to_thread(is_answering)
        for name in ("3", "7"):
            host.add(name)
        asked = [session(name) for name in ("3", "5", "7")]
        assert {session("3"): False, session("7"): False} == await Logind().idle(asked)
        host.idle("7", on=True)
        assert {session("3"): False, session("7"): True} == await Logind().idle(asked)
        host.idle("7", on=False)
        assert {session("3"): False, session("7"): False} == await Logind().idle(asked)
