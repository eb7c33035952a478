"""What is printed in place of characters that a terminal would obey, or that nobody sees."""

import sys
import unicodedata

import pytest

from farmlease.domain.characters import UNSEEN, as_it_was, shown
from farmlease.domain.denial_text import denial, no_place
from farmlease.domain.identity import AS_GIVEN, Identities, check_token
from farmlease.domain.model import Blocker, Reason
from farmlease.errors import ConfigError, InvalidName

#: One of each kind: joiners and blanks of no width, the soft hyphen, fillers of Hangul, selectors, tags, marks.
INVISIBLE = [
    "\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u180b", "\u180e", "\u200b", "\u200c", "\u200d",
    "\u200e", "\u200f", "\u202e", "\u2060", "\u2066", "\u2800", "\u3164", "\ufe0f", "\ufeff", "\uffa0", "\U000e0041",
    "\U000e0101", "\U0001d173",
]  # fmt: skip


def test_what_is_seen_stays() -> None:
    """Letters of any script, signs and wide ones; nothing that a name may hold is touched."""
    for text in (
        "corp\\\\john",
        "M\u00fcller",
        "\u6771\u4eac",
        "a b",
        "\u0905\u0930\u094d\u091c\u0941\u0928",
        "o\u0308",
        "",
    ):
        assert text == shown(text)


def test_what_is_not_is_escaped() -> None:
    """As Python writes it, so that it can be looked up."""
    assert r"a\x1b[31m\n\t\x9b\u202e\u3164\U000e0041\ud800b" == shown("a\x1b[31m\n\t\x9b\u202e\u3164\U000e0041\ud800b")


def test_what_was_escaped_can_be_typed() -> None:
    """An administrator copies a name out of a table; what only looks like an escape stays."""
    for text in ("a\u3164b", "corp\\\\eve\ufe0f", "a\x9b\U000e0041"):
        assert text == as_it_was(shown(text))
    assert "corp\\\\user" == as_it_was("corp\\\\user")
    assert r"a\Uffffffff" == as_it_was(r"a\Uffffffff")


def test_nothing_that_unicode_calls_control_or_format_is_shown() -> None:
    """Every character that there is: what is shown is printable, and no line is broken by it."""
    signs = map(chr, range(sys.maxunicode + 1))
    raw = [sign for sign in signs if unicodedata.category(sign)[0] == "C" or unicodedata.category(sign) in {"Zl", "Zp"}]
    assert len(raw) > 100_000
    text = shown("".join(raw))
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("sign", INVISIBLE)
def test_no_name_has_what_nobody_sees(sign: str) -> None:
    """Two names that look alike would be two persons, hosts, pools or domains."""
    assert UNSEEN.search(sign)
    for name in (f"jo{sign}hn", f"corp\\jo{sign}hn", f"john@co{sign}rp.example.com", f"{sign}john", f"john{sign}"):
        with pytest.raises(InvalidName):
            AS_GIVEN.user(name)
    for kind in ("node", "pool name", "farm"):
        with pytest.raises(InvalidName):
            check_token(kind, f"ctx{sign}01")
    for table in (
        {"domains": {f"CO{sign}RP": "corp.example.com"}}, {"domains": {"CORP": f"corp{sign}.example.com"}},
        {"default_domain": f"CORP{sign}"}, {"local_users": [f"ad{sign}min"]}, {"aliases": {f"a{sign}": "b"}},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            Identities(**table).user("CORP\\john")  # type: ignore[arg-type] # one key each


def test_a_denial_can_be_shown_to_its_user() -> None:
    """Hooks show the sentence as it is: ids in it are escaped, and the claims beside it have them to the letter."""
    blocking = (Blocker(node="ctx-01", until=None, device="nb\u202e\x1b"),)
    found = denial(Reason.DEVICE_LIMIT, "q", blocking=blocking, capacity=1)
    assert r"nb\u202e\x1b (in use now)" in found.detail
    assert "nb\u202e\x1b" == found.blocking[0].device
    sessions = (Blocker(node="ctx\x9b", until=None, session="7\u2066"),)
    assert r"7\u2066 on ctx\x9b" in denial(Reason.SESSION_LIMIT, "q", blocking=sessions, capacity=1).detail
    assert r"q\u200b" in denial(Reason.UNKNOWN_POOL, "q\u200b").detail
    assert r"a\x1b" in no_place("q", "a\x1b").detail
