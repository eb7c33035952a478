r"""Who a user is, whatever the spelling: ``CORP\alice``, ``alice@corp.example.com`` and a mapped SID are one person.

Law L2 (one user, one lease) starts here: the store sees only what is derived from the canonical name. Which spellings
are one person is the farm's to say, by ``[identity]`` of its policy, and no host's. This module must never echo a name
in an error text, because error texts go to logs and to other people's screens; an administrator's own entries apart.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from typing_extensions import override

from farmlease.domain.characters import UNSEEN
from farmlease.errors import ConfigError, InvalidName

__all__ = [
    "AS_GIVEN",
    "LONGEST_ID",
    "LONGEST_NAME",
    "LONGEST_TOKEN",
    "Identities",
    "User",
    "bare_principal",
    "check_id",
    "check_token",
    "device_name",
    "domain_and_name",
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
#: What Windows writes before the user principal name of a person whom it knows from outside.
_FROM_OUTSIDE = frozenset({"azuread", "microsoftaccount"})
_SID = re.compile(r"s-1(-[0-9]+)+")


@dataclass(frozen=True, slots=True)
class User:
    r"""One person. Only ``Identities`` makes canonical names: ``corp\alice``, ``alice@other.example`` or ``alice``."""

    canonical: str

    @property
    def name(self) -> str:
        """The canonical name without its domain, as it stands in file templates."""
        _, name = domain_and_name(self.canonical)
        return name

    @property
    def domain(self) -> str:
        """The domain of the canonical name; empty for a name without one."""
        domain, _ = domain_and_name(self.canonical)
        return domain


@dataclass(frozen=True)
class Identities:
    r"""What a farm knows of its users' names: which domains are one, and which names are another person's.

    ``domains`` maps a short domain name to its other spellings (``CORP`` to ``corp.example.com``, or to several);
    ``aliases`` maps any spelling of a user, a SID too, to another user. A name without a domain is of
    ``default_domain``, unless it is one of ``local_users`` or a SID. ``refuse_unknown``: a user of a domain that is not
    listed may start no session. Raises ConfigError if any of it is ambiguous. Without arguments names are as given.
    """

    domains: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    default_domain: str | None = None
    local_users: Sequence[str] = ()
    refuse_unknown: bool = False

    def __post_init__(self) -> None:
        """Refuse a table that is ambiguous."""
        if not self.shorts and self.refuse_unknown:
            raise ConfigError("unknown_domains refuses every domain; list the farm's own in domains")
        for entry, canonical in zip(self.local_users, self._local_names, strict=True):
            if domain_and_name(canonical)[0] in self.shorts:
                raise ConfigError(f"local_users, {entry!r}: is a user of one of the domains; write the name alone")
        self._check_aliases()

    @override
    def __hash__(self) -> int:
        """Hash what two equal tables have in common."""
        return hash((self.default_domain, self.refuse_unknown, frozenset(self.domains), frozenset(self.aliases)))

    def user(self, text: str) -> User:
        """Return the person of this spelling; raises InvalidName. A canonical name gives the same user again."""
        return self._known_users(text)

    @cached_property
    def _known_users(self) -> Callable[[str], User]:
        """A start reads its user's name at each of its steps."""

        def read(text: str) -> User:
            canonical = self._canonical(text)
            return User(self._targets.get(canonical, canonical))

        return lru_cache(maxsize=1024)(read)

    def group(self, text: str) -> str:
        r"""Return the canonical name of a group; its domain is read as a user's, and whatever else it has is kept.

        Groups are named by directories, so nothing is refused: ``CORP\Students``, ``students@corp.example.com`` and,
        with a default domain, ``students`` are one.
        """
        folded = fold(text)
        domain, name = domain_and_name(folded)
        if domain in self.shorts:
            return f"{self.shorts[domain]}\\{name}"
        return self.in_default_domain(folded) if not domain else folded

    def groups(self, texts: tuple[str, ...]) -> frozenset[str]:
        """Return the canonical names of a session's groups."""
        return self._known_groups(texts)

    @cached_property
    def _known_groups(self) -> Callable[[tuple[str, ...]], frozenset[str]]:
        """Each rule asks for the same groups, and a person may be in thousands."""
        return lru_cache(maxsize=32)(lambda texts: frozenset(map(self.group, texts)))

    def knows(self, user: User) -> bool:
        """Whether the table says whose the user is. Where it lists no domain, nobody is unknown."""
        if not self.shorts or user.canonical in self._local:
            return True
        return user.domain in self.shorts if user.domain else not _SID.fullmatch(user.canonical)

    def refuses(self, user: User) -> bool:
        """Whether the user may start no session because the domain is unknown."""
        return self.refuse_unknown and not self.knows(user)

    @cached_property
    def shorts(self) -> Mapping[str, str]:
        """Every spelling of a domain, folded, with its canonical one."""
        shorts = _short_names(self.domains)
        if self.default_domain is not None:
            _check_domain(f"default_domain = {self.default_domain!r}", self.default_domain)
            shorts.setdefault(fold(self.default_domain), fold(self.default_domain))
        return shorts

    def alias_target(self, text: str) -> User | None:
        """Return whom a spelling is an alias of; None if it is none. Raises InvalidName."""
        target = self._targets.get(self._canonical(text))
        return None if target is None else User(target)

    def alias_sources(self, user: User) -> Sequence[str]:
        """Return the canonical names of the aliases of a person."""
        return self._sources.get(user.canonical, ())

    @cached_property
    def _default(self) -> str | None:
        """The canonical spelling of the default domain."""
        return None if self.default_domain is None else self.shorts[fold(self.default_domain)]

    @cached_property
    def _local(self) -> frozenset[str]:
        """The canonical names of local users; a plain one stays plain."""
        return frozenset(self._local_names)

    @cached_property
    def _local_names(self) -> Sequence[str]:
        return [_of_entry(f"local_users, {entry!r}", entry, self._in_domain) for entry in self.local_users]

    @cached_property
    def _targets(self) -> Mapping[str, str]:
        """Canonical source to canonical target of each alias."""
        targets: dict[str, str] = {}
        for source, target in self.aliases.items():
            what = f"the alias {source!r} = {target!r}"
            one, other = (_of_entry(what, entry, self._canonical) for entry in (source, target))
            if targets.setdefault(one, other) != other:
                raise ConfigError(f"the alias {source!r} is given two users; keep one")
        return targets

    @cached_property
    def _sources(self) -> Mapping[str, Sequence[str]]:
        """Canonical target to the canonical sources that lead to it."""
        sources: dict[str, list[str]] = {}
        for source, target in self._targets.items():
            sources.setdefault(target, []).append(source)
        return sources

    def _canonical(self, text: str) -> str:
        """Return the canonical spelling, aliases apart; raises InvalidName."""
        canonical = self.in_default_domain(self._in_domain(text))
        _check_text(canonical)
        return canonical

    def _in_domain(self, text: str) -> str:
        """Return the canonical spelling, aliases and the default domain apart; raises InvalidName."""
        folded = _folded(text)
        domain, name = domain_and_name(folded)
        # Nobody knows whether an unknown domain that stands before a name is the same as one behind it.
        return f"{self.shorts[domain]}\\{name}" if domain in self.shorts else folded

    def in_default_domain(self, folded: str) -> str:
        """Return a canonical name, with the default domain if it has none and is no local user's."""
        plain = not any(separator in folded for separator in _SEPARATORS)
        if self._default is None or not plain or folded in self._local or _SID.fullmatch(folded):
            return folded
        return f"{self._default}\\{folded}"

    def _check_aliases(self) -> None:
        """Refuse an alias of an alias, and one whose user would be refused; ConfigError names the entry."""
        targets = self._targets
        for source, target in self.aliases.items():
            user = User(self._canonical(target))
            if user.canonical in targets:
                raise ConfigError(f"the alias {source!r} leads to {target!r}, itself an alias; name the user it means")
            if self.refuses(user):
                raise ConfigError(f"the alias {source!r} leads to {target!r}, whose domain is not among the domains")


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
    if UNSEEN.search(text):
        raise InvalidName(f"the {kind} holds a character that is not seen; leave it out")
    if any(character in forbidden for character in text):
        raise InvalidName(f"the {kind} holds one of {' '.join(forbidden)}; leave it out")
    return text


