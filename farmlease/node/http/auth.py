"""Who may call the agent: decided before a request is read.

A foreign ``Host`` or any ``Origin`` is a browser that was led here (403); over TCP the token is asked for (401), over a
Unix socket the kernel names the caller; a body over 64 KiB is cut off (413).
"""

import hmac
import os
import socket
import struct
import sys
from asyncio import Transport
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from farmlease.domain.identity import User
from farmlease.errors import InvalidName
from farmlease.node.journal.policy_cache import PolicyCache

__all__ = ["MAX_BODY", "Access", "Caller", "Gate", "PeerProtocol", "problem"]

MAX_BODY = 64 << 10  #: bytes of a request's body

_PEER = "peer uid"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``only`` is the one user a caller without rights may act for; None: for anyone."""

    only: User | None

    @staticmethod
    def of(request: Request) -> "Caller":
        """Return the caller the gate let in."""
        caller: Caller = request.scope["farmlease.caller"]
        return caller

    def may_act_for(self, user: User) -> bool:
        """Whether the caller may start and end this user's sessions."""
        return self.only is None or self.only == user


@dataclass(frozen=True, slots=True)
class Access:
    """How callers prove who they are. ``token`` None: it is a Unix socket, and the kernel names the caller."""

    token: str | None
    hosts: frozenset[str]
    policy: PolicyCache  #: whose table says who is who

    def caller(self, scope: Scope) -> Caller | None:
        """Return the caller; None for an unknown one."""
        if self.token is None:
            return self._peer(scope)
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())
        return Caller(None) if known else None

    def _peer(self, scope: Scope) -> Caller | None:
        kind, uid = scope["client"] or ("", -1)
        if sys.platform == "win32" or kind != _PEER:
            return None
        else:  # noqa: RET505 - mypy judges each platform by its branch
            import pwd  # noqa: PLC0415 - does not exist on Windows

            if uid in {0, os.getuid()}:
                return Caller(None)
            try:
                return Caller(self.policy.in_force.identity.user(pwd.getpwuid(uid).pw_name))
            except (KeyError, InvalidName):
                return None


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
        refusal = self._refusal(scope)
        if refusal is None:
            bounded = _Bounded(receive)
            try:
                await self._app(scope, bounded, send)
            except _TooLargeError as error:
                refusal = problem(error.status_code, error.detail)
        if refusal is not None:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._access.hosts or "origin" in headers:
            return problem(403, "this address is for programs on this host, not for browsers")
        caller = self._access.caller(scope)
        if caller is None:
            return problem(401, "no token, or a wrong one: send `Authorization: Bearer` and what stands in token_file")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return problem(413, f"the body is larger than {MAX_BODY} bytes")
        scope["farmlease.caller"] = caller
        return None


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


class PeerProtocol(H11Protocol):
    """HTTP/1.1 that gives the application the uid at the other end of a Unix socket, as the kernel has it."""

    @override
    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Note the peer's uid in place of an address."""
        super().connection_made(transport)
        uid = _peer_uid(transport.get_extra_info("socket"))
        if uid is not None:
            self.client = (_PEER, uid)


def _peer_uid(sock: Any) -> int | None:  # noqa: ANN401 - asyncio's TransportSocket is no socket.socket
    if sys.platform != "linux" or sock is None or sock.family != socket.AF_UNIX:
        return None
    else:  # noqa: RET505 - mypy judges each platform by its branch
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return int(uid)


def problem(status: int, detail: str, **fields: object) -> JSONResponse:
    """Return a problem document in the form of RFC 9457."""
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse({**document, **fields}, status, headers, "application/problem+json")
