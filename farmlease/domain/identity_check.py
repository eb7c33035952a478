"""Names among a farm's leases that look like one person twice, or two persons as one, and what would mend each.

Nothing is decided here: a suspicion is a question to the administrator, who knows the people. What would mend it is a
line of ``[identity]`` in the policy, or a command.
"""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from farmlease.domain.identity import Identities, User, fold
from farmlease.domain.pool import Pool
from farmlease.errors import InvalidName

__all__ = ["Suspicion", "SuspicionKind", "suspicions"]

_FILES_OF = "{user}"  #: in a path of files: the name without its domain


class SuspicionKind(StrEnum):
    """What is suspicious."""

    FORMER_NAME = "former name"  #: the table reads the name of a lease as another one
    TWO_LEASES = "two leases"  #: and that one has a lease too
    UNMAPPED = "unmapped domain"
    ONE_MAPPING = "one mapping apart"  #: a mapping would make them one person
    TWO_DOMAINS = "same name, two domains"
    ONE_FILE = "one file for two"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """A pair of names, or one. ``mend``: the line of ``[identity]`` or the command that would mend it."""

    kind: SuspicionKind
    pool: str  #: empty: in any
    one: str
    other: str = ""
    mend: str


def suspicions(
    names: Mapping[str, Iterable[str]], identity: Identities, pools: Iterable[Pool] = ()
) -> Iterator[Suspicion]:
    """Yield what is suspicious about the names of the leases, which are given by pool."""
    held = {pool: sorted(set(each)) for pool, each in names.items()}
    for pool, each in held.items():
        yield from _former(pool, each, identity)
    everyone = sorted({_present(name, identity).canonical for each in held.values() for name in each})
    yield from _unmapped(everyone, identity)
    yield from _pairs(everyone, identity)
    for one in pools:
        yield from _files(one, [_present(name, identity) for name in held.get(one.name, ())])


def _present(name: str, identity: Identities) -> User:
    try:
        return identity.user(name)
    except InvalidName:  # printed by a list all the same: a pseudonym, say
        return User(name)


def _former(pool: str, names: list[str], identity: Identities) -> Iterator[Suspicion]:
    """Yield each lease that stands under another name than the one that counts."""
    for name in names:
        present = _present(name, identity).canonical
        if present == name:
            continue
        twice = present in names
        mend = (
            f"farmlease lease return {shlex.quote(name)} --pool {pool}"
            if twice
            else f"farmlease lease rename {shlex.quote(name)} {shlex.quote(present)} --pool {pool}"
        )
        kind = SuspicionKind.TWO_LEASES if twice else SuspicionKind.FORMER_NAME
        yield Suspicion(kind=kind, pool=pool, one=name, other=present, mend=mend)


def _unmapped(names: list[str], identity: Identities) -> Iterator[Suspicion]:
    """Yield each domain that the table does not list, with the first user of it."""
    seen = set[str]()
    for user in map(User, names):
        if user.domain and user.domain not in identity.shorts and user.domain not in seen:
            seen.add(user.domain)
            dotted = "." in user.domain
            short = _likely_short(user.domain, names) if dotted else user.domain.upper()
            mend = f"domains = {{ {short} = [{_quoted(user.domain) if dotted else ''}] }}"
            yield Suspicion(kind=SuspicionKind.UNMAPPED, pool="", one=user.canonical, mend=mend)


def _pairs(names: list[str], identity: Identities) -> Iterator[Suspicion]:
    """Yield each two users of one name."""
    alike = defaultdict[str, list[User]](list)
    for user in map(User, names):
        if not _is_local(user, identity):
            alike[fold(user.name)].append(user)
    for users in alike.values():
        for one, other in combinations(users, 2):
            yield _pair(one, other)


def _pair(one: User, other: User) -> Suspicion:
    """Return what would make two users of one name the same person."""
    if one.domain and not other.domain:
        one, other = other, one
    if not one.domain:
        mend = f"default_domain = {_quoted(other.domain.upper())}" if _is_short(other) else _alias(one, other)
        return Suspicion(kind=SuspicionKind.ONE_MAPPING, pool="", one=one.canonical, other=other.canonical, mend=mend)
    long, short = sorted((one, other), key=_is_short)
    if long.domain.partition(".")[0] == short.domain.partition(".")[0]:
        mend = f"domains = {{ {short.domain.upper()} = [{_quoted(long.domain)}] }}"
        kind = SuspicionKind.ONE_MAPPING
    else:
        kind, mend = SuspicionKind.TWO_DOMAINS, _alias(long, short)
    return Suspicion(kind=kind, pool="", one=long.canonical, other=short.canonical, mend=mend)


def _files(pool: Pool, users: list[User]) -> Iterator[Suspicion]:
    """Yield each two users of a pool whose files have one path, as it is made of the name without its domain."""
    templates = [template for template in pool.files if _FILES_OF in template and "{account}" not in template]
    by_name = defaultdict[str, set[str]](set)
    for user in users:
        by_name[user.name].add(user.canonical)
    for name, found in sorted(by_name.items()):
        for one, other in combinations(sorted(found), 2):
            for template in templates:
                mend = f"files = [{_quoted(template.replace(_FILES_OF, '{account}'))}]"
                path = template.replace(_FILES_OF, name)
                yield Suspicion(
                    kind=SuspicionKind.ONE_FILE, pool=pool.name, one=one, other=other, mend=f"{mend}  # not {path}"
                )


def _is_local(user: User, identity: Identities) -> bool:
    """Whether a plain name is kept apart on purpose."""
    return user.canonical in {fold(each) for each in identity.local_users}


def _likely_short(domain: str, names: list[str]) -> str:
    """Return the short name that a suffix most likely belongs to: one that names use, or its first part."""
    shorts = {name.partition("\\")[0] for name in names if "\\" in name}
    parts = domain.split(".")
    return next((part for part in parts if part in shorts), parts[0]).upper()


def _is_short(user: User) -> bool:
    """Whether the domain stands before the name."""
    return "\\" in user.canonical


def _alias(source: User, target: User) -> str:
    return f"aliases = {{ {_quoted(source.canonical)} = {_quoted(target.canonical)} }}"


def _quoted(text: str) -> str:
    """Return a TOML string: a literal one where that can be, as names with a backslash are written."""
    return (
        f"'{text}'" if "\\" in text and "'" not in text else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
