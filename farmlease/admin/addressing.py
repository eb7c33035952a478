"""Whom an administrator means: a name exactly as a list prints it, else any spelling that the farm reads as a person.

A lease stands under the name that its user had when it began. So a name is first taken as it is, then as a pseudonym,
which lists print where a name does not open, then as the farm's table reads it, and then as each other spelling of that
person. Nobody becomes unreachable by a table that reads names otherwise, nor by a character that a name may have no
more: lists print that as its escape, and either is taken.
"""

import re
from collections.abc import Iterator
from contextlib import suppress

from farmlease.domain.characters import UNSEEN, as_it_was
from farmlease.domain.identity import Identities, User
from farmlease.domain.spellings import other_spellings
from farmlease.errors import InvalidName
from farmlease.farm import Farm

__all__ = ["Addressee", "is_pseudonym"]

_INDEX = re.compile(r"[A-Za-z0-9_-]{22}")


def is_pseudonym(text: str) -> bool:
    """Whether a text may be what lists print where a name does not open."""
    return _INDEX.fullmatch(text) is not None


class Addressee:
    """The user indexes that a name may mean, in the order in which they are tried.

    ``user``: the person as the table reads the name. InvalidName if it is neither a name nor printed by a list.
    """

    def __init__(self, farm: Farm, identity: Identities, text: str) -> None:
        self._farm = farm
        self._identity = identity
        self.text = text
        self.indexes: tuple[str, ...] = tuple(dict.fromkeys(self._indexes()))
        if not is_pseudonym(text) and not UNSEEN.search(as_it_was(text)):
            identity.user(text)

    @property
    def user(self) -> User:
        """The person as the farm's table reads the name."""
        return self._identity.user(self.text)

    def _indexes(self) -> Iterator[str]:
        yield self._farm.sealer.user_index(User(self.text))
        if UNSEEN.search(listed := as_it_was(self.text)):
            yield self._farm.sealer.user_index(User(listed))
        if is_pseudonym(self.text):
            yield self.text
        with suppress(InvalidName):
            user = self._identity.user(self.text)
            yield self._farm.sealer.user_index(user)
            for spelling in other_spellings(self._identity, user):
                yield self._farm.sealer.user_index(spelling)
