"""HTTP servers of the tests' own, over real connections, and commands that are run against them in this process."""

import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from typing_extensions import override

from farmlease.cli import main

__all__ = ["Answer", "Asked", "Run", "answering", "run"]

Answer = tuple[int, bytes]  #: a status and a body
Run = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. The names of its headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class _Quiet(socketserver.BaseServer):
    """Says nothing of clients that hang up: stderr is what the tests read."""

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Tcp(_Quiet, socketserver.ThreadingTCPServer):
    pass


if sys.platform != "win32":

    class _Unix(_Quiet, socketserver.ThreadingUnixStreamServer):
        pass


@contextmanager
def answering(listen: str, answer: Callable[[Asked], Answer]) -> Iterator[int]:
    """Answer HTTP requests on ``host:port`` (port 0: any) or ``unix:/path``; yields the port, 0 for a path."""
    server: socketserver.BaseServer
    port = 0
    if sys.platform != "win32" and listen.startswith("unix:"):
        server = _Unix(listen.removeprefix("unix:"), _handler_of(answer))
    else:
        host, _, number = listen.rpartition(":")
        server = _Tcp((host, int(number)), _handler_of(answer))
        port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler_of(answer: Callable[[Asked], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content = answer(Asked(self.command, self.path, headers, body))
            self.send_response(status)
            if content:
                self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if content:  # writing even nothing to a client that has gone is an error
                self.wfile.write(content)

        do_GET = do_POST = do_DELETE = respond  # noqa: N815 - http.server's names

        @override
        def log_message(self, *args: object) -> None:
            """Say nothing: stderr is what the tests read."""

    return Handler


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``farmlease ARGS`` and returns its status, stdout and stderr."""

    def run_(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(args)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_
