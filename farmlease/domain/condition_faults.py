r"""What is wrong with the conditions of a policy that is about to be applied: those that can never match, and doubts.

A condition that never matches gives nobody what it should, and a rule that denies by it is no rule. So each is refused
with its place and the right spelling. A policy in force is not judged again: it must open for every node.
"""

import difflib
import re
from collections.abc import Iterator

from farmlease.domain.conditions import Conditions, literal
from farmlease.domain.identity import Identities, bare_principal, check_token, domain_and_name, fold
from farmlease.domain.toml_model import Location
from farmlease.errors import InvalidName

__all__ = ["condition_doubts", "condition_faults"]

Found = Iterator[tuple[Location, str]]  #: where, and what is wrong and how it is right

_SET = re.compile(r"\[[^\]]+\]")
#: A set of characters that reads like a word: ``[Sales]``, but not ``[a-z]``, ``[!x]`` or ``[0123]``.
_WORD = re.compile(r"(?<!\[)\[([^\W\d_][^\]\[*?!\-]*[^\W\d_])\]")
#: Domains of groups and accounts that every Windows host has.
_EVERYWHERE = frozenset({"builtin", "nt authority", "nt service", "nt virtual machine"})


def condition_faults(conditions: Conditions, identity: Identities) -> Found:
    """Yield each pattern that can never match, its key and number first."""
    for key in ("users", "groups", "sites", "apps"):
        for place, pattern in enumerate(getattr(conditions, key, ())):
            yield from (((key, place), why) for why in _bracket_faults(key, pattern))
    for place, pattern in enumerate(conditions.users):
        yield from ((("users", place), why) for why in _user_faults(pattern, identity))
    for place, pattern in enumerate(conditions.groups):
        if identity.refuse_unknown:
            yield from ((("groups", place), why) for why in _unknown_domain(pattern, identity))
    for place, pattern in enumerate(conditions.nodes):
        yield from ((("nodes", place), why) for why in _node_faults(pattern))


def condition_doubts(conditions: Conditions, identity: Identities) -> Found:
    """Yield each pattern that matches only if its domain is none that the table lists."""
    if identity.refuse_unknown:
        return
    for key, patterns in (("users", conditions.users), ("groups", conditions.groups)):
        for place, pattern in enumerate(patterns):
            yield from (((key, place), why) for why in _unknown_domain(pattern, identity))


def _bracket_faults(key: str, pattern: str) -> Iterator[str]:
    if found := _WORD.search(pattern):
        right = pattern.replace(found[0], f"[[]{found[1]}]")
        yield (
            f'means one of the characters "{found[1]}", not the {key.removesuffix("s")} "{pattern}": write "{right}"; '
            "for one of several characters write a range, or several patterns"
        )


def _user_faults(pattern: str, identity: Identities) -> Iterator[str]:
    name = literal(pattern)
    try:
        if name is None:
            identity.user(_example(pattern))
        elif target := identity.alias_target(name):
            yield f"is an alias, under which nobody starts a session: write the person's name, {target.canonical}"
            return
    except InvalidName as error:
        yield f"can be nobody's name: {error}"
        return
    if identity.refuse_unknown and (name is None or identity.refuses(identity.user(name))):
        yield from _unknown_domain(pattern, identity)


def _unknown_domain(pattern: str, identity: Identities) -> Iterator[str]:
    """Yield what is wrong with the domain of a user or group, if it is one and none that is known."""
    domain, _ = domain_and_name(bare_principal(fold(pattern)))
    name, known = literal(pattern), {*identity.shorts, *_EVERYWHERE}
    if not identity.shorts or not domain or literal(domain) is None or domain in known:
        return
    if name is not None and _is_listed(name, identity):
        return
    near = difflib.get_close_matches(domain, identity.shorts, n=1, cutoff=0)[0]
    listed = ", ".join(sorted(set(identity.shorts.values())))
    yield (
        f'the domain "{domain}" is none that [identity] lists ({listed}): write "{near}" if that is meant, '
        "or add it to domains"
    )


def _is_listed(name: str, identity: Identities) -> bool:
    """Whether a name is a local user's."""
    try:
        return identity.knows(identity.user(name))
    except InvalidName:
        return False


def _node_faults(pattern: str) -> Iterator[str]:
    name = literal(pattern)
    try:
        check_token("node", _example(pattern) if name is None else name)
    except InvalidName as error:
        yield f"can be no host's name: {error}"


def _example(pattern: str) -> str:
    """Return a text that the pattern fits, with a letter for whatever is open."""
    return re.sub(r"[*?]", "x", _SET.sub("x", pattern))
