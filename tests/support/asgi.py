"""One question to an ASGI application, without a network: what the application is given is the test's to say."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

__all__ = ["Answer", "ask"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The JSON in it."""
        return json.loads(self.body)


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] = b"",
    **scope: Any,
) -> Answer:
    """Send one request; ``body`` may come in pieces, as a chunked one does."""
    pieces = [body] if isinstance(body, bytes) else [*body]
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        said.append(message)

    whole: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path.partition("?")[0]),
        "raw_path": path.encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8731),
        **scope,
    }
    try:
        await app(whole, receive, send)
    except Exception:
        if not said:  # after the answer it is the server's to log
            raise
    start, *rest = said
    given = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], given, b"".join(message.get("body", b"") for message in rest))
