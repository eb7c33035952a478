"""Who may say what to an agent, and in which groups the agent finds its users: real processes on a real socket."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.account_files import AccountFiles
from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.callers import OWN_PID, as_account
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can act as another user"
)

POLICY = """
[[pool]]
name = "open"
kind = "floating"
capacity = 500
share = "session"

[[pool]]
name = "kept"
kind = "floating"
capacity = 1
reserve = [{{ groups = ["vips"], seats = 1 }}]

[[rule]]
groups = ["banned"]
access = "denied"

[[rule]]
sites = ["intake-web"]
access = "restricted"

[[rule]]
groups = ["daemon"]
apps = ["known-by-group"]
access = "restricted"
"""
Ask = Callable[[dict[str, object]], tuple[int, Any]]
_numbers = count()

#: What a request may hold beside user and session, and an honest value of it.
FIELDS: Mapping[str, object] = {
    "pool": "open", "app": "excel", "wait": "1s", "pid": OWN_PID,
    "device": "notebook-7", "site": "london", "groups": ["vips"],
}  # fmt: skip
CLAIMS = ("device", "site", "groups")


def request(**more: object) -> dict[str, object]:
    """Return a request for a session of nobody's with an id of its own."""
    return {"user": "nobody", "session": f"s{next(_numbers)}", "pool": "open", **more}


@contextmanager
def agent_on(listen: str, trust: tuple[str, ...] = ()) -> Iterator[RunningAgent]:
    """Run an agent that trusts its callers with these fields."""
    settings = f"trust = {json.dumps(trust)}"
    with (
        redis_server() as store,
        agents_on(store.url, nodes=("ctx-01",), policy=POLICY, listen=listen, settings=settings) as agents,
    ):
        yield agents["ctx-01"]


@pytest.fixture(scope="module")
def unix() -> Iterator[RunningAgent]:
    """An agent on a Unix socket that trusts nobody but root."""
    with agent_on("unix") as agent:
        yield agent


def plain(agent: RunningAgent, name: str = "nobody") -> Ask:
    """Return what asks as a user without rights."""
    return lambda document: as_account(name, agent, "POST", "/v1/sessions", document)


def privileged(agent: RunningAgent) -> Ask:
    """Return what asks as root, or with the token."""

    def ask(document: dict[str, object]) -> tuple[int, Any]:
        given = {name: os.getpid() if value == OWN_PID else value for name, value in document.items()}
        reply = agent.request("POST", "/v1/sessions", given)
        return reply.status, reply.document

    return ask


def said(answer: tuple[int, Any]) -> tuple[int, str | None]:
    """Return the status, and the field that was refused."""
    status, document = answer
    return status, document.get("field")


# --- caller x field -------------------------------------------------------------------------------------------------------


def expected(field: str, *, may_claim: bool) -> tuple[int, str | None]:
    """Return what a caller is answered who sends this field."""
    return (201, None) if may_claim or field not in CLAIMS else (403, field)


def test_who_may_say_what(unix: RunningAgent) -> None:
    """Root may say anything; a user all that is his own, and nothing that others would have to believe."""
    for caller, may_claim in ((privileged(unix), True), (plain(unix), False)):
        for field, value in FIELDS.items():
            assert expected(field, may_claim=may_claim) == said(caller(request(**{field: value}))), field


def test_the_token_counts_as_root() -> None:
    """Over TCP there is no user to know, and whoever has the token may say anything, of anybody."""
    with agent_on("tcp") as agent:
        for field, value in FIELDS.items():
            assert (201, None) == said(privileged(agent)(request(**{field: value}))), field


@pytest.mark.parametrize("trust", CLAIMS)
def test_what_the_administrator_trusts_them_with(trust: str) -> None:
    """Each word of ``[agent] trust`` allows its own field and no other."""
    with agent_on("unix", (trust,)) as agent:
        for field in CLAIMS:
            assert expected(field, may_claim=field == trust) == said(plain(agent)(request(**{field: FIELDS[field]})))


@pytest.mark.parametrize("field", CLAIMS)
def test_what_says_nothing_is_not_refused(unix: RunningAgent, field: str) -> None:
    """A hook may send each field and leave it empty."""
    empty: object = [] if field == "groups" else None
    assert 201 == plain(unix)(request(**{field: empty}))[0]


