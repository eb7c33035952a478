"""The changes that a new policy makes, in words, for an administrator who is about to apply it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from farmlease.domain.conditions import Conditions
from farmlease.domain.duration import format_duration
from farmlease.domain.identity import AS_GIVEN, Identities, fold
from farmlease.domain.policy import Policy, Pool, Rule
from farmlease.domain.toml_model import line_of
from farmlease.domain.wording import counted

__all__ = ["PolicyDiff", "diff_policies"]

_SPAN = "_ms"


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """The changes from one policy to another."""

    removed: tuple[Pool, ...]
    lines: tuple[str, ...]  #: in words, one change to a line; empty if the two are equal


def diff_policies(old: Policy | None, new: Policy) -> PolicyDiff:
    """Return what ``new`` changes. Comments and the order of pools do not matter; the order of rules does."""
    before = {pool.name: pool for pool in old.pools} if old else {}
    after = {pool.name: pool for pool in new.pools}
    removed = tuple(pool for name, pool in before.items() if name not in after)
    lines = [f"added pool {name}: {pool.kind}, {_seats(pool)}" for name, pool in after.items() if name not in before]
    for name, pool in after.items():
        if name in before and (changes := list(_changes(before[name], pool))):
            lines.append(f"changed pool {name}: {', '.join(changes)}")
    lines += [_removed_line(pool, after) for pool in removed]
    lines += _identity_lines(old, new)
    rules = old.rules if old else ()
    if [*map(_as_written, rules)] != [*map(_as_written, new.rules)]:
        lines.append(f"changed rules: {len(new.rules)} instead of {len(rules)}")
        lines += _rule_lines(old, new)
    return PolicyDiff(removed, tuple(lines))


def _removed_line(pool: Pool, after: Mapping[str, Pool]) -> str:
    """Return that a pool is removed; one whose name changes in case alone is, too, and that is not what is meant."""
    alike = next((name for name in after if fold(name) == fold(pool.name)), None)
    if alike is None:
        return f"removed pool {pool.name}"
    return f"removed pool {pool.name}: {alike} is another pool, though their names differ in case alone; no lease moves"


def _rule_lines(old: Policy | None, new: Policy) -> Iterator[str]:
    """Yield each rule that goes (-) or comes (+), in the order in which rules are read, with its line in its own text.

    A rule that moves goes and comes: the first that matches decides.
    """
    before, after = (list(_rules_in_words(each)) for each in (old, new))
    matcher = SequenceMatcher(None, [text for _, text in before], [text for _, text in after], autojunk=False)
    for what, start, end, first, last in matcher.get_opcodes():
        if what != "equal":
            yield from (f"  - {place}: {text}" for place, text in before[start:end])
            yield from (f"  + {place}: {text}" for place, text in after[first:last])


def _rules_in_words(policy: Policy | None) -> Iterator[tuple[str, str]]:
    """Yield the place of each rule, and what it says."""
    for number, rule in enumerate(policy.rules if policy else ()):
        line = line_of(policy.text, ("rule", number)) if policy else None
        yield f"rule {number + 1}" + (f" (line {line})" if line else ""), _rule_in_words(rule)


def _rule_in_words(rule: Rule) -> str:
    """Return a rule as its keys and values: conditions, then what it gives."""
    given = rule.model_dump(exclude_unset=True)
    conditions = [f"{key} {_listed(value)}" for key, value in given.items() if key not in {"pools", "access"}]
    gives = f"access {rule.access}" if rule.access else f"pools {', '.join(rule.pools)}"
    return f"{', '.join(conditions) or 'everyone'}: {gives}"


def _listed(values: Iterable[str]) -> str:
    return " or ".join(values)


def _identity_lines(old: Policy | None, new: Policy) -> Iterator[str]:
    """Yield a line if names are read otherwise, or if the policy has taken over what a host's own table said."""
    before, after = old.identity if old else AS_GIVEN, new.identity
    if changes := list(_identity_changes(before, after)):
        yield f"changed who is who ([identity]): {', '.join(changes)}"
    elif new.has_identity and not (old and old.has_identity):
        yield "added [identity], which reads names as they are read now"
    elif old and old.has_identity and not new.has_identity:
        yield "removed [identity]; names are read as before by this host's own farmlease.toml"


def _identity_changes(before: Identities, after: Identities) -> Iterator[str]:
    """Yield each key of the table that differs; names of persons are not repeated."""
    if before.default_domain != after.default_domain:
        yield f"default_domain {before.default_domain or 'none'} to {after.default_domain or 'none'}"
    if before.shorts != after.shorts:
        yield "domains"
    if before.aliases != after.aliases:
        yield "aliases"
    if list(before.local_users) != list(after.local_users):
        yield "local_users"
    if before.refuse_unknown != after.refuse_unknown:
        words = {False: "warn", True: "refuse"}
        yield f"unknown_domains {words[before.refuse_unknown]} to {words[after.refuse_unknown]}"


def _as_written(value: object) -> object:
    """Return conditions as they are written, whatever the table that reads them."""
    if isinstance(value, tuple):
        return tuple(map(_as_written, value))
    return value.model_dump(exclude_unset=True) if isinstance(value, Conditions) else value


def _seats(pool: Pool) -> str:
    return counted(pool.capacity, "seat")


def _changes(old: Pool, new: Pool) -> Iterator[str]:
    """Yield each key that differs, by its name in the document."""
    before, after = _values(old), _values(new)
    for key, value in after.items():
        if before[key] != value:
            yield f"{key} {_shown(before[key])} to {_shown(value)}" if _is_plain(before[key], value) else key


def _values(pool: Pool) -> Mapping[str, Any]:
    return {
        field.alias or name: _Span(getattr(pool, name)) if name.endswith(_SPAN) else _as_written(getattr(pool, name))
        for name, field in type(pool).model_fields.items()
    }


class _Span(int):
    """Milliseconds, to be shown as a duration."""


def _shown(value: int | str) -> str:
    return format_duration(value) if isinstance(value, _Span) else str(value)


def _is_plain(*values: object) -> bool:
    return all(isinstance(value, int | str) for value in values)
