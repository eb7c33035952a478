"""The doctor's checks of a node: its keys, files, times and agent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from farmlease.domain.diagnosis.finding import Finding, failed, fine, warned
from farmlease.domain.policy import HostTable, Policy, PolicyInForce, check_timing
from farmlease.errors import PolicyError

__all__ = [
    "FileFacts",
    "JournalFacts",
    "ListenFacts",
    "RingFacts",
    "activity",
    "disk",
    "file",
    "health",
    "identity",
    "journal",
    "kept",
    "listen",
    "policy",
    "python",
    "ring",
    "timing",
]

OLDEST_PYTHON = (3, 11)
_MB = 1 << 20
#: Free bytes below which the journal may soon not be written, and below which an administrator should make room.
_FULL, _FILLING = 50 * _MB, 500 * _MB


@dataclass(frozen=True, slots=True, kw_only=True)
class RingFacts:
    """The key ring's keys, by id."""

    primary: str
    pending: str | None
    old: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """The state of a private file or folder. ``mode``: None if it is missing, or where modes mean nothing."""

    what: str
    path: str
    exists: bool
    is_kind: bool  #: it is a folder or a regular file, as expected
    mode: int | None
    absent: str | None = None  #: what to do if it is not there; None: it need not be


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenFacts:
    """How the programs of this host reach its agent. ``usual``: the Unix socket that it would listen on by default.

    ``shut``: each file or folder on the way to a Unix socket that keeps users out, and the mode that lets them through.
    ``old_token``: a token of an agent that listened on TCP by default, as those before 0.2.0 did; None if nothing tells
    of one.
    """

    address: str
    over_tcp: bool
    usual: str | None  #: None: this system has no Unix sockets for it
    shut: tuple[tuple[str, str], ...] = ()
    old_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFacts:
    """The journal's file. ``was_there``: a mark beside it says that an agent had one here."""

    path: str
    sound: bool | None  #: whether it is whole; None if nothing was written to it yet
    replaced: bool = False  #: something that is no file is in its place
    was_there: bool = False


def python(version: tuple[int, ...]) -> Finding:
    """Check the interpreter."""
    text = ".".join(map(str, version[:3]))
    if version < OLDEST_PYTHON:
        return failed("python", f"{text}; farmlease needs 3.11 or newer")
    return fine("python", text)


def ring(facts: RingFacts) -> Finding:
    """Check the key ring."""
    if facts.pending is not None:
        advice = "copy the ring to every node, then `farmlease key rotate --activate`"
        return warned("key ring", f"key {facts.pending} waits to be activated; {advice}")
    if facts.old:
        advice = "`farmlease key reseal`, then `farmlease key retire`"
        return warned("key ring", f"sealed with {facts.primary}; old keys left: {', '.join(facts.old)}; {advice}")
    return fine("key ring", f"sealed with {facts.primary}")


def file(check: str, facts: FileFacts) -> Finding:
    """Check a file or folder that must be private."""
    if not facts.exists:
        if facts.absent is not None:
            return failed(check, f"there is no {facts.what} {facts.path}; {facts.absent}")
        return fine(check, f"{facts.path} is not there yet; the agent makes it")
    if not facts.is_kind:
        return failed(check, f"{facts.path} is no {facts.what}; move it away, or correct the configuration")
    if facts.mode is not None and facts.mode & 0o077:
        right = "go-rwx"
        return failed(check, f"{facts.path} is open to others ({facts.mode:04o}); `chmod {right} {facts.path}`")
    return fine(check, f"{facts.path}" + ("" if facts.mode is None else f" ({facts.mode:04o})"))


def kept(blocked: str, damaged: Sequence[str]) -> Iterator[Finding]:
    """Check the folders of what is kept: what stands in the place of one, and which kept versions are none."""
    if blocked:
        yield failed("kept", f"{blocked} is no folder, so nothing can be kept for inspection; move it away")
    if damaged:
        files = f"{damaged[0]}" + (f" and {len(damaged) - 1} more" if len(damaged) > 1 else "")
        yield warned(
            "kept", f"{files}: a kept version that cannot be read, and that cannot be brought back; move it away"
        )


def listen(facts: ListenFacts) -> Iterator[Finding]:
    """Check the way to the agent, and what is left of an earlier one."""
    if facts.old_token is not None:
        advice = (
            f"let hooks call `farmlease session start`, or ask the socket without a token; delete {facts.old_token}; "
            'or set [agent] listen = "127.0.0.1:8731" to stay with TCP'
        )
        yield warned("listen", f"the agent listens on {facts.address} since 0.2.0, and no more on TCP: {advice}")
    for path, mode in facts.shut:
        yield warned("listen", f"users other than root do not get through {path}; `chmod {mode} {path}`")
    if facts.over_tcp and facts.usual is not None:
        text = f"{facts.address}, as configured: whoever has the token acts for anyone"
        yield fine("listen", f"{text}. On {facts.usual}, the default, the kernel says who calls")
    elif facts.old_token is None and not facts.shut:
        yield fine("listen", facts.address)


