"""The domains of users who came here and which the policy's ``[identity]`` does not list.

Somebody has one seat per domain until the table joins them, so health tells how many such domains there are. It never
names one, for whoever asks for a session can write anything there. Nothing of this outlives the agent, but users with a
session are met again.
"""

from farmlease.clock import Clock
from farmlease.domain.identity import User
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.sessions import SessionTable

__all__ = ["UnknownDomains"]

_REMEMBERED_S = 24 * 3600.0  #: seconds for which a user who was here counts
_MOST = 1_000  #: domains remembered; the oldest is forgotten first


class UnknownDomains:
    """The domains that the table does not list, of users with a session now or who asked for one in the last day."""

    def __init__(self, policy: PolicyCache, sessions: SessionTable, clock: Clock) -> None:
        self._policy = policy
        self._sessions = sessions
        self._clock = clock
        self._met: dict[str, tuple[User, float]] = {}  #: by domain: one user of it, and when one was met last

    def meet(self, user: User) -> None:
        """Remember a user who asks for a session, if nobody knows the domain."""
        if self._policy.in_force.identity.knows(user):
            return
        domain = _domain_of(user)
        self._met.pop(domain, None)
        self._met[domain] = user, self._clock.monotonic()
        if len(self._met) > _MOST:
            del self._met[next(iter(self._met))]

    def count(self) -> int:
        """Return how many there are, by the table as it is now."""
        since = self._clock.monotonic() - _REMEMBERED_S
        users = [user for user, at in self._met.values() if at >= since]
        users += (each.user for each in self._sessions if each.state.shown)
        identity = self._policy.in_force.identity
        return len({_domain_of(user) for user in users if not identity.knows(user)})


def _domain_of(user: User) -> str:
    """Return the domain; of a SID, all but its last part says whose it is."""
    return user.domain or user.canonical.rpartition("-")[0]
