r"""Conditions on a session: they mean persons, groups and hosts, in whatever spelling an administrator writes them.

Users and groups are read by the farm's ``[identity]``, as those of a session are: ``CORP\alice``,
``alice@corp.example.com`` and an alias of hers are one condition. A host is named with or without its DNS domain.

Shell patterns are blind to case. A pattern without a domain is for names without one and for the default domain. A rule
that denies is never evaded by what is not known: groups that could not be learned count as matching it, and for no
other rule.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Self

from pydantic import AfterValidator, Field, PrivateAttr

from farmlease.domain.identity import AS_GIVEN, Identities, bare_principal, domain_and_name, fold
from farmlease.domain.model import SessionRequest
from farmlease.domain.toml_model import Section, refusal
from farmlease.errors import InvalidName

__all__ = ["Conditions", "Patterns", "is_node", "literal", "same_host"]

_WILD = re.compile(r"[*?\[]")
_ESCAPED = re.compile(r"\[([*?\[])\]")  # how a pattern writes one of these characters itself
_ADDRESS = re.compile(r"[0-9.]+|.*:.*")


def _check_pattern(pattern: str) -> str:
    """Return the pattern in the form names are compared in."""
    if not pattern.strip():
        raise refusal("is empty; a pattern that means everything is *")
    return fold(pattern)


#: Shell patterns, kept folded. A condition that is given but empty could never match, so it is refused.
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_check_pattern)], ...], Field(min_length=1)]


class Conditions(Section):
    """Conditions on a session. All that are given must match, each by at least one of its patterns."""

    users: Patterns = ()
    groups: Patterns = ()
    nodes: Patterns = ()

    _identity: Identities = PrivateAttr(default=AS_GIVEN)
    _names: "_Names | None" = PrivateAttr(default=None)

    def read_by(self, identity: Identities) -> Self:
        """Return the same conditions, read by this table of who is who."""
        read = self.model_copy()
        read._identity, read._names = identity, None  # noqa: SLF001 - of the same class
        return read

    def match(self, request: SessionRequest, node: str, *, denies: bool = False) -> bool:
        """Whether every given condition holds for this request on this node. ``denies``: in doubt, it does."""
        given = self.model_fields_set
        return (
            ("users" not in given or self._match_user(request))
            and ("groups" not in given or self._match_groups(request, denies=denies))
            and ("nodes" not in given or any(is_node(pattern, node, denies=denies) for pattern in self.nodes))
            and self._match_place(request)
        )

    def _match_place(self, request: SessionRequest) -> bool:
        """Whether what only some conditions have holds as well."""
        del request
        return True

    def _match_user(self, request: SessionRequest) -> bool:
        names = self.names
        if request.user.canonical in names.users.exact:
            return True
        spelt = (request.user.canonical, *self._identity.alias_sources(request.user)) if names.users.patterns else ()
        return any(map(names.users.fits, spelt))

    def _match_groups(self, request: SessionRequest, *, denies: bool) -> bool:
        if request.groups is None:  # they could not be learned
            return denies
        meant, groups = self.names.groups, self._identity.groups(request.groups)
        return not meant.exact.isdisjoint(groups) or any(map(meant.fits, groups))

    @property
    def names(self) -> "_Names":
        """The users and groups, as the table reads them."""
        if self._names is None:
            self._names = _Names(self.users, self.groups, self._identity)
        return self._names


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Canonical names, and patterns of them."""

    exact: frozenset[str]
    patterns: tuple[str, ...]

    @property
    def sorted(self) -> list[str]:
        """All of them in one order."""
        return sorted((*self.exact, *self.patterns))

    def fits(self, canonical: str) -> bool:
        """Whether a name fits one of the patterns."""
        return any(fnmatchcase(canonical, pattern) for pattern in self.patterns)


@dataclass(frozen=True)
class _Names:
    """The users and groups of conditions, read by a table."""

    user_patterns: Sequence[str]
    group_patterns: Sequence[str]
    identity: Identities

    @cached_property
    def users(self) -> _Patterns:
        names, patterns = _sorted_out(self.user_patterns)
        exact = []
        for name in names:
            try:
                exact.append(self.identity.user(name).canonical)
            except InvalidName:  # nobody is called so
                continue
        return _Patterns(frozenset(exact), self._read(patterns))

    @cached_property
    def groups(self) -> _Patterns:
        names, patterns = _sorted_out(self.group_patterns)
        return _Patterns(frozenset(map(self.identity.group, names)), self._read(patterns))

    def _read(self, patterns: Iterable[str]) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(each for pattern in patterns for each in _canonical_patterns(pattern, self.identity))
        )


def literal(pattern: str) -> str | None:
    """Return the one text that a pattern means; None if it means several."""
    if _WILD.search(_ESCAPED.sub("", pattern)):
        return None
    return _ESCAPED.sub(r"\1", pattern)


def is_node(pattern: str, node: str, *, denies: bool = False) -> bool:
    """Whether a pattern means this host: with its DNS domain or without, as either of the two is written.

    A host that calls itself by a short name fits no pattern that names nothing but a DNS domain, as
    ``*.lab.example.com`` does; in doubt a rule that ``denies`` matches.
    """
    name, form = fold(node), fold(pattern)
    if fnmatchcase(name, form) or fnmatchcase(_short(name), form):
        return True
    short = _short(form)
    if "." in name or short == form:
        return False
    return fnmatchcase(name, short) and (denies or short.strip("*") != "")


def same_host(one: str, other: str) -> bool:
    """Whether two names are one host's: the same, or the same but for the DNS domain that one of them lacks."""
    first, second = fold(one), fold(other)
    return first == second or (_short(first) == _short(second) and ("." not in first or "." not in second))


def _short(host: str) -> str:
    """Return a host's name without its DNS domain; an address has none."""
    return host if _ADDRESS.fullmatch(host) else host.partition(".")[0]


def _sorted_out(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the patterns that mean one name each, and the others."""
    names, others = [], []
    for pattern in patterns:
        name = literal(pattern)
        if name is None:
            others.append(pattern)
        else:
            names.append(name)
    return names, others


def _canonical_patterns(pattern: str, identity: Identities) -> Iterable[str]:
    """Yield the patterns of canonical names that one pattern stands for."""
    folded = bare_principal(fold(pattern))
    domain, name = domain_and_name(folded)
    if domain in identity.shorts:
        yield f"{identity.shorts[domain]}\\{name}"
        return
    yield folded
    if not domain:
        yield identity.in_default_domain(folded)
    elif _WILD.search(domain):
        yield from {f"{short}\\{name}" for spelling, short in identity.shorts.items() if fnmatchcase(spelling, domain)}
