"""``farmlease session …`` against an agent's HTTP on TCP and on a Unix socket, each time over a real connection."""

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pytest

from farmlease.node.http.door import _refuse
from farmlease.node.http.server import _REFUSAL
from tests.support.patience import within
from tests.support.ports import distant_port
from tests.support.stand_in import Answer, Asked, Run, answering

TOKEN = "a-token-of-the-test"  # noqa: S105 -- opens nothing but this file's stand-in
GRANT = {
    "decision": "granted", "user": "corp\\john", "pool": "qlikview", "kind": "named", "device": "citrix-a",
    "node": "ctx-01", "session": "7", "fence": 1795294078123,
    "lease": {"id": "L1", "issued_at": "2026-11-21T09:00:59Z", "expires_at": "2026-12-21T09:00:59Z"},
    "source": "store", "overdraft": False,
}  # fmt: skip
DENIAL = {
    "type": "about:blank", "title": "Denied", "status": 409, "detail": "All 3 seats of qlikview are taken.",
    "decision": "denied", "reason": "capacity", "pool": "qlikview", "retry_at": "2026-12-21T09:00:01Z", "blocking": [],
    "held": 3, "capacity": 3,
}  # fmt: skip


NOT_THERE = (
    "farmlease: there is no such session on this node; list the sessions of this node with 'farmlease session list'\n"
)


