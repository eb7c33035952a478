"""Every error farmlease raises, and the exit status of a command that ends with it.

::

    FarmleaseError                 1   failed
    ├── InvalidInput               2   invalid input from the command line or a file
    │   ├── InvalidName                a user, session, device or pool name
    │   ├── ConfigError                farmlease.toml or its environment
    │   └── PolicyError                pools.toml
    ├── CannotHold                 1   a session that has no seat to hold, or whose pool allows no holds
    ├── AlreadyRunning             1   another process owns this folder
    ├── FileRefused                1   a vendor's file that must not be touched: a link, too large, not a file
    ├── JournalFailed              1   the node's journal cannot be written now, for example on a full disk
    ├── StoreError                 1
    │   ├── StoreUnavailable       4   cannot be reached, or cannot answer now: retry
    │   ├── StoreRefused           1   answers with a refusal: rights, memory, read-only
    │   │   ├── RightsLacking      1   its user may not give a command, or not on this key
    │   │   └── KeyDamaged         5   a key of ours holds what something else wrote
    │   └── PolicyChanged          1   another administrator applied a policy meanwhile
    ├── AgentUnavailable           4   no agent answers on this node
    └── Damaged                    5   bytes that cannot be trusted; kept, never overwritten
        ├── RecordRejected
        ├── KeyRingRejected
        ├── ExportRejected
        └── JournalRejected

A denial ("no seat free") is an answer, not an error: see ``domain.model.Denial``.
This module must import nothing, so that every other one can import it.
"""

__all__ = [
    "EXIT_DENIED",
    "EXIT_FAILED",
    "EXIT_UNAVAILABLE",
    "AgentUnavailable",
    "AlreadyRunning",
    "CannotHold",
    "ConfigError",
    "Damaged",
    "ExportRejected",
    "FarmleaseError",
    "FileRefused",
    "InvalidInput",
    "InvalidName",
    "JournalFailed",
    "JournalRejected",
    "KeyDamaged",
    "KeyRingRejected",
    "PolicyChanged",
    "PolicyError",
    "RecordRejected",
    "RightsLacking",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
]

#: Exit statuses of commands. A denial has one of its own, though it is an answer and no error.
EXIT_FAILED = 1
EXIT_DENIED = 3
EXIT_UNAVAILABLE = 4


class FarmleaseError(Exception):
    """An error with a message of one line: what went wrong and what to do."""

    exit_status: int = EXIT_FAILED


class InvalidInput(FarmleaseError):
    """Input from the command line or a file that is not valid."""

    exit_status = 2


class InvalidName(InvalidInput):
    """A name of a user, session, device or pool that is not valid."""


class ConfigError(InvalidInput):
    """An error in the node's configuration. Names the key, the file and the nearest valid key."""


class PolicyError(InvalidInput):
    """An error in the farm's policy. Names the file, the key and, if the parser gives it, the line."""


class CannotHold(FarmleaseError):
    """A session has no seat to hold now, or the policy allows no holds in its pool."""


class AlreadyRunning(FarmleaseError):
    """Another process owns this folder."""


class FileRefused(FarmleaseError):
    """A vendor's file that must not be touched: a link, outside its place, over the limit, not a regular file."""


class JournalFailed(FarmleaseError):
    """The node's journal cannot be read or written now, for example on a full disk. Earlier entries are kept."""


class StoreError(FarmleaseError):
    """The store did not do what was requested; nothing was done in part."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or cannot answer now; a retry is safe."""

    exit_status = EXIT_UNAVAILABLE


class StoreRefused(StoreError):
    """The store refuses: missing rights, out of memory, read-only. Retrying does not help."""


class RightsLacking(StoreRefused):
    """The store's user may not do this. Names the command or the key."""


class KeyDamaged(StoreRefused):
    """A key of the store is of another type than farmlease gave it. Names the key and says what to do."""

    exit_status = 5


class PolicyChanged(StoreError):
    """Another administrator applied a policy since the caller read it."""


class AgentUnavailable(FarmleaseError):
    """No agent answers on this node."""

    exit_status = EXIT_UNAVAILABLE


class Damaged(FarmleaseError):
    """Bytes that cannot be trusted. They are kept for inspection and never overwritten."""

    exit_status = 5


class RecordRejected(Damaged):
    """A sealed record that does not open. The message deliberately gives no reason."""


class KeyRingRejected(Damaged):
    """The key ring file is missing, readable by others, or not a key ring."""


class ExportRejected(Damaged):
    """An export of another host is damaged, of a later format, or was sealed with another passphrase."""


class JournalRejected(Damaged):
    """The node's journal was written by a later version of farmlease; a damaged one is kept, and a new one begun."""