def disk(path: str, free: int, total: int) -> Finding:
    """Check the room on the disk of ``path``, in bytes."""
    room = f"{free // _MB} MB of {total // _MB} MB free on the disk of {path}"
    if free < _FULL:
        return failed("disk", f"{room}; make room, or no session starts")
    if free < _FILLING:
        return warned("disk", f"{room}; make room")
    return fine("disk", room)


def journal(facts: JournalFacts) -> Finding:
    """Check the journal."""
    path, kept = facts.path, "restart the agent: it moves this one to kept/ for inspection and begins a new one"
    if facts.replaced:
        text = f"a folder, a pipe or a link is in the place of {path}; find out who put it there, then {kept}"
        return failed("journal", text)
    if facts.sound is None and facts.was_there:
        return failed("journal", f"{path} is missing or empty, and was there; find out who removed it, and put it back")
    if facts.sound is None:
        return fine("journal", f"{path} is not there yet; the agent makes it")
    if not facts.sound:
        return failed("journal", f"{path} is damaged; look at the disk of state_dir, then {kept}")
    return fine("journal", f"{path} is whole")


def timing(heartbeat_ms: int, timeout_ms: int, window_ms: int, in_force: Policy | None) -> Iterator[Finding]:
    """Check the node's times against each other, and against the farm's policy."""
    found: list[Finding] = []
    for pool in in_force.pools if in_force else ():
        try:
            check_timing(heartbeat_ms, pool)
        except PolicyError as error:
            found.append(failed("times", str(error)))
    if 2 * timeout_ms >= heartbeat_ms:
        found.append(
            warned("times", "one slow call can delay a heartbeat; set [store] timeout below half of heartbeat")
        )
    if not window_ms:
        text = "no recovery window: a store that lost its data admits new users at once; set [recovery] window"
        found.append(warned("times", text))
    yield from found or [fine("times", f"heartbeat {heartbeat_ms / 1000:g} s, store timeout {timeout_ms / 1000:g} s")]


def activity(in_force: Policy | None, *, logind: bool) -> Iterator[Finding]:
    """Check that something reports activity where a pool ends sessions without it. ``logind``: whether it answers."""
    pools = ", ".join(pool.name for pool in (in_force.pools if in_force else ()) if pool.idle_timeout_ms)
    if pools and logind:
        yield fine("activity", f"logind reports that of sessions with a process, for idle_timeout of {pools}")
    elif pools:
        text = f"no logind answers on this host, so sessions in {pools} end after idle_timeout, in use or not"
        yield warned("activity", f"{text}; call `farmlease session touch` from what knows of activity")


def policy(version: int, in_force: Policy | None) -> Finding:
    """Check the policy in force."""
    if in_force is None:
        return failed("policy", "no policy was applied to this farm; `farmlease pool apply pools.toml`")
    pools = ", ".join(pool.name for pool in in_force.pools)
    return fine("policy", f"version {version}, opened; pools: {pools}")


def identity(own: HostTable, in_force: PolicyInForce, strangers: Mapping[str, int]) -> Iterator[Finding]:
    """Check who is who. ``strangers``: domains of leases that the table does not list, and how many leases each has."""
    if own is not HostTable.NONE:
        yield warned("identity", own.advice)
    if strangers:
        domains = ", ".join(f"{domain} ({count})" for domain, count in sorted(strangers.items()))
        yield warned(
            "identity",
            f"leases of users in domains that [identity] does not list: {domains}; one person may have a lease in "
            "each: add them to domains, or name the persons in aliases, and run `farmlease pool apply`",
        )
    elif not in_force.identity.shorts:
        yield fine("identity", "no [identity] domains: each spelling with another domain is another person")
    else:
        yield fine("identity", f"domains: {', '.join(sorted(set(in_force.identity.shorts.values())))}")


def health(status: str, checks: Mapping[str, Iterable[tuple[str, str]]]) -> Iterator[Finding]:
    """Check the health that the agent reports: by check, status and text."""
    bad = [f"{name}: {text}" for name, entries in checks.items() for state, text in entries if state != "pass"]
    make = {"pass": fine, "warn": warned}.get(status, failed)
    for text in bad or [status]:
        yield make("health", text)
