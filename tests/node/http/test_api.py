"""The agent's HTTP interface, on a production agent in this process."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from farmlease.crypto.keyring import KeyRing
from farmlease.domain.health import Status, health
from farmlease.domain.identity import User
from farmlease.errors import JournalFailed
from farmlease.node.accounts.database import Account
from farmlease.node.http.api import create_app
from farmlease.node.http.auth import Caller, path_as_sent
from tests.support.asgi import Answer, ask
from tests.support.nodes import FARM, JOHN, MARY, Host, Site


class Browserless:
    """A client of one host's API, let in by the gate already. ``only`` is the user it may act for."""

    def __init__(self, host: Host, only: User | None = None) -> None:
        self._app = create_app(host.agent, host.node.loops)
        self._caller = Caller(only)
        self._host = host

    async def __call__(
        self, method: str, path: str, document: Any = None, body: bytes | Iterable[bytes] | None = None
    ) -> Answer:
        """Send one request."""
        self._host.mount()
        sent = json.dumps(document).encode() if body is None and document is not None else body or b""
        headers = {"content-type": "application/json"}
        return await ask(self._let_in, method, path, headers=headers, body=sent)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do what the gate does with a request that it lets in."""
        seen = {"farmlease.caller": self._caller, "path": path_as_sent(scope)}
        await self._app({**scope, **seen}, receive, send)


@pytest.fixture
def host(site: Site) -> Host:
    """A host of the farm."""
    return site.host()


@pytest.fixture
def api(host: Host) -> Browserless:
    """Its API."""
    return Browserless(host)


def problem(answer: Answer, status: int, **fields: object) -> str:
    """Check the form of an answer that is no success; return its sentence."""
    assert (status, "application/problem+json") == (answer.status, answer.headers["content-type"])
    document = answer.document
    assert {"type", "title", "status", "detail"} <= set(document)
    assert {"status": status, **fields} == {name: document[name] for name in ("status", *fields)}
    return str(document["detail"])


def start(user: str = r"CORP\john", session: str = "7", **more: object) -> dict[str, object]:
    """A request for a session."""
    return {"user": user, "session": session, **more}


# --- every call -----------------------------------------------------------------------------------------------------------


async def test_a_session_from_start_to_end(api: Browserless, host: Host) -> None:
    """201, 200 with the same answer, shown, kept awake, saved, ended, and ended again."""
    first = await api("POST", "/v1/sessions", start())
    again = await api("POST", "/v1/sessions", start("john@corp.example.com"))
    assert (201, 200) == (first.status, again.status)
    grant = first.document
    assert grant == again.document
    assert ("granted", r"corp\john", "qlikview", "named", FARM, "ctx-01", "7", "store", False) == tuple(
        grant[name] for name in ("decision", "user", "pool", "kind", "device", "node", "session", "source", "overdraft")
    )
    assert {"id", "issued_at", "expires_at"} == set(grant["lease"])
    shown = {**grant, "state": "active"}
    session = {"session": "7", "user": r"corp\john", "node": "ctx-01", "uses": [shown]}
    assert session == (await api("GET", "/v1/sessions/7")).document
    assert [shown] == (await api("GET", "/v1/sessions")).document
    assert 204 == (await api("POST", "/v1/sessions/7/activity")).status
    host.write(b"changed")
    saved = await api("POST", "/v1/sessions/7/save")
    of_all = {"changed": True, "superseded": False, "delivered": True}
    assert (200, {"session": "7", **of_all, "uses": [{"pool": "qlikview", **of_all}]}) == (saved.status, saved.document)
    assert [204, 204] == [(await api("DELETE", "/v1/sessions/7")).status for _ in range(2)]
    assert [] == (await api("GET", "/v1/sessions")).document


async def test_sessions_of_one_user_in_any_spelling(api: Browserless) -> None:
    """The list may be of one user, as the farm's table reads the name; a name that is none is refused."""
    await api("POST", "/v1/sessions", start())
    await api("POST", "/v1/sessions", start(r"CORP\mary", "8"))
    for spelling in ("john%40corp.example.com", "corp%5CJOHN"):
        assert ["7"] == [each["session"] for each in (await api("GET", f"/v1/sessions?user={spelling}")).document]
    assert "a user name has one" in problem(await api("GET", "/v1/sessions?user=a%40b%40c"), 422, field="user")
    problem(await api("GET", "/v1/sessions?usr=john"), 422)