def _short_names(domains: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """Return every spelling of a domain with its short name; raises ConfigError if a spelling means two domains."""
    shorts: dict[str, str] = {}
    for short, others in domains.items():
        for spelling in (short, *((others,) if isinstance(others, str) else others)):
            _check_domain(f"the domain {short!r}", spelling)
            if shorts.setdefault(fold(spelling), fold(short)) != fold(short):
                raise ConfigError(f"the domain {spelling!r} would be two domains; keep one")
    return shorts


def _check_domain(what: str, spelling: str) -> None:
    """Refuse what is no domain; ConfigError names the administrator's own entry."""
    try:
        _check_component(fold(spelling))
    except InvalidName as error:
        raise ConfigError(f"{what}: {error}") from None


def _of_entry(what: str, entry: str, canonical: Callable[[str], str]) -> str:
    """Return the canonical name of an administrator's own entry; ConfigError names it."""
    try:
        return canonical(entry)
    except InvalidName as error:
        raise ConfigError(f"{what}: {error}") from None


def domain_and_name(folded: str) -> tuple[str, str]:
    """Return domain and name of a folded name; the domain is empty if it has none."""
    if "\\" in folded:
        domain, _, name = folded.partition("\\")
        return domain, name
    name, _, domain = folded.rpartition("@") if "@" in folded else (folded, "", "")
    return domain, name


def bare_principal(folded: str) -> str:
    """Return a user principal name without what Windows writes before it; anything else as it is."""
    before, backslash, rest = folded.partition("\\")
    return rest if backslash and "@" in rest and before in _FROM_OUTSIDE else folded


def _folded(text: str) -> str:
    """Return a spelling of a user folded, with one separator at most; raises InvalidName."""
    _check_text(text)
    folded = fold(text)
    _check_text(folded)
    if not folded.isprintable():  # line separators, and spaces that no folding makes plain ones
        raise InvalidName("a user name has no white space but the plain space; leave it out")
    if any(folded.count(separator) != text.count(separator) for separator in _SEPARATORS):
        # A full-width @ or \ would move the border between name and domain.
        raise InvalidName("a user name has a look-alike of \\ or @; write the plain character")
    folded = bare_principal(folded)
    if sum(folded.count(separator) for separator in _SEPARATORS) > 1:
        raise InvalidName(r"a user name has one \ or one @ at most, as in CORP\alice or alice@corp.example.com")
    for component in domain_and_name(folded) if any(map(folded.count, _SEPARATORS)) else (folded,):
        _check_component(component)
    return folded


def _check_text(text: str) -> None:
    """Refuse what no spelling of a name may be, before or after normalisation; raises InvalidName."""
    if not text:
        raise InvalidName("the user name is empty; give one")
    if len(text) > LONGEST_NAME:
        raise InvalidName(f"a user name has at most {LONGEST_NAME} characters")
    if any(unicodedata.category(character).startswith("C") for character in text):
        raise InvalidName("a user name has no control, formatting or unassigned characters; leave them out")
    if UNSEEN.search(text):
        raise InvalidName("a user name has no character that is not seen, and would make it look like another's")


def _check_component(component: str) -> None:
    """Refuse what could be empty, a path or a pattern on some host; raises InvalidName."""
    for reason in _faults(component):
        raise InvalidName(f"the name or the domain of a user {reason}")


def _faults(component: str) -> Iterator[str]:
    if not component:
        yield r"is empty; write it as CORP\alice, alice@corp.example.com or alice"
    if component != component.strip():
        yield "begins or ends with white space; leave it out"
    if not component.isprintable() or UNSEEN.search(component):
        yield "has a character that is not seen; leave it out"
    if component.startswith("-"):
        yield "begins with a hyphen and would pass for an option; leave it out"
    # This includes . and ..; and Windows drops a dot at the end, which would name another user's folder.
    if component.endswith("."):
        yield "ends with a dot; leave it out"
    if _FORBIDDEN.search(component):
        yield 'has one of / \\ : * ? " < > | @; leave it out'


#: Without a table each name is a person of its own, its spelling by case and width apart.
AS_GIVEN = Identities()
