"""Every error farmlease raises, and the exit status each one ends a command with.

::

    FarmleaseError                 1   failed
    ├── InvalidInput               2   what was typed or written cannot be meant
    │   ├── InvalidName                a user, session, device or pool name
    │   ├── ConfigError                farmlease.toml or its environment
    │   └── PolicyError                pools.toml
    ├── AlreadyRunning             1   somebody else owns this folder
    ├── FileRefused                1   a vendor's file that must not be touched: a link, too large, not a file
    ├── JournalFailed              1   the node's journal cannot be written now: a full disk, say
    ├── StoreError                 1
    │   ├── StoreUnavailable       4   cannot be reached, or not now: try again
    │   ├── StoreRefused           1   answers, but does not let us: rights, memory, read-only
    │   └── PolicyChanged          1   somebody else applied a policy meanwhile
    ├── AgentUnavailable           4   no agent answers on this node
    └── Damaged                    5   bytes that cannot be trusted; kept, never overwritten
        ├── RecordRejected
        ├── KeyRingRejected
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
    "ConfigError",
    "Damaged",
    "FarmleaseError",
    "FileRefused",
    "InvalidInput",
    "InvalidName",
    "JournalFailed",
    "JournalRejected",
    "KeyRingRejected",
    "PolicyChanged",
    "PolicyError",
    "RecordRejected",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
]

#: Exit statuses of commands. A denial has one of its own, though it is an answer and no error.
EXIT_FAILED = 1
EXIT_DENIED = 3
EXIT_UNAVAILABLE = 4


class FarmleaseError(Exception):
    """One line that says what went wrong and what to do about it."""

    exit_status: int = EXIT_FAILED


class InvalidInput(FarmleaseError):
    """What was typed or written cannot be meant."""

    exit_status = 2


class InvalidName(InvalidInput):
    """A name of a user, session, device or pool that cannot be one."""


class ConfigError(InvalidInput):
    """The node's configuration: names the key, the file and the nearest valid key."""


class PolicyError(InvalidInput):
    """The farm's policy: names the file, the key and, where the parser gives it, the line."""


class AlreadyRunning(FarmleaseError):
    """Another process owns this folder."""


class FileRefused(FarmleaseError):
    """A vendor's file that must not be touched: a link, outside its place, over the limit, not a regular file."""


class JournalFailed(FarmleaseError):
    """The node's journal cannot be read or written now, by a full disk, say. What was written before is still there."""


class StoreError(FarmleaseError):
    """The store did not do what was asked; nothing was half done."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or cannot answer now; asking again is safe."""

    exit_status = EXIT_UNAVAILABLE


class StoreRefused(StoreError):
    """The store answers but does not let us: missing rights, out of memory, read-only. Retrying does not help."""


class PolicyChanged(StoreError):
    """Another administrator applied a policy since this one was read."""


class AgentUnavailable(FarmleaseError):
    """No agent answers on this node."""

    exit_status = EXIT_UNAVAILABLE


class Damaged(FarmleaseError):
    """Bytes that cannot be trusted. They are kept for inspection and never overwritten."""

    exit_status = 5


class RecordRejected(Damaged):
    """A sealed record that does not open. Deliberately tells the reader nothing about why."""


class KeyRingRejected(Damaged):
    """The key ring file is missing, readable by others, or not a key ring."""


class JournalRejected(Damaged):
    """The node's journal was written by a later version of farmlease; a damaged one is kept, and a new one begun."""