async def test_without_a_policy_no_name_is_read(site: Site) -> None:
    """Before the node knows who is who it answers 503, even to a name that is none, until it finds a policy."""
    site.timed.raw.flushall()
    api = Browserless(site.host())
    for user in (r"CORP\john", "a@b@c"):
        answer = await api("POST", "/v1/sessions", start(user))
        assert "does not know the policy" in problem(answer, 503, reason="offline")
        assert answer.document["retry_at"] is not None
    await site.apply(site.policy)
    assert 422 == (await api("POST", "/v1/sessions", start("a@b@c"))).status
    assert 201 == (await api("POST", "/v1/sessions", start("john@corp.example.com"))).status


async def test_a_domain_that_nobody_listed_is_refused_where_the_farm_wants_that(site: Site) -> None:
    """403 with the reason, no seat, and health counts the domain without naming it."""
    await site.apply(site.policy.replace("[identity]\n", '[identity]\nunknown_domains = "refuse"\n'))
    host = site.host()
    await host.beat()
    api = Browserless(host)
    answer = await api("POST", "/v1/sessions", start("john@other.example"))
    assert "The domain of your account is not one of this farm" in problem(answer, 403, reason="not_entitled")
    assert await site.lease(User("john@other.example")) is None
    (check,) = [each for each in health(host.agent.facts()).checks if each.name == "identity"]
    assert (Status.WARN, True) == (check.status, "from 1 domain that" in check.output)
    assert "other" not in check.output
    assert 201 == (await api("POST", "/v1/sessions", start())).status


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/sessions/8"), ("POST", "/v1/sessions/8/activity"), ("POST", "/v1/sessions/8/save")],
)
async def test_a_session_that_is_not_there(api: Browserless, method: str, path: str) -> None:
    """404 with a sentence."""
    assert "there is no such session on this node" == problem(await api(method, path), 404)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/sessions", 404),
        ("GET", "/v1/sessions/", 404),
        ("GET", "/docs", 404),
        ("PATCH", "/v1/sessions", 405),
        ("PUT", "/v1/sessions/7", 405),
        ("GET", "/v1/drain", 405),
    ],
)
async def test_what_is_no_call(api: Browserless, method: str, path: str, status: int) -> None:
    """Unknown paths and methods are problems like all others, and a wrong method is told the right ones."""
    answer = await api(method, path)
    problem(answer, status)
    assert (status == 405) == ("allow" in answer.headers)


async def test_draining(api: Browserless) -> None:
    """Switched on and off; in between 503 with the reason."""
    assert 204 == (await api("PUT", "/v1/drain")).status
    assert "another one" in problem(await api("POST", "/v1/sessions", start()), 503, reason="draining")
    assert 204 == (await api("DELETE", "/v1/drain")).status
    assert 201 == (await api("POST", "/v1/sessions", start())).status


@pytest.mark.parametrize(
    ("method", "verb"), [("GET", ""), ("DELETE", ""), ("POST", "/activity"), ("POST", "/hold"), ("POST", "/save")]
)
async def test_a_query_that_is_not_known(api: Browserless, method: str, verb: str) -> None:
    """``?pools=`` for ``?pool=`` would mean every use of the session: 422, and none is touched."""
    await api("POST", "/v1/sessions", start())
    problem(await api(method, f"/v1/sessions/7{verb}?pools=qlikview"), 422, field="pools")
    assert ["7"] == [each["session"] for each in (await api("GET", "/v1/sessions")).document]


async def test_a_lost_session_is_shown_and_can_be_ended(api: Browserless, host: Host, site: Site) -> None:
    """Its grant with the state ``lost``, until its host ends it."""
    await api("POST", "/v1/sessions", start())
    site.timed.clock.advance(7_200_000)
    await host.beat()
    assert "lost" == (await api("GET", "/v1/sessions/7")).document["uses"][0]["state"]
    assert 200 == (await api("POST", "/v1/sessions/7/save")).status
    assert 204 == (await api("DELETE", "/v1/sessions/7")).status
    problem(await api("GET", "/v1/sessions/7"), 404)


# --- denials --------------------------------------------------------------------------------------------------------------


