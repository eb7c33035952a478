"""Who may talk to the agent, before anything of a request is read."""

import os
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from farmlease.clock import SystemClock
from farmlease.domain.identity import AS_GIVEN, Identities
from farmlease.domain.policy import PolicyInForce
from farmlease.node.accounts.accounts import Accounts
from farmlease.node.http.auth import MAX_BODY, Access, Caller, Gate
from farmlease.node.http.server import hosts_of
from tests.support.asgi import Answer, ask

TOKEN = "a-token"  # noqa: S105 - a test's
ALLOWED = {"host": "127.0.0.1:8731", "authorization": f"Bearer {TOKEN}"}
KNOWN: Any = SimpleNamespace(in_force=PolicyInForce(0, None))  #: names are as given
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no uids")


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads its body and says who called and how much it read."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    caller: Caller = scope["farmlease.caller"]
    await JSONResponse({"only": caller.only and caller.only.canonical, "size": size, "path": scope["path"]})(
        scope, receive, send
    )


async def knock(
    headers: dict[str, str | None] | None = None,
    body: bytes | Iterable[bytes] = b"",
    token: str | None = TOKEN,
    client: tuple[str, int] = ("127.0.0.1", 50_000),
    target: str = "/v1/sessions",
) -> Answer:
    """Ask through the gate. ``headers`` go over the allowed ones; None leaves one out."""
    listen = "127.0.0.1:8731" if token else "unix:/run/farmlease/agent.sock"
    access = Access(token, hosts_of(listen), KNOWN, Accounts(SystemClock()))
    gate = Gate(reads_all, access)
    given = {name: value for name, value in {**ALLOWED, **(headers or {})}.items() if value is not None}
    return await ask(gate, "POST", target, headers=given, body=body, client=client)


def refused(answer: Answer, status: int) -> None:
    """Check that this is a refusal in the form of problems, with a sentence."""
    assert (status, "application/problem+json") == (answer.status, answer.headers["content-type"])
    assert {"type", "title", "status", "detail"} <= set(answer.document)
    assert status == answer.document["status"]


async def test_who_has_the_token_may_act_for_anyone() -> None:
    """Over TCP the token is all there is."""
    answer = await knock(body=b"12345")
    assert (200, {"only": None, "size": 5, "path": "/v1/sessions"}) == (answer.status, answer.document)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer another", "Basic a-token", f"Bearer {TOKEN}x", "Bearer \xe4\xf6\xfc"],
)
async def test_no_or_a_wrong_token(authorization: str | None) -> None:
    """401, and what scheme is asked for."""
    answer = await knock({"authorization": authorization})
    refused(answer, 401)
    assert "Bearer" == answer.headers["www-authenticate"]


@pytest.mark.parametrize("host", ["127.0.0.1:8731", "localhost:8731", "LOCALHOST:8731", "[::1]:8731"])
async def test_our_own_names(host: str) -> None:
    """Every name of this host's own address."""
    assert 200 == (await knock({"host": host})).status


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "evil.example:8731", "127.0.0.1", "localhost:80", "ctx-01:8731"]
)
async def test_a_foreign_host(host: str | None) -> None:
    """A name that an attacker's DNS leads here is refused, token or not."""
    refused(await knock({"host": host}), 403)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://127.0.0.1:8731/v1/sessions", "evil.example", 200),
        ("HTTP://localhost:8731/v1/sessions?x", None, 200),
        ("http://evil.example/v1/sessions", "127.0.0.1:8731", 403),
        ("http://evil.example/http://127.0.0.1:8731/", "127.0.0.1:8731", 403),
    ],
)
async def test_a_target_may_name_the_host(target: str, host: str | None, status: int) -> None:
    """Then that counts, and not the header; and the path is what follows it."""
    answer = await knock({"host": host}, target=target)
    assert status == answer.status
    if status == 200:
        assert "/v1/sessions" == answer.document["path"]


@pytest.mark.parametrize("origin", ["null", "http://127.0.0.1:8731", "https://evil.example", ""])
async def test_any_origin(origin: str) -> None:
    """Only browsers send one, and no browser has business here."""
    refused(await knock({"origin": origin}), 403)


async def test_a_host_is_looked_at_before_the_token() -> None:
    """Who is refused for his host does not learn whether his token is right."""
    refused(await knock({"host": "evil.example", "authorization": None}), 403)


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "99999999999999999999", "-1", "many", "1e3"])
async def test_a_length_over_the_limit(length: str) -> None:
    """Refused by its header, before a byte is read."""
    refused(await knock({"content-length": length}), 413)


async def test_a_body_without_a_length() -> None:
    """64 KiB in pieces are read, one byte more is not, whatever the pieces."""
    fits = [bytes(MAX_BODY // 4)] * 4
    assert MAX_BODY == (await knock(body=fits)).document["size"]
    refused(await knock(body=[*fits, b"x"]), 413)
    refused(await knock(body=bytes(MAX_BODY + 1)), 413)


@POSIX
@pytest.mark.parametrize("uid", [0, os.getuid() if os.name != "nt" else 0])
async def test_root_and_the_agents_own_user_act_for_anyone(uid: int) -> None:
    """Over a Unix socket the kernel says who calls."""
    answer = await knock({"host": "localhost"}, token=None, client=("peer uid", uid))
    assert (200, None) == (answer.status, answer.document["only"])


@POSIX
async def test_others_act_for_themselves() -> None:
    """Anybody else is his account, and nobody more."""
    import pwd  # noqa: PLC0415 - not on Windows

    answer = await knock({"host": "localhost"}, token=None, client=("peer uid", pwd.getpwnam("nobody").pw_uid))
    assert (200, "nobody") == (answer.status, answer.document["only"])


@POSIX
@pytest.mark.parametrize("client", [("peer uid", 54_321), ("peer uid", -1), ("", 0), ("127.0.0.1", 0)])
async def test_who_is_nobody_we_know(client: tuple[str, int]) -> None:
    """A uid without an account, or a socket that does not tell, is a stranger; a token does not help him."""
    refused(await knock({"host": "localhost"}, token=None, client=client), 401)


def test_the_names_of_an_address() -> None:
    """What a Host header may say, for each kind of address."""
    assert {"localhost", "farmlease"} == hosts_of("unix:/run/farmlease/agent.sock")
    assert {"[::1]:8731", "localhost:8731", "127.0.0.1:8731"} == hosts_of("[::1]:8731")
    assert "127.0.0.2:8731" in hosts_of("127.0.0.2:8731")


def test_a_caller_is_read_by_the_table_that_came_meanwhile() -> None:
    """The gate knew no policy yet: who may act for himself is the person that the table makes of his name."""
    identity = Identities(default_domain="CORP")
    caller = Caller(AS_GIVEN.user("john"), 1000, "john").under(identity)
    assert caller.may_act_for(identity.user("john"))
    assert Caller(None) == Caller(None).under(identity)
