"""The doctor's checks of this host: configuration, key ring, files, disk, and the agent that should be running."""

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from farmlease.cli import config_file
from farmlease.cli import health as health_command
from farmlease.cli.client import agent
from farmlease.cli.client.farm import configuration
from farmlease.config.model import Config
from farmlease.config.source import UNIX, agent_endpoint, find
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing, KeyState
from farmlease.domain import wording
from farmlease.domain.diagnosis import node as judge
from farmlease.domain.diagnosis.finding import Finding, failed, fine
from farmlease.errors import FarmleaseError
from farmlease.node.journal.journal import FILE
from farmlease.node.journal.sqlite import inspect_file

__all__ = ["agent_findings", "configured", "file_findings", "guarded", "ring_findings", "why"]


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of a check; an exception in it is one more finding."""
    findings: list[Finding] = []
    try:
        for each in check():
            findings.append(each)  # noqa: PERF402 - findings before an exception count
    except Exception as error:  # noqa: BLE001 - one broken check must not end the others
        findings.append(failed(name, why(error)))
    return findings


def why(error: Exception) -> str:
    """Return an error in one line."""
    if isinstance(error, FarmleaseError):
        return " ".join(str(error).split())
    if isinstance(error, PermissionError):
        return "this user may not read it; run this as root or as the agent's own user"
    return f"cannot be checked: {type(error).__name__}: {' '.join(str(error).split())}"


def configured() -> tuple[Config | None, list[Finding]]:
    """Check the interpreter and the configuration; the configuration is None if it is not valid."""
    found: list[Config] = []

    def check() -> Iterator[Finding]:
        yield judge.python(sys.version_info[:3])
        found.append(configuration())
        path, _ = find(config_file(), os.environ)
        source = str(path) if path.exists() else "the environment"
        yield fine("configuration", f"{source}: node {found[0].node} of farm {found[0].farm}")

    findings = guarded("configuration", check)
    return (found[0] if found else None), findings


def ring_findings(config: Config) -> tuple[KeyRing | None, list[Finding]]:
    """Check the key ring; the ring is None if it cannot be loaded."""
    found: list[KeyRing] = []

    def check() -> Iterator[Finding]:
        ring = keyring_file.load(config.keys.file)
        found.append(ring)
        old = tuple(each for each in ring.ids if ring.state(each) is KeyState.OLD)
        yield judge.ring(judge.RingFacts(primary=ring.primary, pending=ring.pending, old=old))

    findings = guarded("key ring", check)
    return (found[0] if found else None), findings


def file_findings(config: Config) -> Iterator[Finding]:
    """Check the files that must be private, the journal, and the free disk space."""
    agent, store = config.agent, config.store
    yield from guarded("state_dir", lambda: [judge.file("state_dir", _facts("folder", agent.state_dir))])
    if not agent.listen.startswith(UNIX):
        yield from guarded("token", lambda: [judge.file("token", _facts("file", agent.token_file))])
    for name, path in (("password_file", store.password_file), ("key_file", store.key_file)):
        if path is not None:
            yield from guarded(name, partial(_private, name, path))
    yield from guarded("journal", lambda: [_journal(agent.state_dir / FILE)])
    yield from guarded("disk", lambda: [_disk(agent.state_dir)])


def _private(name: str, path: Path) -> list[Finding]:
    return [judge.file(name, _facts("file", path, "write it"))]


def agent_findings() -> Iterator[Finding]:
    """Check that the agent of this node answers its API, and what its health listener reports."""
    yield from guarded("agent", _agent)
    yield from guarded("health", _health)


def _facts(what: str, path: Path, absent: str | None = None) -> judge.FileFacts:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return judge.FileFacts(what=what, path=str(path), exists=False, is_kind=True, mode=None, absent=absent)
    is_kind = stat.S_ISDIR(status.st_mode) if what == "folder" else stat.S_ISREG(status.st_mode)
    mode = None if sys.platform == "win32" else stat.S_IMODE(status.st_mode)
    return judge.FileFacts(what=what, path=str(path), exists=True, is_kind=is_kind, mode=mode)


def _journal(path: Path) -> Finding:
    glance = inspect_file(path)
    return judge.journal(str(path), sound=None if glance is None else glance.sound)


def _disk(folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    usage = shutil.disk_usage(there)
    return judge.disk(str(folder), usage.free, usage.total)


def _agent() -> Iterator[Finding]:
    endpoint = agent_endpoint(config_file(), os.environ)
    answer = agent.ask(endpoint, "GET", "/v1/sessions")
    if isinstance(answer.document, list):
        count = len(answer.document)
        yield fine("agent", f"answers on {endpoint.listen}, {wording.counted(count, 'session')}")
    else:
        yield failed("agent", str(agent.error_of(answer)))


def _health() -> Iterator[Finding]:
    target = health_command.parse_url(health_command.own_url())
    _, body = health_command.probe(target)
    word, _ = health_command.parse_answer(target, body)
    checks = json.loads(body)["checks"]
    results = {name: [(str(each["status"]), str(each.get("output", ""))) for each in checks[name]] for name in checks}
    yield from judge.health(word, results)