@dataclass
class StandIn:
    """An agent's HTTP without what is behind it: its sessions, what it was asked, and what it answers next."""

    listen: str
    sessions: dict[str, dict[str, object]] = field(default_factory=dict)
    asked: list[tuple[str, str, object]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    next: tuple[int, bytes] | None = None
    fails_at: str = ""  #: a method that it fails at inside

    def answers(self, status: int, document: object) -> None:
        """Answer whatever is asked next with this."""
        self.next = (status, document if isinstance(document, bytes) else json.dumps(document).encode())

    def let_in(self, asked: Asked) -> Answer:
        """Answer who may ask."""
        self.heads.append(dict(asked.headers))
        tcp = not self.listen.startswith("unix:")
        if asked.headers["host"] != (self.listen if tcp else "localhost") or "origin" in asked.headers:
            return 403, b'{"detail": "foreign host"}'
        if tcp and asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, b'{"detail": "no or wrong token"}'
        return self.answer(asked.method, asked.path, json.loads(asked.body) if asked.body else None)

    def answer(self, method: str, path: str, document: object) -> Answer:
        """Answer as the interface of the agent says."""
        self.asked.append((method, path, document))
        if self.next is not None:
            return self.next
        if method == self.fails_at:
            return 500, b""
        if path == "/v1/sessions":
            return self.collection(method, document)
        name, _, verb = path.partition("?")[0].removeprefix("/v1/sessions/").partition("/")
        if method == "DELETE":
            self.sessions.pop(unquote(name), None)
            return 204, b""
        if unquote(name) not in self.sessions:
            return 404, json.dumps({"title": "Not found", "status": 404}).encode()
        known = {
            ("GET", ""): (200, self.session(unquote(name))),
            ("POST", "hold"): (200, {"uses": [{"pool": "qlikview", "hold_until": "2026-11-21T13:00:00Z"}]}),
            ("POST", "save"): (200, {"uses": [{"pool": "qlikview"}]}),
            ("POST", "activity"): (204, None),
        }
        status, found = known.get((method, verb), (405, {"status": 405}))
        return status, b"" if found is None else json.dumps(found).encode()

    def session(self, name: str) -> dict[str, object]:
        """Return a session as the agent shows it, with the one use that it has here."""
        return {"session": name, "user": "corp\\john", "node": "ctx-01", "uses": [self.sessions[name]]}

    def collection(self, method: str, document: object) -> Answer:
        """Answer ``/v1/sessions``."""
        if method == "GET":
            return 200, json.dumps(list(self.sessions.values())).encode()
        assert isinstance(document, dict)
        status = 200 if document["session"] in self.sessions else 201
        grant = GRANT | {"session": document["session"]}
        self.sessions[document["session"]] = grant | {"state": "active"}
        return status, json.dumps(grant).encode()


def configure(folder: Path, listen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a configuration that leads to ``listen`` and a token, and let the command find it."""
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "farmlease.toml").write_text(f"[agent]\nlisten = '{listen}'\ntoken_file = '{folder / 'token'}'\n")
    monkeypatch.setenv("FARMLEASE_CONFIG", str(folder / "farmlease.toml"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path: Unix sockets allow 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fl-cli-") as path:
        yield Path(path)


@pytest.fixture(params=["tcp", "unix"])
def agent(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve a stand-in on TCP or on a Unix socket, with the configuration that leads there."""
    if request.param == "unix" and sys.platform == "win32":
        pytest.skip("Python has no Unix sockets on Windows")
    stand_in = StandIn(f"127.0.0.1:{distant_port()}" if request.param == "tcp" else f"unix:{folder}/agent.sock")
    configure(folder, stand_in.listen, monkeypatch)
    with answering(stand_in.listen, stand_in.let_in):
        yield stand_in


def test_a_grant_is_one_line_and_status_0(agent: StandIn, run: Run) -> None:
    """A granted session is told with whom, where and until when; asking again says the same."""
    line = "granted qlikview to corp\\john on ctx-01, lease expires 2026-12-21 09:00 UTC\n"
    assert (0, line, "") == run("session", "start", "CORP\\john", "--session", "7")
    assert (0, line, "") == run("session", "start", "CORP\\john", "--session", "7")
    assert [("POST", "/v1/sessions", {"user": "CORP\\john", "session": "7"})] * 2 == agent.asked


def test_every_option_reaches_the_agent(agent: StandIn, run: Run) -> None:
    """What is given is asked for under the names of the interface; what is not given is left to the agent."""
    given = {"--pool": "p", "--app": "a", "--site": "s", "--device": "d", "--pid": "42", "--wait": "90s"}
    options = ["--group", "g", "--group", "h", *(word for pair in given.items() for word in pair)]
    assert 0 == run("session", "start", "john", "--session", "7", *options)[0]
    assert {
        "user": "john", "session": "7", "pool": "p", "app": "a", "groups": ["g", "h"], "site": "s", "device": "d",
        "pid": 42, "wait": "90s",
    } == agent.asked[0][2]  # fmt: skip


def start_into(full: str, *more: str) -> tuple[int, str]:
    """Run ``session start`` as a process whose output goes where it cannot; return its status and what it complains of."""
    command = [sys.executable, "-m", "farmlease", "session", "start", "john", "--session", "7", *more]
    with Path(full).open("wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no /dev/full")
@pytest.mark.parametrize("more", [(), ("-o", "json")])
def test_a_grant_that_nobody_can_read_is_given_back(agent: StandIn, run: Run, more: tuple[str, ...]) -> None:
    """A hook that sees a failure lets nobody in: no seat stays taken, unless the session was there before."""
    told = "farmlease: cannot write the answer (No space left on device)"
    ended = f"{told}; session 7 was started and has been ended again. Fix the output and retry.\n"
    assert (1, ended) == start_into("/dev/full", *more)
    assert ("DELETE", "/v1/sessions/7?pool=qlikview", None) == agent.asked[-1]
    assert {} == agent.sessions
    run("session", "start", "john", "--session", "7")
    goes_on = f"{told}; the session was already granted. Fix the output and retry.\n"
    assert (1, goes_on) == start_into("/dev/full", *more)
    assert {"7"} == agent.sessions.keys()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no /dev/full")
def test_a_grant_that_nobody_can_read_nor_give_back_is_told(agent: StandIn) -> None:
    """That the seat stays taken is said, and why."""
    agent.fails_at = "DELETE"
    status, told = start_into("/dev/full")
    assert (1, True) == (status, "session 7 was started and cannot be ended: the agent failed inside" in told)


def test_the_token_is_shown_on_tcp_only(agent: StandIn, run: Run) -> None:
    """On TCP the token proves who asks; on a Unix socket the kernel does, and no token is read."""
    run("session", "list")
    expected = None if agent.listen.startswith("unix:") else f"Bearer {TOKEN}"
    assert expected == agent.heads[0].get("authorization")


def test_restricted_use_is_status_0(agent: StandIn, run: Run) -> None:
    """Use without a licence is an answer that lets the session start."""
    agent.answers(200, {"decision": "restricted", "user": "corp\\john", "node": "ctx-01", "session": "7"})
    told = "restricted use for corp\\john on ctx-01, without a licence\n"
    assert (0, told, "") == run("session", "start", "john", "--session", "7")


def test_a_grant_says_who_vouches_for_it(agent: StandIn, run: Run) -> None:
    """Overdraft and a grant by receipt are told."""
    agent.answers(201, GRANT | {"source": "receipt", "overdraft": True})
    out = run("session", "start", "john", "--session", "7")[1]
    assert out.endswith("09:00 UTC, on overdraft, by this node's receipt while the store is away\n")


@pytest.mark.parametrize(
    ("http", "reason", "status"),
    [
        (403, "not_entitled", 3),
        (409, "capacity", 3),
        (409, "recovering", 3),
        (503, "draining", 3),
        (503, "offline", 4),
    ],
)
def test_a_denial_is_an_answer(agent: StandIn, run: Run, http: int, reason: str, status: int) -> None:
    """A denial is one line on stdout with the time of the next try, never too early; 4 only where the store is away."""
    agent.answers(http, DENIAL | {"status": http, "reason": reason})
    told = "denied: All 3 seats of qlikview are taken; try again after 2026-12-21 09:01 UTC\n"
    assert (status, told, "") == run("session", "start", "john", "--session", "7")


def test_a_denial_without_a_time_gives_none(agent: StandIn, run: Run) -> None:
    """Where no time helps, none is told."""
    agent.answers(403, DENIAL | {"reason": "not_entitled", "detail": "You may not use it.", "retry_at": None})
    assert "denied: You may not use it\n" == run("session", "start", "john", "--session", "7")[1]


def test_a_denial_gives_its_time_once(agent: StandIn, run: Run) -> None:
    """Where the agent's sentence has the time already, it is not repeated."""
    agent.answers(409, DENIAL | {"detail": "All are taken; the first becomes free at 2026-12-21 09:01 UTC."})
    told = "denied: All are taken; the first becomes free at 2026-12-21 09:01 UTC\n"
    assert told == run("session", "start", "john", "--session", "7")[1]


@pytest.mark.parametrize(("http", "document", "status"), [(201, GRANT, 0), (409, DENIAL, 3)])
def test_json_is_the_agents_document(agent: StandIn, run: Run, http: int, document: object, status: int) -> None:
    """With ``-o json`` the whole answer is printed, a denial's too, with the same exit status."""
    agent.answers(http, document)
    code, out, err = run("session", "start", "john", "--session", "7", "-o", "json")
    assert (status, document, "") == (code, json.loads(out), err)


@pytest.mark.parametrize(
    "document",
    [
        {"status": 422, "detail": "user: a name has at most 256 characters."},
        {"detail": [{"loc": ["body", "user"], "msg": "a name has at most 256 characters", "type": "value_error"}]},
    ],
)
def test_bad_input_names_the_field_and_is_status_2(agent: StandIn, run: Run, document: object) -> None:
    """What the agent cannot accept is wrong usage, and the field is named."""
    agent.answers(422, document)
    told = "farmlease: user: a name has at most 256 characters\n"
    assert (2, "", told) == run("session", "start", "john", "--session", "7")


@pytest.mark.parametrize(
    ("http", "document", "told"),
    [
        (401, {"detail": "no"}, "does not accept th"),
        (500, b"oops", "failed inside (HTTP 500)"),
        (200, b"<html>", "is not a farmlease agent"),
        (302, {}, "answered HTTP 302"),
        (403, {"detail": "Only root may act for others."}, "farmlease: Only root may act for others\n"),
        (413, {"detail": "More than 64 KiB."}, "More than 64 KiB"),
        (200, {"decision": "maybe"}, "answered HTTP 200"),
    ],
)
def test_what_is_no_answer_is_an_error(agent: StandIn, run: Run, http: int, document: object, told: str) -> None:
    """Anything the interface does not promise is one line on stderr and status 1."""
    agent.answers(http, document)
    code, out, err = run("session", "start", "john", "--session", "7")
    assert (1, "") == (code, out)
    assert told in err
    assert 1 == err.count("\n")


def test_unavailable_without_a_decision_is_status_4(agent: StandIn, run: Run) -> None:
    """An agent that cannot do it now says so, and asking later may help."""
    agent.answers(503, {"detail": "The agent is stopping."})
    assert (4, "", "farmlease: The agent is stopping; try again later\n") == run("session", "save", "7")


def test_a_session_lives_by_its_commands(agent: StandIn, run: Run) -> None:
    """Touch, hold, save and end reach the session, whatever characters its id has."""
    name = "rdp-tcp#4/ü 7"
    assert 0 == run("session", "start", "john", "--session", name)[0]
    assert (0, f"touched session {name}\n", "") == run("session", "touch", name)
    held = f"holding session {name} in qlikview until 2026-11-21 13:00 UTC\n"
    assert (0, held, "") == run("session", "hold", name, "--for", "4h")
    assert (0, f"saved the files of session {name}\n", "") == run("session", "save", name)
    assert (0, f"ended session {name}\n", "") == run("session", "end", name)
    assert (1, "", NOT_THERE) == run("session", "end", name)
    place = "/v1/sessions/rdp-tcp%234%2F%C3%BC%207"
    assert [
        ("POST", f"{place}/activity", None),
        ("POST", f"{place}/hold", {"for": "4h"}),
        ("POST", f"{place}/save", None),
        *[("GET", place, None), ("DELETE", place, None)] * 2,
    ] == agent.asked[1:]


@pytest.mark.parametrize("verb", ["touch", "hold", "save", "show", "end"])
def test_an_unknown_session_is_status_1(agent: StandIn, run: Run, verb: str) -> None:
    """What this node has not is told with where to look."""
    assert (1, "", NOT_THERE) == run("session", verb, "8")


@pytest.mark.parametrize("verb", ["touch", "hold", "save", "show", "end"])
def test_a_verb_on_one_use(agent: StandIn, run: Run, verb: str) -> None:
    """``--pool`` names the use that is meant."""
    run("session", "start", "john", "--session", "7")
    assert 0 == run("session", verb, "7", "--pool", "qlik view")[0]
    assert agent.asked[-1][1].endswith("?pool=qlik%20view")


def test_the_end_of_a_lost_session_says_so(agent: StandIn, run: Run) -> None:
    """It is ended, and whoever ends it learns that its seat had been lost before: status 1."""
    run("session", "start", "john", "--session", "7")
    agent.sessions["7"] |= {"state": "lost", "reason": "revoked"}
    told = "farmlease: session 7 had lost its seat before it was ended: qlikview (revoked)\n"
    assert (1, "ended session 7\n", told) == run("session", "end", "7")
    assert {} == agent.sessions


def test_an_empty_id_is_wrong_usage(agent: StandIn, run: Run) -> None:
    """An empty id would lead to the list of all sessions."""
    assert 2 == run("session", "end", "")[0]
    assert [] == agent.asked


def test_the_list_is_what_the_agent_has(agent: StandIn, run: Run) -> None:
    """``session list`` shows each session of the node; JSON is the agent's own list, and CSV has all of it."""
    run("session", "start", "john", "--session", "7")
    assert list(agent.sessions.values()) == json.loads(run("session", "list", "-o", "json")[1])
    head, line = run("session", "list")[1].splitlines()
    assert ["SESSION", "USER", "POOL", "STATE", "DEVICE", "EXPIRES (UTC)"] == re.split(r"\s{2,}", head)
    assert ["7", "corp\\john", "qlikview", "active", "citrix-a"] == line.split()[:5]
    (row,) = csv.DictReader(io.StringIO(run("session", "list", "-o", "csv")[1]))
    assert ["7", "corp\\john", "qlikview"] == list(row.values())[:3]
    (session,) = agent.sessions.values()
    assert {*session, "lease_id", "lease_issued_at", "lease_expires_at"} - {"decision", "lease"} == {*row}


def test_show_is_one_session(agent: StandIn, run: Run) -> None:
    """``session show`` prints one session's properties, or its JSON object."""
    run("session", "start", "john", "--session", "7")
    assert agent.session("7") == json.loads(run("session", "show", "7", "-o", "json")[1])
    assert "lease_id          L1" in run("session", "show", "7")[1].splitlines()


def test_an_answer_that_is_no_list_is_an_error(agent: StandIn, run: Run) -> None:
    """A list is a list, or it is another version's."""
    agent.answers(200, {"sessions": []})
    assert 1 == run("session", "list")[0]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_agent_is_status_4_and_says_what_to_do(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Where nobody listens the command says where it looked and how to start the agent."""
    listen = f"127.0.0.1:{distant_port()}" if kind == "tcp" else f"unix:{folder}/agent.sock"
    configure(folder, listen, monkeypatch)
    code, out, err = run("session", "start", "john", "--session", "7")
    assert (4, "") == (code, out)
    assert err.startswith(f"farmlease: no agent answers on {listen} (")
    assert "start it with 'farmlease agent'" in err
    assert 1 == err.count("\n")


def test_a_token_of_an_editor_on_windows(agent: StandIn, folder: Path, run: Run) -> None:
    """A byte order mark and a carriage return around a token are no part of it."""
    (folder / "token").write_bytes(b"\xef\xbb\xbf" + TOKEN.encode() + b"\r\n")
    assert 0 == run("session", "list")[0]


@pytest.mark.parametrize(
    ("content", "told"), [(None, "there is no token file"), ("", "holds no token"), ("tökèn", "holds no token")]
)
def test_without_a_token_nobody_is_asked(
    content: str | None, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """A missing or empty token file is told by its name, status 4."""
    configure(folder, f"127.0.0.1:{distant_port()}", monkeypatch)
    if content is None:
        (folder / "token").unlink()
    else:
        (folder / "token").write_text(content)
    code, _, err = run("session", "list")
    assert 4 == code
    assert told in err
    assert str(folder / "token") in err


def test_a_silent_agent_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """An agent that accepts and says nothing is unavailable after the timeout; ``--wait`` only lengthens it."""
    monkeypatch.setattr("farmlease.cli.client.session.TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listen = f"127.0.0.1:{listener.getsockname()[1]}"
        configure(folder, listen, monkeypatch)
        code, _, err = run("session", "start", "john", "--session", "7", "--wait", "100ms")
    assert 4 == code
    assert f"the agent on {listen} did not answer within 0.15 s" in err


@pytest.mark.parametrize(
    "command", [["start", "john", "--session", "7"], ["list", "-o", "json"], ["touch", "7"], ["end", "7"]]
)
def test_a_logon_imports_nothing_heavy(agent: StandIn, run: Run, command: list[str]) -> None:
    """``farmlease session`` runs at every logon: no redis, cryptography, pydantic, rich or asyncio is imported."""
    run("session", "start", "john", "--session", "7")
    code = (
        "import sys\nfrom farmlease.cli import main\n"
        f"try:\n    main({['session', *command]!r})\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"redis", "cryptography", "pydantic", "pydantic_core", "rich", "asyncio", "fastapi", "structlog"}
    assert set() == heavy & set(done.stdout.split())
    assert "click" in done.stdout.split()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no /dev/full")
@pytest.mark.parametrize("errors", ["full", "closed", "nobody reads", "all closed"])
@pytest.mark.parametrize(
    ("http", "document", "status"), [(201, GRANT, 0), (409, DENIAL, 3), (503, {"detail": "away"}, 4), (500, None, 1)]
)
def test_what_cannot_be_complained_of_changes_no_status(
    agent: StandIn, errors: str, http: int, document: object, status: int
) -> None:
    """A standard error that is full, closed, or read by nobody: the answer and the status are what they were."""
    agent.answers(http, document)
    command = [sys.executable, "-m", "farmlease", "session", "start", "john", "--session", "7"]
    close = {"closed": "2>&-", "all closed": "<&- 2>&-"}.get(errors, "")
    reader, pipe = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("wb") as full, os.fdopen(pipe, "wb") as unread:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {close}', "sh", *command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=unread if errors == "nobody reads" else full,
        )
    assert status == done.returncode
    assert (http in {201, 409}) == bool(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="pipes as Linux has them")
@pytest.mark.parametrize(("http", "document", "status"), [(409, DENIAL, 3), (503, {"detail": "x"}, 4), (500, None, 1)])
def test_a_reader_that_stands_still_holds_up_no_answer(
    agent: StandIn, http: int, document: object, status: int
) -> None:
    """A standard error that is full for ever: a second later the command ends, with the status that it has anyway."""
    agent.answers(http, document)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "farmlease", "session", "start", "john", "--session", "7"],
            check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=writer, timeout=within(20),
        )  # fmt: skip
    finally:
        os.close(reader)
        os.close(writer)
    assert status == done.returncode


@pytest.mark.skipif(sys.platform == "win32", reason="Python has no Unix sockets on Windows")
def test_refused_unheard_is_status_4(folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """An agent that has too many callers answers and closes before it has read: the answer is what is told."""
    configure(folder, f"unix:{folder}/agent.sock", monkeypatch)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "agent.sock"))
        listener.listen()

        def refuse() -> None:
            _refuse(listener.accept()[0], _REFUSAL)

        refusing = threading.Thread(target=refuse)
        refusing.start()
        status, _, told = run("session", "start", "john", "--session", "7")
        refusing.join()
    assert (4, True) == (status, "has as many connections as it takes; try again in a moment" in told)
