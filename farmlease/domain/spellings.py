"""What a person may have been called before the farm's names were read as they are now."""

from collections.abc import Iterator
from itertools import islice

from farmlease.domain.identity import Identities, User, domain_and_name
from farmlease.errors import InvalidName

__all__ = ["MOST_SPELLINGS", "other_spellings"]

MOST_SPELLINGS = 16  #: other spellings of one person that are searched for


def other_spellings(identity: Identities, user: User) -> tuple[User, ...]:
    """Return what every other spelling of a person would be called if the table did not join them.

    These are the names that an earlier table, or none, may have given to the person: the plain one, those with each
    spelling of the domain, and the same of each alias. At most MOST_SPELLINGS, the likely ones first.
    """
    return tuple(islice(_spellings(identity, user), MOST_SPELLINGS))


def _spellings(identity: Identities, user: User) -> Iterator[User]:
    """Yield each other spelling once."""
    persons = [user.canonical, *identity.alias_sources(user)]
    likely = (form for person in persons for form in (person, *_common_forms(identity, person)))
    seen = {user.canonical}
    for form in (*likely, *(form for person in persons for form in _rare_forms(identity, person))):
        if form not in seen and _is(identity, user, form):
            seen.add(form)
            yield User(form)


def _common_forms(identity: Identities, canonical: str) -> Iterator[str]:
    """Yield a name as PAM and SSSD give it, and as a user principal name."""
    domain, name = domain_and_name(canonical)
    yield name
    yield from (f"{name}@{spelling}" for spelling in _spelt(identity, domain) if spelling != domain)


def _rare_forms(identity: Identities, canonical: str) -> Iterator[str]:
    """Yield a name with the other domain forms that a host may give."""
    domain, name = domain_and_name(canonical)
    yield from (f"{spelling}\\{name}" for spelling in _spelt(identity, domain) if spelling != domain)
    yield from (f"{name}@{domain}" for spelling in _spelt(identity, domain) if spelling == domain)


def _spelt(identity: Identities, short: str) -> Iterator[str]:
    return (spelling for spelling, known in identity.shorts.items() if known == short)


def _is(identity: Identities, user: User, form: str) -> bool:
    try:
        return identity.user(form) == user
    except InvalidName:  # too long with its domain
        return False
