"""The driver's errors, translated into ours in this one place.

``StoreUnavailable`` is worth another attempt, ``StoreRefused`` is not; the text says what an administrator can do. No
text repeats a password, or an argument of a script.

Used as ``except DRIVER_ERRORS as error: raise store_error(...) from error``, so that a call without an error does not
enter this module.
"""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from copy import copy

from redis import exceptions as answers
from redis.asyncio.sentinel import MasterNotFoundError

from farmlease.errors import KeyDamaged, RightsLacking, StoreError, StoreRefused, StoreUnavailable
from farmlease.store.connection.acl_texts import Lack, lack_in

__all__ = [
    "DRIVER_ERRORS",
    "NotMaster",
    "NotUnderstood",
    "SentinelsRefuse",
    "leads_elsewhere",
    "like",
    "says_why",
    "store_error",
]

#: What the driver, the network and a timeout raise.
DRIVER_ERRORS = (answers.RedisError, OSError)


class NotMaster(answers.ConnectionError):
    """A network connection leads to a replica. An error of the driver's kind, so that the driver closes it."""


class SentinelsRefuse(answers.ConnectionError):
    """The Sentinels that answer do not say who the master is, as they do not take our name and password."""


class NotUnderstood(answers.ConnectionError):
    """A server does not say of itself what must be known of it; the text says what. Of the driver's kind likewise."""


_RIGHTS = "grant it the rights of the sample ACL, or log in to the store as a user who has them"
#: The first word of a server's error → our error and what to do. Also found inside the text: a server before 7.0 wraps
#: the error of a command that a script gave into its own.
_WORDS: dict[str, tuple[type[StoreError], str]] = {
    "NOAUTH": (StoreRefused, "asks for a password: set username and password_file in [store]"),
    "WRONGPASS": (
        StoreRefused,
        "does not take this user name and password: check username and password_file in [store]",
    ),
    "NOPERM": (RightsLacking, f"denies this user {{lack}}: {_RIGHTS}"),
    "The user executing the script can't": (RightsLacking, f"denies this user {{lack}} that a script needs: {_RIGHTS}"),
    "ACL failure in script": (RightsLacking, f"denies this user {{lack}} that a script needs: {_RIGHTS}"),
    "OOM": (StoreRefused, "is out of memory: raise its maxmemory (the policy must be noeviction)"),
    "WRONGTYPE": (KeyDamaged, "has a key of farmlease's that is of another type: `farmlease doctor` names it"),
    "READONLY": (
        StoreUnavailable,
        "is a read-only replica by now: name the master in [store] url, or try again when it is one",
    ),
    "MISCONF": (StoreRefused, "cannot write to its disk and takes no changes: see its log"),
    "DENIED": (
        StoreRefused,
        "is in protected mode and takes no network connections: give it a password or a bind address",
    ),
    "MOVED": (StoreRefused, "is part of a Redis Cluster: write [store] url as redis+cluster://host:port"),
    "CROSSSLOT": (StoreRefused, "is part of a Redis Cluster: write [store] url as redis+cluster://host:port"),
    "LOADING": (StoreUnavailable, "is still loading its data: try again in a moment"),
    "BUSY": (StoreUnavailable, "is busy with a long script of another client: try again, or see SCRIPT KILL"),
    "TRYAGAIN": (StoreUnavailable, "is moving data: try again in a moment"),
    "CLUSTERDOWN": (StoreUnavailable, "is a Redis Cluster that is down: see CLUSTER INFO"),
    "MASTERDOWN": (StoreUnavailable, "has lost its master: try again when there is a new one"),
    "NOREPLICAS": (StoreUnavailable, "has too few replicas to take a write: see INFO replication"),
    "UNBLOCKED": (StoreUnavailable, "is a master no more: try again when there is a new one"),
    "WAIT cannot be used with replica": (StoreUnavailable, "is a master no more: try again when there is a new one"),
}
#: The same for words of ours, where the error is the driver's or ours and no server's.
_OURS: dict[str, tuple[type[StoreError], str]] = {
    "REPLICA": (StoreUnavailable, "is a replica: name the master in [store] url, or try again when it is one"),
    "NOMASTER": (
        StoreUnavailable,
        "has no Sentinel that names a living master: see SENTINEL MASTERS, and check the name of it in [store] url",
    ),
    "SENTINELS": (
        StoreRefused,
        (
            "has Sentinels that want a name and password, or others: set sentinel_username and sentinel_password_file "
            "in [store]"
        ),
    ),
}
#: What the same words mean where another server takes over by itself.
_WATCHED: dict[str, tuple[type[StoreError], str]] = {
    "READONLY": (StoreUnavailable, "has another master by now: try again in a moment"),
    "REPLICA": (StoreUnavailable, "has another master by now: try again in a moment"),
    "MOVED": (StoreUnavailable, "is moving data: try again in a moment"),
}
#: Words by which a server says that it cannot serve what the connection was made for: behind a proxy, a virtual address
#: or a name there may be another one by now, which only a new network connection finds.
_ELSEWHERE = frozenset({
    "READONLY", "MASTERDOWN", "LOADING", "NOREPLICAS", "MISCONF", "CLUSTERDOWN", "UNBLOCKED", "NOAUTH",
    "WAIT cannot be used with replica", "REPLICA",
})  # fmt: skip
_WORD = re.compile(rf"(?:^|: -?)({'|'.join(_WORDS)})\b")
#: Driver classes for words that redis-py cuts off the text.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (NotMaster, "REPLICA"),
    (SentinelsRefuse, "SENTINELS"),
    (MasterNotFoundError, "NOMASTER"),
    (answers.NoPermissionError, "NOPERM"),
    (answers.AuthorizationError, "NOPERM"),
    (answers.OutOfMemoryError, "OOM"),
    (answers.ReadOnlyError, "READONLY"),
    (answers.BusyLoadingError, "LOADING"),
    (answers.TryAgainError, "TRYAGAIN"),
    (answers.MasterDownError, "MASTERDOWN"),
    (answers.ClusterDownError, "CLUSTERDOWN"),
    (answers.ClusterCrossSlotError, "CROSSSLOT"),
    (answers.AskError, "MOVED"),
)
_LOST = "the connection to the store {store} was lost: try again"
#: An error of the network → our error and what to do; the first that fits.
_NETWORK: tuple[tuple[tuple[type[BaseException], ...], type[StoreError], str], ...] = (
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), StoreUnavailable, _LOST),
    (
        (ssl.SSLCertVerificationError,),
        StoreRefused,
        (
            "the certificate of the store {store} is not trusted ({reason}): "
            "check ca_file and the host name in [store] url"
        ),
    ),
    (
        (ssl.SSLError,),
        StoreRefused,
        "no TLS with the store {store} ({reason}): check that it serves rediss://, and cert_file and key_file",
    ),
    ((PermissionError,), StoreRefused, "the socket of the store {store} may not be opened by this user"),
    (
        (ConnectionRefusedError, FileNotFoundError),
        StoreUnavailable,
        "nothing listens at {store}: is the store running?",
    ),
    (
        (TimeoutError, answers.TimeoutError),
        StoreUnavailable,
        "the store {store} did not answer in time: check the network and its load",
    ),
    ((socket.gaierror,), StoreUnavailable, "the host name of the store {store} is not known here"),
)
#: No network connection can be made, now or by another attempt.
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