async def test_a_denial_says_what_blocks(api: Browserless) -> None:
    """409 with the user's own claims that stand in the way, and when the first ends."""
    await api("POST", "/v1/sessions", start(session="1"))
    await api("POST", "/v1/sessions", start(session="2", device="nb-1"))
    answer = await api("POST", "/v1/sessions", start(session="3", device="nb-2"))
    problem(answer, 409, decision="denied", reason="device_limit", pool="qlikview", retry_at=None)
    blocking = sorted(answer.document["blocking"], key=lambda claim: str(claim["device"]))
    assert [
        {"device": FARM, "node": "ctx-01", "until": None},
        {"device": "nb-1", "node": "ctx-01", "until": None},
    ] == blocking


async def test_not_entitled_and_restricted(api: Browserless, site: Site) -> None:
    """403 for who may not, 200 for use without a licence."""
    rules = '[[rule]]\nusers = [\'corp\\mary\']\naccess = "denied"\n[[rule]]\nsites = ["web"]\naccess = "restricted"\n'
    await site.apply(site.policy + rules)
    problem(await api("POST", "/v1/sessions", start(r"CORP\mary")), 403, reason="not_entitled")
    answer = await api("POST", "/v1/sessions", start(site="web"))
    expected = {"decision": "restricted", "user": r"corp\john", "node": "ctx-01", "session": "7"}
    assert (200, expected) == (answer.status, answer.document)


async def test_offline(api: Browserless, host: Host) -> None:
    """503 with when to try again."""
    host.line.cut.add("*")
    answer = await api("POST", "/v1/sessions", start())
    problem(answer, 503, reason="offline")
    assert "2026-01-05T09:01:00.000Z" == answer.document["retry_at"]


# --- who may --------------------------------------------------------------------------------------------------------------


async def test_a_plain_user_sees_and_touches_his_own(host: Host, api: Browserless) -> None:
    """Others' sessions are not there for him; he can neither end nor save nor take them over, nor drain the node."""
    mary = Browserless(host, only=MARY)
    await api("POST", "/v1/sessions", start())
    assert [] == (await mary("GET", "/v1/sessions")).document
    for method, path in (("GET", ""), ("POST", "/save"), ("POST", "/activity")):
        problem(await mary(method, f"/v1/sessions/7{path}"), 404)
    problem(await mary("DELETE", "/v1/sessions/7"), 403)
    problem(await mary("POST", "/v1/sessions", start()), 403, reason="not_entitled")
    problem(await mary("POST", "/v1/sessions", start(r"CORP\mary")), 403, reason="not_entitled")
    problem(await mary("PUT", "/v1/drain"), 403)
    assert 201 == (await mary("POST", "/v1/sessions", start(r"CORP\mary", "8"))).status
    assert {"7": "active", "8": "active"} == host.states


async def test_a_plain_user_cannot_use_the_moment_of_a_start(host: Host, api: Browserless) -> None:
    """A session that is just being started is not there yet for anybody, and still nobody else's to end."""
    await host.beat()
    mary = Browserless(host, only=MARY)
    with host.line.holding("acquire") as asked:
        starting = asyncio.create_task(api("POST", "/v1/sessions", start()))
        await asked()
        ending = asyncio.create_task(mary("DELETE", "/v1/sessions/7"))
        await asyncio.sleep(0)
    assert (201, 403) == ((await starting).status, (await ending).status)
    assert {"7": "active"} == host.states


# --- explained ------------------------------------------------------------------------------------------------------------


async def test_a_start_is_explained_without_being_one(host: Host, api: Browserless) -> None:
    """200 with what a start would be answered, and nothing is there afterwards; then the start is answered that."""
    await host.beat()
    found = await api("POST", "/v1/explain", start())
    assert (200, "granted", "new") == (
        found.status,
        found.document["answer"]["decision"],
        found.document["answer"]["how"],
    )
    assert {} == host.states
    granted = await api("POST", "/v1/sessions", start())
    assert {"pool", "device", "node", "session", "user"} <= found.document["answer"].keys()
    assert all(granted.document[key] == found.document["answer"][key] for key in ("pool", "device", "user", "session"))
    host.agent.drain(on=True)
    denied = await api("POST", "/v1/explain", start(r"CORP\mary", "8"))
    assert (200, "draining") == (denied.status, denied.document["answer"]["reason"])
    assert {"7": "active"} == host.states


