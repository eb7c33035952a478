"""The doctor's checks of this host: configuration, key ring, files, disk, and the agent that should be running."""

import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from farmlease.cli import config_file
from farmlease.cli import health as health_command
from farmlease.cli.client import agent
from farmlease.cli.client.farm import configuration
from farmlease.config.model import Config
from farmlease.config.source import LISTEN, TCP, UNIX, agent_endpoint, find, split_address
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing, KeyState
from farmlease.domain import wording
from farmlease.domain.diagnosis import node as judge
from farmlease.domain.diagnosis.finding import Finding, failed, fine
from farmlease.errors import AgentUnavailable, FarmleaseError
from farmlease.node.journal.evidence import VERSIONS, Evidence
from farmlease.node.journal.sqlite import inspect_file
from farmlease.node.journal.state_folder import FILE, MARK
from farmlease.node.journal.versions import KeptVersions

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
    yield from guarded("listen", lambda: judge.listen(_listen_facts(config)))
    yield from guarded("state_dir", lambda: [judge.file("state_dir", _facts("folder", agent.state_dir))])
    if not agent.listen.startswith(UNIX):
        yield from guarded("token", lambda: [judge.file("token", _facts("file", agent.token_file))])
    for name, path in (
        ("password_file", store.password_file),
        ("sentinel_password_file", store.sentinel_password_file),
        ("key_file", store.key_file),
    ):
        if path is not None:
            yield from guarded(name, partial(_private, name, path))
    yield from guarded("journal", lambda: [_journal(agent.state_dir / FILE)])
    yield from guarded("kept", lambda: judge.kept(*_kept(agent.state_dir)))
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


def _listen_facts(config: Config) -> judge.ListenFacts:
    given, usual = config.agent, LISTEN if LISTEN.startswith(UNIX) else None
    over_tcp = not given.listen.startswith(UNIX)
    by_default = not over_tcp and "listen" not in given.model_fields_set
    told_of_token = "token_file" in given.model_fields_set or given.token_file.exists()
    return judge.ListenFacts(
        address=given.listen,
        over_tcp=over_tcp,
        usual=usual,
        shut=() if over_tcp else tuple(_shut(Path(given.listen.removeprefix(UNIX)))),
        old_token=str(given.token_file) if by_default and told_of_token else None,
    )


def _shut(place: Path) -> Iterator[tuple[str, str]]:
    """Yield what keeps users from a socket: folders without the right to pass, and the socket without that to write."""
    for path in (*reversed(place.parents), place):
        if not path.exists():
            return
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and not mode & stat.S_IXOTH:
            yield str(path), "o+x"
        elif stat.S_ISSOCK(mode) and mode & 0o006 != 0o006:  # noqa: PLR2004 - a mode
            yield str(path), "0666"


def _journal(path: Path) -> Finding:
    glance = inspect_file(path)
    facts = judge.JournalFacts(
        path=str(path),
        sound=None if glance is None else glance.sound,
        replaced=glance is not None and glance.replaced,
        was_there=path.with_name(MARK).exists(),
    )
    return judge.journal(facts)


def _kept(folder: Path) -> tuple[str, list[str]]:
    """Return what stands in the place of a folder for what is kept, and what is no kept version."""
    blocked = Evidence(folder / "kept").blocked
    damaged: Sequence[Path] = () if blocked else KeptVersions(folder / "kept" / VERSIONS).damaged()
    return blocked and str(folder / blocked), [str(each) for each in damaged]


def _disk(folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    usage = shutil.disk_usage(there)
    return judge.disk(str(folder), usage.free, usage.total)


def _agent() -> Iterator[Finding]:
    endpoint = agent_endpoint(config_file(), os.environ)
    try:
        answer = agent.ask(endpoint, "GET", "/v1/sessions")
    except AgentUnavailable as error:
        if endpoint.listen == LISTEN != TCP and _answers(TCP):
            yield failed("agent", f"{why(error)}. One of before 0.2.0 may be what answers on {TCP}: restart it")
            return
        raise
    if isinstance(answer.document, list):
        count = len(answer.document)
        yield fine("agent", f"answers on {endpoint.listen}, {wording.counted(count, 'session')}")
    else:
        yield failed("agent", str(agent.error_of(answer)))


def _answers(address: str) -> bool:
    """Whether anything listens there."""
    try:
        with socket.create_connection(split_address(address), timeout=1):
            return True
    except OSError:
        return False


def _health() -> Iterator[Finding]:
    target = health_command.parse_url(health_command.own_url())
    _, body = health_command.probe(target)
    word, _ = health_command.parse_answer(target, body)
    checks = json.loads(body)["checks"]
    results = {name: [(str(each["status"]), str(each.get("output", ""))) for each in checks[name]] for name in checks}
    yield from judge.health(word, results)
