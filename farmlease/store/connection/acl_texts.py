"""What a server says where an ACL user may not do something, read: which command, or which key, is lacking.

The words differ: Redis 6.2 and 7.0 write "this user has no permissions ..." and, for a command in a script, "The user
executing the script can't ..."; from Redis 7.2 on, and in Valkey, it is "User agent has no permissions ..." and "ACL
failure in script: ...". ACL DRYRUN names the key; an error names it in no version. Of a script Redis 6.2 and 7.0 name
no command either, but the line on which it is given.
"""

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Lack", "lack_in"]


@dataclass(frozen=True, slots=True)
class Lack:
    """What a user may not use. ``name``: of the command or key, in the server's spelling; empty if it did not say."""

    what: Literal["command", "key", "channel", "database"]
    name: str = ""


_FORMS: tuple[tuple[re.Pattern[str], Literal["command", "key", "channel", "database"]], ...] = (
    (re.compile(r"[Nn]o permissions to run the '([^'\n]{1,60})' command"), "command"),
    (re.compile(r"[Nn]o permissions to access the '(.{1,300})' key", re.DOTALL), "key"),
    (re.compile(r"[Nn]o permissions to access (?:a|one of the|any of the)() keys?\b"), "key"),
    (re.compile(r"[Nn]o permissions to access (?:the '.*'|a|one of the)() channels?\b", re.DOTALL), "channel"),
    (re.compile(r"[Nn]o permissions to access (?:the '.*'|a|any)?()\s*(?:database|db)\b", re.DOTALL), "database"),
    (re.compile(r"script can't run this() command"), "command"),
    (re.compile(r"script can't access at least one of the() keys"), "key"),
)


#: The line of a script at which it was stopped, and a command as scripts give it.
_LINE = re.compile(r"@user_script: ?(\d+)")
_GIVEN = re.compile(r"call\('([A-Z]+)'")


def lack_in(text: str, script: str = "") -> Lack | None:
    """Return what a server's error, or its answer to ACL DRYRUN, says is lacking; None if it says nothing of rights.

    ``script``: the text of the script that was running, for servers that say no more than the line.
    """
    for form, what in _FORMS:
        if found := form.search(text):
            if what != "command":
                return Lack(what, found[1])
            return Lack(what, found[1].replace("|", " ").upper() or _command_at(text, script))
    return None


def _command_at(text: str, script: str) -> str:
    """Return what a script gives on the line that an error names: one command as a rule; empty if it is not known."""
    line = _LINE.search(text)
    lines = script.splitlines()[int(line[1]) - 1 :] if line is not None else []
    return " or ".join(dict.fromkeys(_GIVEN.findall(lines[0]))) if lines else ""
