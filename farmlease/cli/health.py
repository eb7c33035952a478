"""``farmlease health``: a node's health as a balancer's probe sees it, in words.

It asks the health listener, which needs no token and reports nothing about users. Must never contact the store.
"""

import http.client
import json
import os
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

import click

from farmlease.cli import config_file, example, print_line
from farmlease.cli.output.format import print_folded
from farmlease.config.source import as_written, read, split_address
from farmlease.errors import EXIT_FAILED, AgentUnavailable, ConfigError, FarmleaseError, InvalidInput

__all__ = ["health", "own_url", "parse_answer", "parse_url", "probe"]

#: Seconds. A node that takes longer to answer is not well.
TIMEOUT = 5.0

#: Columns that the continuation of a check's line is indented by.
_INDENT = 4
LISTEN = "127.0.0.1:8732"  # the default listener, on every address, as reached from the node itself
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared, not listened on
WORDS = ("pass", "warn", "fail")


@click.command(epilog=example("farmlease health", "farmlease health http://ctx-02:8732/readyz"))
@click.argument("url", required=False)
def health(url: str | None) -> None:
    """Ask a node whether it can serve a logon (default: this node).

    Prints its status and its checks. Exit status: 0 pass or warn, 1 fail, 4 it does not answer.
    """
    target = parse_url(url or own_url())
    try:
        status, body = probe(target)
    except AgentUnavailable as error:
        given = read(config_file(), os.environ)
        if url or not given.absence or given.overrides:
            raise
        raise AgentUnavailable(f"{given.absence}. By default {error}") from error
    word, checks = parse_answer(target, body)
    print_line(f"{word}: {target.geturl()} (HTTP {status})")
    for line in checks:
        print_folded(f"  {line}", _INDENT)
    if word == "fail":
        click.get_current_context().exit(EXIT_FAILED)


def own_url() -> str:
    """Return the URL of this node's health listener, the first one by its configuration; raises ConfigError."""
    given = read(config_file(), os.environ)
    section = given.merged(lambda _, text: as_written(text)).get("health", {})
    listen = section.get("listen", LISTEN) if isinstance(section, dict) else section
    try:
        host, port = split_address(str(listen[0] if isinstance(listen, list) and listen else listen))
    except ConfigError as error:
        raise ConfigError(f"{given.source}: health.listen: {error}") from None
    host = LOOPBACK.get(host, host)
    return f"http://[{host}]:{port}/healthz" if ":" in host else f"http://{host}:{port}/healthz"


def parse_url(url: str) -> SplitResult:
    """Return the parts of a URL; "ctx-02:8732" is enough of one. Raises InvalidInput."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(f"{url!r} is not a URL of a health listener; it looks like http://ctx-02:8732/healthz")
    return parts if parts.path not in {"", "/"} else parts._replace(path="/healthz")


def probe(target: SplitResult) -> tuple[int, str]:
    """Return HTTP status and body; raise AgentUnavailable if the connection fails."""
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=TIMEOUT)
    path = target.path + (f"?{target.query}" if target.query else "")
    try:
        connection.request("GET", path, headers={"Accept": "application/health+json", "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AgentUnavailable(
            f"nothing answers on {target.geturl()} ({why}); is 'farmlease agent' running there, "
            "and is [health] listen this address?"
        ) from error
    finally:
        connection.close()


def parse_answer(target: SplitResult, body: str) -> tuple[str, list[str]]:
    """Return the status word and a line for each check, from a JSON or a plain body."""
    checks: list[str] = []
    try:
        document = json.loads(body)
        word = str(document["status"])
        checks = list(_check_lines(document.get("checks", {})))
    except (ValueError, TypeError, KeyError, AttributeError):
        word = body.split(maxsplit=1)[0].lower() if body.strip() else ""
        checks = body.strip().splitlines()[1:]
    if word not in WORDS:
        raise FarmleaseError(f"what answers on {target.geturl()} is not a farmlease health listener; check the port")
    return word, checks


def _check_lines(checks: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    """Yield "name: status value output" for each check."""
    for name, entries in checks.items():
        for entry in entries:
            value = entry.get("observedValue")
            observed = "" if value is None else f" {value} {entry.get('observedUnit', '')}".rstrip()
            output = f" ({entry['output']})" if entry.get("output") else ""
            yield f"{name}: {entry.get('status', 'pass')}{observed}{output}"
