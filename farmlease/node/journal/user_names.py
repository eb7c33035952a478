"""Under which indexes a user's lease may stand while the farm's table of who is who changes.

A lease stands under the name that its user had when it began, until ``pool apply`` moves it. This module is asked only
while such leases may be left, or where the node has to go by its own receipts: a usual start never comes here.
"""

from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import User
from farmlease.domain.spellings import other_spellings
from farmlease.errors import InvalidName, RecordRejected
from farmlease.node.journal.policy_cache import PolicyCache

__all__ = ["UserNames"]


class UserNames:
    """The names of the users of one node, by the policy in force."""

    def __init__(self, policy: PolicyCache, sealer: Sealer) -> None:
        self._policy = policy
        self._sealer = sealer

    def indexes(self, user: User, known: str = "") -> tuple[str, ...]:
        """Return the user's index, then ``known`` if it is another one, then those of all other spellings."""
        spellings = other_spellings(self._policy.in_force.identity, user)
        found = (self._sealer.user_index(user), known, *map(self._sealer.user_index, spellings))
        return tuple(dict.fromkeys(filter(None, found)))

    def present(self, index: str, name: bytes) -> User | None:
        """Return who has this sealed name today; None if that does not open or is no name any more."""
        try:
            return self._policy.in_force.identity.user(self._sealer.unseal_name(index, name))
        except (RecordRejected, InvalidName):
            return None
