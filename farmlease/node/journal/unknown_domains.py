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
    """The domains that the table does not list, of users who had a session in the last day or were refused one."""

    def __init__(self, policy: PolicyCache, sessions: SessionTable, clock: Clock) -> None:
        self._policy = policy
        self._sessions = sessions
        self._clock = clock
        self._met: dict[str, tuple[User, float]] = {}  #: by domain: one user of it, and when one was met last

    def meet(self, user: User) -> None:
        """Remember a user who came here, if nobody knows the domain."""
        if self._policy.in_force.identity.knows(user):
            return
        domain = _domain_of(user)
        self._met.pop(domain, None)
        self._met[domain] = user, self._clock.monotonic()
        if len(self._met) > _MOST:
            del self._met[next(iter(self._met))]

    def count(self) -> int:
        """Return how many there are, by the table as it is now."""
        for each in self._sessions:
            if each.state.shown:
                self.meet(each.user)
        since, identity = self._clock.monotonic() - _REMEMBERED_S, self._policy.in_force.identity
        return sum(at >= since and not identity.knows(user) for user, at in self._met.values())


def _domain_of(user: User) -> str:
    """Return the domain; of a SID, all but its last part says whose it is."""
    return user.domain or user.canonical.rpartition("-")[0]
