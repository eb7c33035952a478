"""PAM's samples, with the real libpam: opening a session takes a seat, closing it gives the seat back."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.agents import soon
from tests.support.pam_hosts import PamHost, pam_host
from tests.support.patience import within
from tests.support.servers import RedisServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PAM with pam_exec is Linux's")

ONE_SEAT = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 1\nshare = "session"\n'
#: A viewer needs no licence.
RULES = """
[[rule]]
apps = ["viewer"]
access = "restricted"

[[rule]]
pools = ["clearquest"]
"""


@contextmanager
def host(server: RedisServer, without_a_licence: str = "refuse", **more: str) -> Iterator[PamHost]:
    """Set up a host with one seat, unless ``policy`` says otherwise."""
    with pam_host(server, more.pop("policy", ONE_SEAT), without_a_licence, **more) as made:
        yield made


def test_an_open_session_holds_a_seat(server: RedisServer) -> None:
    """The seat is taken when the session opens and free when it is closed."""
    with host(server) as here:
        logon = here.log_on("john", "tty1")
        assert [("john", f"pam-{logon.process.pid}", "active")] == [
            (each["user"], each["session"], each["state"]) for each in logon.opened()
        ]
        assert [] == logon.closed()
        assert 0 == logon.process.returncode
        assert 0 == here.log_on("mary", "tty2").let_go()[0]


def test_who_is_denied_does_not_get_in(server: RedisServer) -> None:
    """With refuse the logon fails, and the user reads why."""
    with host(server) as here:
        first = here.log_on("john", "tty1")
        first.opened()
        status, said = here.log_on("mary", "tty2").let_go()
        assert 0 != status
        assert "denied: " in said
        assert "john" not in said
        assert ["john"] == here.sessions()
        assert [] == first.closed()


def test_who_is_denied_gets_in_without_a_licence(server: RedisServer) -> None:
    """With admit the logon succeeds, no seat is taken, and closing it takes nobody else's."""
    with host(server, "admit") as here:
        first = here.log_on("john", "tty1")
        first.opened()
        second = here.log_on("mary", "tty2")
        assert ["john"] == [each["user"] for each in second.opened()]
        assert ["john"] == [each["user"] for each in second.closed()]
        assert 0 == second.process.returncode
        assert [] == first.closed()


@pytest.mark.parametrize(("choice", "gets_in"), [("refuse", False), ("admit", True)])
def test_an_agent_that_is_away_is_a_denial(server: RedisServer, choice: str, gets_in: bool) -> None:  # noqa: FBT001 - a column of the table
    """Nobody could be asked: the same choice decides, and root gets in all the same."""
    with host(server, choice) as here:
        here.agent.terminate()
        status, said = here.log_on("john", "tty1").let_go()
        assert gets_in == (status == 0)
        assert "no agent answers" in said
        assert 0 == here.log_on("root", "tty2").let_go()[0]


def test_accounts_of_the_system_need_no_licence(server: RedisServer) -> None:
    """Root logs on and no seat is taken."""
    with host(server) as here:
        logon = here.log_on("root", "tty1")
        assert [] == logon.opened()
        assert 0 == logon.let_go()[0]


def test_two_sessions_of_a_user_are_two(server: RedisServer) -> None:
    """Each is closed by itself, in any order."""
    with host(server) as here:
        apply_two_seats(here)
        first, second = here.log_on("john", "tty1"), here.log_on("john", "tty2")
        soon(lambda: here.sessions() == ["john", "john"], "there are not two sessions")
        assert [f"pam-{second.process.pid}"] == [each["session"] for each in first.closed()]
        assert [] == second.closed()


def apply_two_seats(here: PamHost) -> None:
    """Let two sessions be open at once."""
    policy = here.folder / "pools.toml"
    policy.write_text(ONE_SEAT.replace("capacity = 1", "capacity = 2"))
    subprocess.run([here.folder / "farmlease", "pool", "apply", policy, "--yes"], check=True, capture_output=True)


def test_a_program_that_dies_gives_its_seat_back(server: RedisServer) -> None:
    """Killed before it could close its session: the agent sees that the process is gone."""
    with host(server) as here:
        logon = here.log_on("john", "tty1")
        logon.opened()
        logon.process.kill()
        with suppress(subprocess.TimeoutExpired):
            logon.process.communicate(timeout=within(20))
        soon(lambda: here.sessions() == [], "the seat is still held")


def test_a_name_that_looks_like_an_option_is_a_name(server: RedisServer) -> None:
    """Whoever may choose a user's name chooses no option of the command."""
    with host(server) as here:
        status, said = here.log_on("--help", "tty1").let_go()
        assert "would pass for an option" in said
        assert 0 != status
        assert [] == here.sessions()


@pytest.mark.parametrize(("options", "taken"), [(" --app viewer", []), ("", ["john"])])
def test_a_service_that_opens_one_program_names_it(server: RedisServer, options: str, taken: list[str]) -> None:
    """What stands behind the script in the PAM file is an option of the start, and a rule about the program matches."""
    with host(server, policy=ONE_SEAT + RULES, options=options) as here:
        logon = here.log_on("john", "tty1")
        assert taken == [each["user"] for each in logon.opened()]
        assert [] == logon.closed()
        assert 0 == logon.process.returncode
