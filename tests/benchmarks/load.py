"""Questions over HTTP, many in flight at once: as little work for each as there can be, so that the server is measured."""

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Question", "load"]


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and the status that it must be answered with."""

    method: str
    path: str
    status: int
    body: dict[str, Any] | None = None

    def packed(self, port: int, token: str) -> bytes:
        """Return it as it goes over the wire."""
        body = b"" if self.body is None else json.dumps(self.body).encode()
        head = (
            f"{self.method} {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def load(port: int, token: str, questions: Iterable[Question], clients: int) -> list[float]:
    """Ask all over ``clients`` connections that are kept; return how long each took, in ms."""
    waiting, times = iter(questions), list[float]()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for question in waiting:
            began = time.perf_counter()
            writer.write(question.packed(port, token))
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0"
            )
            body = await reader.readexactly(int(length))
            times.append((time.perf_counter() - began) * 1000)
            assert question.status == int(head[9:12]), (question, head, body)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return times