def test_a_refusal_says_what_to_do(unix: RunningAgent) -> None:
    """One sentence that names the field and the place where it could be allowed."""
    status, document = plain(unix)(request(groups=["vips"]))
    assert (403, "groups", "about:blank") == (status, document["field"], document["type"])
    assert (
        "groups: only root may say this here; leave it out, or see [agent] trust in farmlease.toml"
        == document["detail"]
    )


# --- whose process --------------------------------------------------------------------------------------------------------


def test_a_process_must_be_the_callers_own(unix: RunningAgent) -> None:
    """Not root's, not another user's, and not one that is gone; root may name any."""
    daemons = subprocess.Popen(["sleep", "600"], user="daemon", cwd="/")
    gone = subprocess.Popen(["true"])
    gone.wait()
    try:
        for pid in (1, os.getpid(), daemons.pid, gone.pid):
            answer = plain(unix)(request(pid=pid))
            assert (403, "pid") == said(answer)
            assert "pid: is no process of yours" == answer[1]["detail"]
        assert 201 == plain(unix, "daemon")(request(user="daemon", pid=daemons.pid))[0]
        assert 201 == privileged(unix)(request(pid=daemons.pid))[0]
    finally:
        daemons.kill()
        daemons.wait()


def test_a_program_with_other_rights_is_its_starters(unix: RunningAgent, tmp_path: Path) -> None:
    """A set-uid program that a user runs is his process; one that another runs with this user's rights is not."""
    code = "import os, sys, time; os.setresuid(*map(int, sys.argv[1:])); print(flush=True); time.sleep(600)"
    nobody, daemon = "65534", "1"
    for real, effective, status in ((nobody, daemon, 201), (daemon, nobody, 403)):
        command = [sys.executable, "-I", "-c", code, real, effective, effective]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as program:
            assert program.stdout is not None
            program.stdout.readline()
            assert status == plain(unix)(request(pid=program.pid))[0]
            program.kill()


# --- for whom -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["nobody", "NOBODY", "NoBody"])
def test_his_own_name_by_whatever_spelling(unix: RunningAgent, user: str) -> None:
    """It is the person that counts."""
    assert 201 == plain(unix)(request(user=user))[0]


def test_another_ones_name(unix: RunningAgent) -> None:
    """Neither as the user nor by way of a session id that is somebody else's, which goes on."""
    assert (403, "not_entitled") == reason(plain(unix)(request(user="daemon")))
    taken = request(user="daemon")
    assert 201 == privileged(unix)(taken)[0]
    assert (403, "not_entitled") == reason(plain(unix)({**taken, "user": "nobody"}))
    assert 403 == as_account("nobody", unix, "DELETE", f"/v1/sessions/{taken['session']}")[0]
    assert 200 == privileged(unix)(taken)[0]


def reason(answer: tuple[int, Any]) -> tuple[int, str]:
    """Return status and reason of a denial."""
    return answer[0], answer[1]["reason"]


def test_nobody_claims_a_reserved_seat(unix: RunningAgent) -> None:
    """The seats of a group are for those of whom root or the system says that they are in it."""
    assert (403, "groups") == said(plain(unix)(request(pool="kept", groups=["vips"])))
    assert (409, "reserved") == reason(plain(unix)(request(pool="kept")))
    assert 201 == privileged(unix)(request(pool="kept", groups=["vips"]))[0]


def test_nobody_claims_a_site(unix: RunningAgent) -> None:
    """Use without a licence is for a place that root vouches for."""
    assert (403, "site") == said(plain(unix)(request(site="intake-web")))
    assert "restricted" == privileged(unix)(request(site="intake-web"))[1]["decision"]


# --- groups of the system -------------------------------------------------------------------------------------------------


def test_the_system_says_who_is_in_which_group(unix: RunningAgent) -> None:
    """Nobody has to say it: a rule by a group finds its member, whoever asks for him."""
    for ask in (plain(unix, "daemon"), privileged(unix)):
        assert "restricted" == ask(request(user="daemon", app="known-by-group", pool=None))[1]["decision"]
    assert "granted" == plain(unix)(request(app="known-by-group"))[1]["decision"]


