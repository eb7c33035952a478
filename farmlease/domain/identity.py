r"""Who a user is, whatever the spelling: ``CORP\alice``, ``alice@corp.example.com`` and a mapped SID are one person.

Law L2 (one user, one lease) starts here: the store sees only what is derived from the canonical name. This module must
never echo a name in an error text, because error texts go to logs and to other people's screens.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from farmlease.errors import ConfigError, InvalidName

__all__ = [
    "LONGEST_ID",
    "LONGEST_NAME",
    "LONGEST_TOKEN",
    "Identities",
    "User",
    "check_id",
    "check_token",
    "device_name",
    "fold",
]

LONGEST_NAME = 256  #: characters of a user name, as given and as canonical
LONGEST_ID = 256  #: characters of the id of a session or a device, as given
LONGEST_TOKEN = 128  #: characters of a node, pool or farm name

_SEPARATORS = ("\\", "@")
#: Characters that no component of a name may have: it would be a path, a pattern or a stream on some host.
_FORBIDDEN = re.compile(r'[/\\:*?"<>|@\x00]')
#: Control characters, and halves of a pair that are no text.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class User:
    r"""One person. Only ``Identities`` makes canonical names: ``corp\alice``, ``alice@other.example`` or ``alice``."""

    canonical: str

    @property
    def name(self) -> str:
        """The canonical name without its domain, as it stands in file templates."""
        _, backslash, name = self.canonical.partition("\\")
        return name if backslash else self.canonical.partition("@")[0]


class Identities:
    r"""What a farm knows of its users' names: which domains are one, and which names are another person's.

    ``domains`` maps a short domain name to its DNS name (``CORP`` to ``corp.example.com``); ``aliases`` maps any
    spelling of a user, a SID too, to another user. Raises ConfigError if either is ambiguous.
    """

    def __init__(self, domains: Mapping[str, str] = _NOTHING, aliases: Mapping[str, str] = _NOTHING) -> None:
        self._short = _short_names(domains)
        self._aliases = self._targets(aliases)

    def user(self, text: str) -> User:
        """Return the person of this spelling; raises InvalidName. A canonical name gives the same user again."""
        canonical = self._canonical(text)
        return User(self._aliases.get(canonical, canonical))

    def _canonical(self, text: str) -> str:
        """Return the canonical spelling, aliases apart; raises InvalidName."""
        _check_text(text)
        folded = fold(text)
        _check_text(folded)
        if not folded.isprintable():  # line separators, and spaces that no folding makes plain ones
            raise InvalidName("a user name has no white space but the plain space; leave it out")
        if any(folded.count(separator) != text.count(separator) for separator in _SEPARATORS):
            # A full-width @ or \ would move the border between name and domain.
            raise InvalidName("a user name has a look-alike of \\ or @; write the plain character")
        if sum(folded.count(separator) for separator in _SEPARATORS) > 1:
            raise InvalidName(r"a user name has one \ or one @ at most, as in CORP\alice or alice@corp.example.com")
        if "\\" in folded:
            domain, _, name = folded.partition("\\")
            _check_components(domain, name)
            canonical = f"{self._short.get(domain, domain)}\\{name}"
        elif "@" in folded:
            name, _, domain = folded.partition("@")
            _check_components(domain, name)
            canonical = f"{self._short[domain]}\\{name}" if domain in self._short else folded
        else:
            _check_components(folded)
            canonical = folded
        _check_text(canonical)
        return canonical

    def _targets(self, aliases: Mapping[str, str]) -> dict[str, str]:
        """Return canonical source to canonical target; raises ConfigError naming the administrator's own entry."""
        targets: dict[str, str] = {}
        for source, target in aliases.items():
            try:
                one, other = self._canonical(source), self._canonical(target)
            except InvalidName as error:
                raise ConfigError(f"the alias {source!r} = {target!r}: {error}") from None
            if targets.setdefault(one, other) != other:
                raise ConfigError(f"the alias {source!r} is given two users; keep one")
        for source, target in aliases.items():
            if self._canonical(target) in targets:
                raise ConfigError(f"the alias {source!r} leads to {target!r}, itself an alias; name the user it means")
        return targets