async def test_a_plain_user_has_his_own_starts_explained(host: Host) -> None:
    """As for a start: nobody else's, no group or device of his own saying, and input that cannot be meant is named."""
    mary = Browserless(host, only=MARY)
    assert 200 == (await mary("POST", "/v1/explain", start(r"CORP\mary", "8"))).status
    problem(await mary("POST", "/v1/explain", start()), 403, reason="not_entitled")
    for field, value in (("groups", ["designers"]), ("device", "nb-1"), ("site", "intake")):
        problem(await mary("POST", "/v1/explain", start(r"CORP\mary", "8") | {field: value}), 403, field=field)
    problem(await mary("POST", "/v1/explain", start(r"CORP\mary", "8") | {"wait": "soon"}), 422, field="wait")


# --- groups ---------------------------------------------------------------------------------------------------------------

BANNED = '[[rule]]\ngroups = ["banned"]\naccess = "denied"\n'


class Directory:
    """The accounts of a host on which everybody is in these groups; notes who was asked for."""

    def __init__(self, *groups: str) -> None:
        self.groups = groups
        self.asked: list[str] = []

    def account(self, name: str) -> Account:
        """Return the account of this name."""
        self.asked.append(name)
        return Account(name=name, uid="7", home=PurePosixPath("/home", name), groups=self.groups)

    def name_of(self, uid: int) -> str | None:
        """Return None."""


def directory(host: Host, monkeypatch: pytest.MonkeyPatch, *groups: str) -> Directory:
    """Let everybody on a host be in these groups."""
    made = Directory(*groups)
    monkeypatch.setattr(host.node.runtime.accounts, "_database", made)
    return made


async def test_the_host_says_who_is_in_which_group(
    api: Browserless, host: Host, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to say it; what a caller says is added."""
    asked = directory(host, monkeypatch, "Banned")
    await site.apply(site.policy + BANNED)
    await host.beat()
    problem(await api("POST", "/v1/sessions", start(groups=["designers"])), 403, reason="not_entitled")
    assert [r"CORP\john"] == asked.asked


async def test_where_no_policy_asks_for_groups_nobody_is_looked_up(
    api: Browserless, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is slow, or away, is then no matter."""
    await host.site.apply('[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 3\n')  # files belong to accounts
    await host.beat()
    asked = directory(host, monkeypatch, "banned")
    assert 201 == (await api("POST", "/v1/sessions", start(groups=["banned"]))).status
    assert [] == asked.asked


@pytest.mark.parametrize(("group", "status"), [("designers", 201), ("banned", 403)])
async def test_a_policy_that_asks_for_groups_comes_meanwhile(
    api: Browserless, host: Host, site: Site, monkeypatch: pytest.MonkeyPatch, group: str, status: int
) -> None:
    """Between the look at the policy and its use: the groups are looked up then, and nobody is denied by none."""
    await host.beat()
    asked = directory(host, monkeypatch, group)
    await site.apply(site.policy + BANNED)
    assert status == (await api("POST", "/v1/sessions", start())).status
    assert [r"CORP\john"] == asked.asked


# --- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "document"),
    [
        ("user", {"session": "7"}),
        ("user", start("a/b")),
        ("session", start(session="a\x9bb")),
        ("session", start(session="a\ud800")),
        ("session", start(session="")),
        ("session", start(session="x" * 257)),
        ("pool", start(pool=" qlikview")),
        ("device", start(device="a\nb")),
        ("device", start(device="\udfff")),
        ("device", start(device="x" * 257)),
        ("wait", start(wait="soon")),
        ("pid", start(pid=-1)),
        ("groups", start(groups=["x"] * 2001)),
        ("colour", start(colour="red")),
        ("body", {**start(), "\ud800": 1}),
        ("body", []),
    ],
)
async def test_bad_input_names_the_field(api: Browserless, field: str, document: object) -> None:
    """422, the field, and what is wrong with it, without the value."""
    answer = await api("POST", "/v1/sessions", document)
    assert field in problem(answer, 422)
    assert field == answer.document["field"].split(".")[0]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 60_000, b'{"user": NaN}', b"null"])
async def test_what_is_no_request(api: Browserless, body: bytes) -> None:
    """A body that cannot be read is bad input, never a fault."""
    problem(await api("POST", "/v1/sessions", body=body), 422)


