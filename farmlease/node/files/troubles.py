"""What is wrong with users' files on this host and ends no session: health reports it, without a user's name."""

from collections import Counter

from farmlease.domain.wording import counted

__all__ = ["FileTroubles"]


class FileTroubles:
    """The troubles that last, by user index and pool."""

    def __init__(self) -> None:
        self._troubles: dict[tuple[str, str], tuple[str, ...]] = {}

    def note(self, index: str, pool: str, *texts: str) -> None:
        """Note what is wrong with a user's files in a pool now; nothing: all is well."""
        if texts:
            self._troubles[index, pool] = texts
        else:
            self._troubles.pop((index, pool), None)

    @property
    def texts(self) -> tuple[str, ...]:
        """Each trouble once, with the number of users that have it."""
        found = Counter(text for texts in self._troubles.values() for text in texts)
        return tuple(f"{text} ({counted(number, 'user')})" for text, number in found.most_common())