def says_why(answer: Exception) -> bool:
    """Return whether a server's error says what keeps it from answering, rather than that it knows no such command."""
    return _word_of(answer) != ""


def leads_elsewhere(answer: Exception) -> bool:
    """Return whether a server's error belongs to the network connection, which is not to be used any more then."""
    return _word_of(answer) in _ELSEWHERE


def like(error: Exception) -> Exception:
    """Return an error like another one, for one more caller: an exception that is raised twice mixes up its causes."""
    another = copy(error)
    another.__cause__ = error
    return another


def store_error(
    store: str, error: BaseException, outside: BaseException | None, keys: Sequence[str] = (), script: str = ""
) -> StoreError:
    """Return StoreUnavailable (another attempt may help) or StoreRefused (it does not) for one of ``DRIVER_ERRORS``.

    ``outside``: the exception that was being handled before the driver was called, and so is no cause of the error.
    ``keys``: what the call was about; a server does not say which of them it denies. ``script``: the text of the one
    that ran; before 7.2 a server does not say which of its commands it denies, but on which line that stands.
    """
    return _translate(store, list(_causes(error, outside)), keys, script)


def _translate(store: str, chain: list[BaseException], keys: Sequence[str], script: str) -> StoreError:
    for one in chain:
        if word := _word_of(one):
            known = _WORDS | _OURS | (_WATCHED if store.startswith("redis+") else {})
            kind, advice = known[word]
            return kind(f"the store {store} {advice.replace('{lack}', _lacking(str(one), keys, script))}")
    for one in chain:
        if isinstance(one, NotUnderstood):
            return StoreRefused(f"the store {store} {one}")
        if isinstance(one, answers.ResponseError):
            # A server's error may quote arguments; they are cut off.
            text = re.split(r", with args|\n", str(one), maxsplit=1)[0][:200]
            return StoreRefused(f"the store {store} refused: {text}")
    return _translate_network(store, chain)


def _word_of(error: BaseException) -> str:
    """Return the word by which an error is known here; empty if it is none of them."""
    if isinstance(error, answers.AuthenticationError):
        return "NOAUTH" if error.status_code == "NOAUTH" else "WRONGPASS"
    if word := next((word for kind, word in _CLASSES if isinstance(error, kind)), ""):
        return word
    found = _WORD.search(str(error)) if isinstance(error, answers.ResponseError) else None
    return found[1] if found else ""


def _lacking(text: str, keys: Sequence[str], script: str) -> str:
    """Name the command or the key that an ACL denies, as far as the server says it."""
    match lack_in(text, script):
        case Lack("command", name) if name:
            return f"the command {name}"
        case Lack("key") if len(keys) == 1:
            return f"the key {keys[0]}"
        case Lack("key"):
            return f"a key of this call ({', '.join([*keys[:2], '...'])})" if keys else "a key"
        case Lack(what, name):
            return f"the {what} {name}" if name else f"a {what}"
        case _:
            return "a command or a key"


def _translate_network(store: str, chain: list[BaseException]) -> StoreError:
    for one in chain:
        for kinds, refusal, advice in _NETWORK:
            if isinstance(one, kinds):
                reason = getattr(one, "verify_message", None) or getattr(one, "reason", None) or "no reason given"
                return refusal(advice.format(store=store, reason=str(reason).replace("_", " ").lower()))
        if isinstance(one, OSError) and one.errno in _NO_WAY:
            return StoreUnavailable(
                f"there is no way to the store {store} ({os.strerror(one.errno).lower()}): check the network, and the "
                "address in [store] url"
            )
    hint = " (one that wants a client certificate hangs up too)" if store.startswith("rediss:") else ""
    return StoreUnavailable(f"{_LOST.format(store=store)}{hint}")


def _causes(error: BaseException, outside: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what it came from: the driver keeps the reason only there."""
    found: BaseException | None = error
    seen = set[int]()
    while found is not None and found is not outside and id(found) not in seen:
        seen.add(id(found))
        if not isinstance(found, answers.NoScriptError):  # after it the script's text was sent
            yield found
        found = found.__cause__ or found.__context__