def test_what_root_says_is_added(unix: RunningAgent) -> None:
    """A group of the system's and one of root's both count; an empty name is none."""
    known = request(user="daemon", app="known-by-group", pool=None, groups=["vips", "", " "])
    assert "restricted" == privileged(unix)(known)[1]["decision"]
    assert (403, "not_entitled") == reason(privileged(unix)(request(user="daemon", groups=["", "banned"])))


def test_who_has_no_account_has_the_groups_that_root_gives(unix: RunningAgent) -> None:
    """A visitor of a broker is no user of this host."""
    assert 201 == privileged(unix)(request(user="visitor"))[0]
    assert (403, "not_entitled") == reason(privileged(unix)(request(user="visitor", groups=["Banned"])))


def test_as_many_groups_as_a_request_has_room_for(unix: RunningAgent) -> None:
    """2,000 of them, or names of 256 characters; one more, or one longer, is named; 64 KiB is the end of it."""
    assert 201 == privileged(unix)(request(groups=[f"CORP\\group {number:04}" for number in range(2_000)]))[0]
    assert 201 == privileged(unix)(request(groups=[r"CORP\Größe @ x "[:15] + "ß" * 241] * 40))[0]
    assert (422, "groups") == said(privileged(unix)(request(groups=["g"] * 2_001)))
    assert (422, "groups.0") == said(privileged(unix)(request(groups=["g" * 257])))
    assert 413 == privileged(unix)(request(groups=["g" * 256] * 300))[0]


# --- a directory that hangs -----------------------------------------------------------------------------------------------

ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\njohn:x:1001:1001::/home/john:/bin/sh\nmary:x:1002:1002::/home/mary:/bin/sh\n"
GROUPS = "root:x:0:\njohn:x:1001:\nmary:x:1002:\nstaff:x:1003:john,mary\n"


@contextmanager
def answering(fifo: Path, text: str) -> Iterator[None]:
    """Let the directory answer: each look-up that waits for it gets this text."""
    over = threading.Event()

    def feed() -> None:
        while not over.is_set():
            with suppress(BrokenPipeError), fifo.open("w") as asked:
                asked.write(text)
            time.sleep(0.001)  # or the one who reads would find the next text behind this one

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    yield
    over.set()
    with suppress(OSError), os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)):
        feeding.join(within(5))


@pytest.fixture
def hanging(server: RedisServer, tmp_path: Path) -> Iterator[tuple[RunningAgent, Path]]:
    """An agent on a host whose groups hang, and the FIFO that it waits for."""
    files = AccountFiles(tmp_path)
    files.write(passwd=ACCOUNTS)
    files.hang()
    with agents_on(server.url, nodes=("ctx-01",), policy=POLICY, listen="unix") as agents:
        agent = agents["ctx-01"]
        agent.terminate()
        agent.launch_by(files.command)
        agent.wait_ready()
        yield agent, tmp_path / "group"


def test_a_directory_that_hangs_holds_up_nobody_else(hanging: tuple[RunningAgent, Path]) -> None:
    """Two seconds, then a rule that denies by a group applies, as nobody knows better; others come and go meanwhile."""
    agent, fifo = hanging
    answers: list[tuple[int, Any]] = []
    began = time.monotonic()
    waiting = threading.Thread(target=lambda: answers.append(privileged(agent)(request(user="john"))))
    waiting.start()
    for number in itertools.count():
        if not waiting.is_alive():
            break
        before = time.monotonic()
        assert 201 == privileged(agent)(request(user=f"visitor{number // 100}"))[0]  # one may have so many sessions
        assert 200 == agent.health("/livez").status
        assert time.monotonic() - before < within(1)
        time.sleep(0.02)  # or a quick machine takes every seat
    assert 2 <= time.monotonic() - began < within(4)
    assert [(403, "not_entitled")] == [reason(each) for each in answers]
    soon(lambda: b"account database" in agent.health().body, "health does not warn")
    assert 200 == agent.health().status
    with answering(fifo, GROUPS):
        soon(lambda: privileged(agent)(request(user="john"))[0] == 201, "the late answer is lost")
    assert 201 == privileged(agent)(request(user="john"))[0]
    soon(lambda: agent.health().body.startswith(b"pass"), "health goes on warning")
    assert "john" not in agent.log_text