# --- when something is wrong here -------------------------------------------------------------------------------------------


async def test_a_file_that_must_not_be_touched(api: Browserless, host: Host) -> None:
    """409 with what to do about it; it is the user's own file."""
    await api("POST", "/v1/sessions", start())
    host.file().symlink_to("/etc/passwd")
    assert "is a link" in problem(await api("POST", "/v1/sessions/7/save"), 409)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who writes a file")
async def test_a_file_that_is_just_being_written(api: Browserless, host: Host) -> None:
    """409 with what to do; a user's program that writes is no fault of the host, and no error in its log."""
    await api("POST", "/v1/sessions", start())
    with host.file().open("wb") as file, capture_logs() as logs:
        file.write(b"half")
        assert "open in a program that writes it" in problem(await api("POST", "/v1/sessions/7/save"), 409)
    assert [] == [each for each in logs if each["log_level"] == "error"]


async def test_a_full_disk(api: Browserless, host: Host, monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    """503 with what to look at for a new session; the agent beats on, and when there is room nothing has leaked."""
    await api("POST", "/v1/sessions", start())
    journal = host.node.state.journal
    connection = journal._connection

    class Full:
        """A connection to a database on a full disk."""

        in_transaction = False

        def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
            """Refuse to write."""
            if not statement.startswith("SELECT"):
                raise sqlite3.OperationalError("database or disk is full")
            return connection.execute(statement, values)

    monkeypatch.setattr(journal, "_connection", Full())
    answer = await api("POST", "/v1/sessions", start(r"CORP\mary", "8"))
    assert "look at the disk of state_dir" in problem(answer, 503)
    problem(await api("DELETE", "/v1/sessions/7"), 503)
    site.timed.clock.advance(3_600_000)
    await host.beat()
    assert not host.agent.facts().journal_writes
    monkeypatch.undo()
    site.timed.clock.advance(3_600_000 + 1)
    await host.beat()
    assert {"7": "active"} == host.states
    assert ([("ctx-01", "7")], []) == (await site.sessions(JOHN), await site.sessions(MARY))
    assert host.agent.facts().journal_writes


async def test_a_disk_that_fills_between_question_and_answer(
    api: Browserless, host: Host, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    """The store has given a seat and the journal cannot take it: no grant, and the seat goes back when it can."""
    await host.beat()
    journal = host.node.state.journal
    original = journal._rows

    def refuse(statement: str, *values: object) -> list[Any]:
        if "acquire" in host.line.calls and not statement.startswith("SELECT"):
            raise JournalFailed("full: look at the disk of state_dir")
        return original(statement, *values)

    monkeypatch.setattr(journal, "_rows", refuse)
    problem(await api("POST", "/v1/sessions", start()), 503)
    assert [("ctx-01", "7")] == await site.sessions()
    monkeypatch.undo()
    await host.beat()
    await host.beat()
    assert ({}, []) == (host.states, await site.sessions())


async def test_a_key_ring_that_is_not_the_farms(site: Site) -> None:
    """503 that says so: nobody can be let in here until somebody copies the right one."""
    api = Browserless(site.host(ring=KeyRing.generate(0)))
    assert "key ring" in problem(await api("POST", "/v1/sessions", start()), 503)


async def test_a_fault_of_ours(api: Browserless, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 in the form of problems, without a word of what was raised."""
    monkeypatch.setattr(host.agent, "all_uses", lambda: 1 // 0)
    assert "log" in problem(await api("GET", "/v1/sessions"), 500)


# --- the schema -------------------------------------------------------------------------------------------------------------


async def test_the_schema_says_every_call(api: Browserless) -> None:
    """Each call of the interface, with every status it can answer, and problems in their own content type."""
    answer = await api("GET", "/v1/openapi.json")
    paths = answer.document["paths"]
    calls = {
        (method.upper(), path): set(call["responses"]) for path, on in paths.items() for method, call in on.items()
    }
    always = {"401", "403", "413", "422", "503"}
    assert {
        ("POST", "/v1/sessions"): {"200", "201", "409"} | always,
        ("POST", "/v1/explain"): {"200"} | always,
        ("GET", "/v1/sessions"): {"200"} | always,
        ("GET", "/v1/sessions/{session}"): {"200", "404"} | always,
        ("DELETE", "/v1/sessions/{session}"): {"204"} | always,
        ("POST", "/v1/sessions/{session}/activity"): {"204", "404"} | always,
        ("POST", "/v1/sessions/{session}/hold"): {"200", "404", "409"} | always,
        ("POST", "/v1/sessions/{session}/save"): {"200", "404", "409"} | always,
        ("PUT", "/v1/drain"): {"204"} | always,
        ("DELETE", "/v1/drain"): {"204"} | always,
    } == calls
    for on in paths.values():
        for call in on.values():
            for status, response in call["responses"].items():
                if status >= "400":
                    assert ["application/problem+json"] == list(response["content"])


# --- ids as hosts give them -----------------------------------------------------------------------------------------------

IDS = [
    "RDP-Tcp#12",
    "ICA-TCP#3",
    "pts/3",
    "7/save",
    "7/activity",
    "a/hold/save",
    "/",
    "#",
    "?pool=qlikview",
    "%2F",
    "%",
    "..",
    " 7 ",
    "-x",
    "Büro 12",
    "日本",
    "\u202e7",
    "x" * 256,
]


@pytest.mark.parametrize("session", IDS)
async def test_a_session_may_have_any_id(api: Browserless, host: Host, session: str) -> None:
    """Started by JSON, addressed by its path in percent-encoding; each call is about this one and no other."""
    path = f"/v1/sessions/{quote(session, safe='')}"
    await host.beat()
    others = [start("mary", "7"), start("mary", session[:-1] or "8")]
    assert {201} == {(await api("POST", "/v1/sessions", other)).status for other in others}
    granted = await api("POST", "/v1/sessions", start(session=session))
    assert (201, session) == (granted.status, granted.document["session"])
    assert 200 == (await api("POST", "/v1/sessions", start(session=session))).status
    assert session == (await api("GET", path)).document["session"]
    assert session in [shown["session"] for shown in (await api("GET", "/v1/sessions")).document]
    assert 204 == (await api("POST", f"{path}/activity")).status
    assert session == (await api("POST", f"{path}/save")).document["session"]
    assert 409 == (await api("POST", f"{path}/hold")).status  # a named pool allows none
    assert 204 == (await api("DELETE", path)).status
    assert 404 == (await api("GET", path)).status
    assert {other["session"]: "active" for other in others} == host.states


@pytest.mark.parametrize("segment", ["%FF", "%00", "a%0Ab", "%C2%9B", "%ED%A0%80", "x" * 257])
async def test_a_path_whose_id_is_none_names_the_field(api: Browserless, segment: str) -> None:
    """What is no text, holds a control character or is too long is refused, as in the body of a start."""
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/activity"), ("POST", "/hold"), ("POST", "/save")):
        told = problem(await api(method, f"/v1/sessions/{segment}{suffix}"), 422, field="session")
        assert told.startswith("session: the session ")


async def test_a_path_may_be_encoded_in_any_way(api: Browserless, host: Host) -> None:
    """Encoded or not where that changes nothing, and in either case: it is the same session."""
    await host.beat()
    await api("POST", "/v1/sessions", start(session="a~b/c#1"))
    for path in ("/v1/sessions/a~b%2fc%231", "/v1/sessions/%61%7Eb%2Fc%231", "/v1/%73essions/a~b%2Fc%231"):
        assert "a~b/c#1" == (await api("GET", path)).document["session"]


async def test_a_device_is_the_same_in_any_spelling(api: Browserless, host: Host) -> None:
    """Asked for in another spelling it is the same session; the farm's name in any spelling is the farm."""
    await host.beat()
    granted = await api("POST", "/v1/sessions", start(device="NB-17/Süd #2"))
    again = await api("POST", "/v1/sessions", start(device="nb-17/SÜD #2"))
    assert (201, 200, "nb-17/süd #2") == (granted.status, again.status, again.document["device"])
    assert granted.document == again.document
    farm = await api("POST", "/v1/sessions", start(session="8", device=FARM.upper()))
    assert (201, FARM) == (farm.status, farm.document["device"])
    denied = await api("POST", "/v1/sessions", start(session="9", device="NB-18"))
    assert ["citrix-a", "nb-17/süd #2"] == sorted(each["device"] for each in denied.document["blocking"])