def fold(text: str) -> str:
    """Return the form in which spellings are compared: blind to case and to the width and make of characters."""
    # Folding may undo normalisation and the other way round; Unicode promises that the two settle after a few turns.
    while (folded := unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())) != text:
        text = folded
    return text


def device_name(text: str, farm: str) -> str:
    """Return the one name of a device, whatever the spelling: folded, but for the farm, which is called as it is.

    Machine ids differ in case and width between a vendor's list, a host and whoever types them.
    """
    if text == farm:
        return farm
    folded = fold(text)
    return farm if folded == fold(farm) else folded


def check_id(kind: str, text: str) -> str:
    """Return ``text`` if it can be the id of a ``kind`` (session, device); raises InvalidName.

    Hosts and vendors choose these ids: ``RDP-Tcp#12``, ``pts/3``, a machine id with blanks. Any character will do that
    is no control character.
    """
    if not text:
        raise InvalidName(f"the {kind} is empty; give one")
    if len(text) > LONGEST_ID:
        raise InvalidName(f"the {kind} is longer than {LONGEST_ID} characters; give a shorter one")
    if _NO_TEXT.search(text):
        raise InvalidName(f"the {kind} holds a control character, or is no text; leave it out")
    return text


def check_token(kind: str, text: str, limit: int = LONGEST_TOKEN, forbidden: str = "/#") -> str:
    """Return ``text`` if it can name a ``kind`` (node, pool, farm); raises InvalidName.

    The store joins such names with ``/`` and ``#``; a name that holds one could pass for another.
    """
    if not text:
        raise InvalidName(f"the {kind} is empty; give one")
    if len(text) > limit:
        raise InvalidName(f"the {kind} is longer than {limit} characters; give a shorter one")
    if text != text.strip():
        raise InvalidName(f"the {kind} begins or ends with white space; leave it out")
    if text.startswith("-"):
        raise InvalidName(f"the {kind} begins with a hyphen and would pass for an option; leave it out")
    if not text.isprintable():
        raise InvalidName(f"the {kind} holds a character that cannot be printed; leave it out")
    if any(character in forbidden for character in text):
        raise InvalidName(f"the {kind} holds one of {' '.join(forbidden)}; leave it out")
    return text


def _short_names(domains: Mapping[str, str]) -> dict[str, str]:
    """Return every spelling of a domain with its short name; raises ConfigError if a spelling means two domains."""
    shorts: dict[str, str] = {}
    for short, dns in domains.items():
        for spelling in (short, dns):
            try:
                _check_component(fold(spelling))
            except InvalidName as error:
                raise ConfigError(f"the domain {short!r} = {dns!r}: {error}") from None
            if shorts.setdefault(fold(spelling), fold(short)) != fold(short):
                raise ConfigError(f"the domain {spelling!r} would be two domains; keep one")
    return shorts


def _check_text(text: str) -> None:
    """Refuse what no spelling of a name may be, before or after normalisation; raises InvalidName."""
    if not text:
        raise InvalidName("the user name is empty; give one")
    if len(text) > LONGEST_NAME:
        raise InvalidName(f"a user name has at most {LONGEST_NAME} characters")
    if any(unicodedata.category(character).startswith("C") for character in text):
        raise InvalidName("a user name has no control, formatting or unassigned characters; leave them out")


def _check_components(*components: str) -> None:
    for component in components:
        _check_component(component)


def _check_component(component: str) -> None:
    """Refuse what could be empty, a path or a pattern on some host; raises InvalidName."""
    for reason in _faults(component):
        raise InvalidName(f"the name or the domain of a user {reason}")


def _faults(component: str) -> Iterator[str]:
    if not component:
        yield r"is empty; write it as CORP\alice, alice@corp.example.com or alice"
    if component != component.strip():
        yield "begins or ends with white space; leave it out"
    if component.startswith("-"):
        yield "begins with a hyphen and would pass for an option; leave it out"
    # This includes . and ..; and Windows drops a dot at the end, which would name another user's folder.
    if component.endswith("."):
        yield "ends with a dot; leave it out"
    if _FORBIDDEN.search(component):
        yield 'has one of / \\ : * ? " < > | @; leave it out'
