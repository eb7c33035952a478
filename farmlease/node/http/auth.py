"""Who may call the agent, decided before a request is read; and what each caller may say.

A foreign ``Host`` or any ``Origin`` is a browser that was led here (403); over TCP the token is asked for (401), over a
Unix socket the kernel names the caller; a body over 64 KiB is cut off (413). What is let in is routed by its path as it
was sent.

Root, the agent's own user and whoever has the token act for anyone and may say anything. Anybody else acts for himself,
and says no group, site or device, which would decide about his seat, unless the administrator trusts him to.
"""

import hmac
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import quote, unquote_to_bytes

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farmlease.domain.identity import Identities, User
from farmlease.errors import InvalidInput, InvalidName
from farmlease.node.accounts.accounts import Accounts, NoAnswer
from farmlease.node.host_identity import Sight, owner, sight_of
from farmlease.node.http.schemas import FieldError
from farmlease.node.journal.policy_cache import PolicyCache

__all__ = ["MAX_BODY", "PEER", "PEER_PID", "Access", "Caller", "Gate", "NotYours", "path_as_sent", "problem"]

MAX_BODY = 64 << 10  #: bytes of a request's body

#: In place of the address of a caller on a Unix socket, whose uid stands in place of a port.
PEER = "peer uid"
#: Behind it: the number that the caller has in this PID namespace; 0: none.
PEER_PID = ", pid "
#: A target with the server's address in front: the address, and the path.
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)(/.*)?")
#: What everybody may say of a session of his own.
_OF_EVERYBODY = frozenset({"user", "session", "pool", "app", "pid", "wait"})


class NotYours(Exception):
    """A field of a request that this caller may not send, or not with this value."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``only`` is the one user a caller without rights may act for; None: for anyone.

    For one with an ``only``: his ``uid``, his account's ``name``, and what ``[agent] trust`` lets him say. ``process``:
    his pid, as the kernel gives it; 0: it has no number here; None: not known.
    """

    only: User | None
    uid: int = -1
    name: str = ""
    trust: frozenset[str] = frozenset()
    process: int | None = None

    @staticmethod
    def of(request: Request) -> "Caller":
        """Return the caller the gate let in."""
        caller: Caller = request.scope["farmlease.caller"]
        return caller

    def under(self, identity: Identities) -> "Caller":
        """Return the same caller by a table of who is who that came into force after the gate had let him in."""
        if self.only is None:
            return self
        return replace(self, only=identity.user(self.name or self.only.canonical))

    def may_act_for(self, user: User) -> bool:
        """Whether the caller may start and end this user's sessions."""
        return self.only is None or self.only == user

    def check(self, said: Collection[str], pid: int | None) -> None:
        """Refuse what this caller may not say: a field that is not his, or the pid of another's process; NotYours.

        FieldError for a process whose end the agent would not see. A process is known by its pid and its start, so that
        one which takes the pid over meanwhile is not taken for it.
        """
        if self.only is not None:
            for field in sorted({*said} - _OF_EVERYBODY - self.trust):
                text = "only root may say this here; leave it out, or see [agent] trust in farmlease.toml"
                raise NotYours(field, text)
        if pid is None:
            return
        sight = sight_of(pid, self.process)
        others = sight is Sight.NOBODY or (sight is Sight.CLEAR and owner(pid) != self.uid)
        if self.only is not None and others:
            raise NotYours("pid", "is no process of yours")
        if sight is not Sight.CLEAR:
            raise FieldError("pid", InvalidInput(sight.value))


@dataclass(frozen=True, slots=True)
class Access:
    """How callers prove who they are. ``token`` None: it is a Unix socket, and the kernel names the caller.

    ``trust``: what a caller who acts only for himself may say beside what everybody may.
    """

    token: str | None
    hosts: frozenset[str]
    policy: PolicyCache  #: whose table says who is who
    accounts: Accounts
    trust: frozenset[str] = frozenset()

    @property
    def stranger(self) -> str:
        """What a caller is told who is not known."""
        if self.token is None:
            return "this host has no account for you; see `getent passwd` and the id of the user who asks"
        return "no token, or a wrong one: send `Authorization: Bearer` and what stands in token_file"

    async def caller(self, scope: Scope) -> Caller | NoAnswer:
        """Return the caller; NONE for a stranger, UNKNOWN if the host cannot say now who he is."""
        if self.token is None:
            return await self._peer(scope)
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())
        return Caller(None) if known else NoAnswer.NONE

    async def _peer(self, scope: Scope) -> Caller | NoAnswer:
        kind, uid = scope["client"] or ("", -1)
        kind, _, pid = kind.partition(PEER_PID)
        if sys.platform == "win32" or kind != PEER:
            return NoAnswer.NONE
        else:  # noqa: RET505 - mypy judges each platform by its branch
            process = int(pid) if pid else None
            if uid in {0, os.getuid()}:
                return Caller(None, process=process)
            name = await self.accounts.name_of(uid)
            if isinstance(name, NoAnswer):
                return name
            try:
                return Caller(self.policy.in_force.identity.user(name), uid, name, self.trust, process)
            except InvalidName:
                return NoAnswer.NONE


class Gate:
    """ASGI middleware: lets a request through to ``app`` with its caller, or answers it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        if refusal is None:
            bounded = _Bounded(receive)
            try:
                await self._app(scope, bounded, send)
            except _TooLargeError as error:
                refusal = problem(error.status_code, error.detail)
        if refusal is not None:
            await refusal(scope, receive, send)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = _host_as_sent(scope) or headers.get("host", "")
        if host.lower() not in self._access.hosts or "origin" in headers:
            return problem(403, "this address is for programs on this host, not for browsers")
        caller = await self._access.caller(scope)
        if caller is NoAnswer.UNKNOWN:
            return problem(503, "the accounts of this host cannot be looked up now, so nobody knows who you are")
        if caller is NoAnswer.NONE:
            return problem(401, self._access.stranger)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return problem(413, f"the body is larger than {MAX_BODY} bytes")
        scope["farmlease.caller"] = caller
        scope["path"] = path_as_sent(scope)
        return None


def _host_as_sent(scope: Scope) -> str:
    """Return the host of a target that names one: it stands in place of the header's, as HTTP has it."""
    absolute = _ABSOLUTE.fullmatch(scope["raw_path"].partition(b"?")[0])
    return absolute[1].decode("latin-1") if absolute else ""


def path_as_sent(scope: Scope) -> str:
    """Return the path of a request undecoded, so that a session may be called ``pts/3``.

    Whatever a caller encodes without need, each segment is encoded in one way.
    """
    raw = scope["raw_path"].partition(b"?")[0]
    absolute = _ABSOLUTE.fullmatch(raw)
    segments = ((absolute[2] or b"/") if absolute else raw).split(b"/")
    return "/".join(quote(unquote_to_bytes(segment), safe="") for segment in segments)


class _TooLargeError(HTTPException):
    """A body without a length went on for too long. FastAPI lets an HTTPException through and makes 400 of others."""

    def __init__(self) -> None:
        super().__init__(413, f"the body is larger than {MAX_BODY} bytes")


class _Bounded:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = MAX_BODY

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _TooLargeError
        return message


def problem(status: int, detail: str, **fields: object) -> JSONResponse:
    """Return a problem document in the form of RFC 9457."""
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse({**document, **fields}, status, headers, "application/problem+json")
