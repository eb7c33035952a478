r"""Characters that do not stand for themselves: a terminal would obey them, or nobody sees them.

Two rules follow, and each stands here alone. What is printed shows such a character as its escape (``\x1b``,
``\u202e``), so that no name of a user, device or session moves a cursor, turns a line around or passes for another.
And no name of a user, host, pool or farm has one.
"""

import re

__all__ = ["UNSEEN", "as_it_was", "shown"]

#: What is not seen though Unicode counts some of it as printable: what it lets a renderer ignore (joiners, soft hyphen,
#: fillers of Hangul, variation selectors, tags), and the braille pattern without a dot, which looks like a blank.
UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_LAST = 0x10FFFF  #: of all characters


def shown(text: str) -> str:
    """Return one line in which every character is seen and none is obeyed; anything else is shown as its escape."""
    if text.isprintable() and not UNSEEN.search(text):
        return text
    return "".join(map(_shown, text))


def as_it_was(text: str) -> str:
    """Return what a text was before ``shown`` escaped it, as far as that can be told: a name may hold such letters."""
    return _ESCAPE.sub(lambda found: chr(int(found[1][1:], 16)) if int(found[1][1:], 16) <= _LAST else found[0], text)


def _shown(sign: str) -> str:
    seen = sign.isprintable() and not UNSEEN.match(sign)
    return sign if seen else sign.encode("unicode_escape").decode("ascii")
