"""One request to this node's agent, over HTTP on loopback or a Unix socket, and its answer.

Used at every logon: the standard library only, one connection per request, no retries. A retry is safe, and the caller
decides on it. This module must never print and never decide what an answer means to a user.
"""

import http.client
import json
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from farmlease import plain_file
from farmlease.config.source import UNIX, Endpoint
from farmlease.errors import AgentUnavailable, FarmleaseError, InvalidInput

__all__ = [
    "TIMEOUT",
    "Answer",
    "ask",
    "error_of",
    "reason",
]

#: Seconds without a byte from the agent after which it counts as unavailable. Longer than the agent's own
#: timeout for the store, so that a slow store is reported as such and not as a silent agent.
TIMEOUT = 10.0


class Answer(NamedTuple):
    """The agent's answer: the HTTP status and the JSON document, None without a body."""

    status: int
    document: object

    def fields(self) -> dict[str, object]:
        """Return the document as an object; empty if it is not an object."""
        return self.document if isinstance(self.document, dict) else {}


def ask(endpoint: Endpoint, method: str, path: str, document: object = None, *, timeout: float = TIMEOUT) -> Answer:
    """Send one request and return the answer, whatever it decides.

    ``timeout`` is in seconds and bounds each wait for the agent, not their sum. Raises AgentUnavailable if the agent
    does not answer or the token cannot be read, and FarmleaseError for a refused token, a failure inside the agent, and
    an answer that is not JSON.
    """
    headers = {"Accept": "application/json", "Connection": "close"}
    body = None
    if document is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(document).encode()
    if endpoint.token_file is not None:
        headers["Authorization"] = f"Bearer {_read_token(endpoint.token_file)}"
    try:
        with closing(_connect(endpoint, timeout)) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused unheard; the answer may be there
                connection.request(method, path, body, headers)
            response = connection.getresponse()
            status, content = response.status, response.read()
    except TimeoutError as error:
        raise AgentUnavailable(
            f"the agent on {endpoint.listen} did not answer within {timeout:g} s; see its log, then retry"
        ) from error
    except PermissionError as error:
        raise AgentUnavailable(
            f"this user may not open {endpoint.listen.removeprefix(UNIX)}: the agent makes it for all users (0666), "
            "and each folder above it must let them through (chmod 755)"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        silent = f"no agent answers on {endpoint.listen} ({reason(error)})"
        raise AgentUnavailable(
            f"{endpoint.absence}. By default {silent}"
            if endpoint.absence
            else f"{silent}; start it with 'farmlease agent', or correct [agent] listen in the configuration"
        ) from error
    return _parse_answer(endpoint, status, content)


def _connect(endpoint: Endpoint, timeout: float) -> http.client.HTTPConnection:
    """Return a connection to the agent; raises OSError if none can be made."""
    if endpoint.listen.startswith(UNIX):
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = _unix_socket(endpoint.listen.removeprefix(UNIX), timeout)
    else:
        connection = http.client.HTTPConnection(endpoint.listen, timeout=timeout)
        connection.connect()
    return connection


def _unix_socket(path: str, timeout: float) -> socket.socket:
    """Return a socket connected to ``path``; raises OSError."""
    if sys.platform == "win32":
        raise OSError("Python has no Unix sockets on Windows; listen on 127.0.0.1:8731")
    else:  # noqa: RET506 -- mypy tells platforms apart by this shape
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(timeout)
        try:
            connected.connect(path)
        except OSError:
            connected.close()
            raise
        return connected


def _read_token(file: Path) -> str:
    """Return the token for requests to the agent over TCP; raises AgentUnavailable."""
    try:
        text = plain_file.read(file).decode("utf-8-sig").strip()
    except FileNotFoundError as error:
        raise AgentUnavailable(
            f"there is no token file {file}; the agent makes it: start it with 'farmlease agent', "
            "or correct [agent] token_file"
        ) from error
    except (OSError, ValueError) as error:
        raise AgentUnavailable(
            f"cannot read the agent's token file {file} ({reason(error)}); run this as root or as the agent's own user"
        ) from error
    if not text or not (text.isascii() and text.isprintable()):
        raise AgentUnavailable(f"the token file {file} holds no token; remove it and start the agent again")
    return text


def _parse_answer(endpoint: Endpoint, status: int, body: bytes) -> Answer:
    """Return the answer in ``body``; raise FarmleaseError for a refused token, a failure, or other than JSON."""
    if status == http.client.UNAUTHORIZED and endpoint.token_file is None:
        raise FarmleaseError(
            f"the agent on {endpoint.listen} does not accept this user; has he an account on this host?"
        )
    if status == http.client.UNAUTHORIZED:
        raise FarmleaseError(
            f"the agent on {endpoint.listen} does not accept the token in {endpoint.token_file}; "
            "check [agent] listen and token_file"
        )
    if status >= http.client.INTERNAL_SERVER_ERROR and status != http.client.SERVICE_UNAVAILABLE:
        raise FarmleaseError(f"the agent failed inside (HTTP {status}); see its log. A retry is safe")
    if not body:
        return Answer(status, None)
    try:
        return Answer(status, json.loads(body))
    except ValueError as error:
        raise FarmleaseError(
            f"what answers on {endpoint.listen} is not a farmlease agent (HTTP {status}, not JSON); "
            "check [agent] listen"
        ) from error


def error_of(answer: Answer) -> FarmleaseError:
    """Return the error for an answer that is neither a success nor a denial."""
    text = _detail(answer)
    if answer.status == http.client.UNPROCESSABLE_ENTITY:
        return InvalidInput(text or "the agent did not understand the request")
    if answer.status == http.client.SERVICE_UNAVAILABLE:
        return AgentUnavailable(f"{text or 'the agent cannot do this now'}; try again later")
    return FarmleaseError(text or f"the agent answered HTTP {answer.status}, which this command does not expect")


def _detail(answer: Answer) -> str:
    """Return the text of a problem document in one line: its sentence, or each field with its fault."""
    given = answer.fields().get("detail")
    faults = given if isinstance(given, list) else answer.fields().get("errors")
    if isinstance(faults, list) and faults:
        return "; ".join(_fault(entry) for entry in faults)
    return given.strip().rstrip(".") if isinstance(given, str) else ""


def _fault(entry: object) -> str:
    """Return "field: fault" of one entry of a 422."""
    if not isinstance(entry, dict):
        return str(entry)
    place = entry.get("loc", ())
    field = ".".join(str(part) for part in place if part != "body") if isinstance(place, list) else str(place)
    return f"{field}: {entry.get('msg', 'not valid')}"


def reason(error: Exception) -> str:
    """Return the short text of an operating system's error."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
