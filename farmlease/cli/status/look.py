"""What ``farmlease status`` looks at: all that the doctor finds, and the farm's pools, nodes and denials.

Nothing here ends the command: what cannot be seen is a finding, and the group that it belongs to is seen partly.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from farmlease.admin.overview import Overview, overview
from farmlease.cli.doctor.node import agent_findings, configured, file_findings, guarded, ring_findings, why
from farmlease.cli.doctor.store import store_findings
from farmlease.config.model import Config
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.diagnosis.changes import Group
from farmlease.domain.diagnosis.farm import FullSince, denials, full_since, nodes, pools
from farmlease.domain.diagnosis.finding import Finding, Verdict, failed
from farmlease.errors import ConfigError, KeyRingRejected, RecordRejected, StoreError
from farmlease.farm import open_farm

__all__ = ["Sight", "look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What was seen. ``overview``: None if the farm could not be read. ``partly``: groups that were not seen whole."""

    config: Config | None
    overview: Overview | None
    full: Mapping[str, FullSince] = field(default_factory=dict)
    findings: Mapping[Group, list[Finding]] = field(default_factory=dict)
    partly: frozenset[Group] = frozenset()

    @property
    def wrong(self) -> list[Finding]:
        """What is wrong, the worst first, in the order of the doctor's checks."""
        found = [each for group in Group for each in self.findings.get(group, ()) if each.verdict is not Verdict.OK]
        return sorted(found, key=lambda each: each.verdict is not Verdict.FAIL)

    @property
    def failing(self) -> bool:
        """Whether something fails; a warning does not."""
        return any(each.verdict is Verdict.FAIL for each in self.wrong)

    @property
    def store_away(self) -> bool:
        """Whether the store did not answer."""
        return self.config is not None and any(
            each.check == "store" and each.verdict is Verdict.FAIL for each in self.findings.get(Group.STORE, ())
        )


def look(before: Mapping[str, FullSince]) -> Sight:
    """Look at this host, the store and the farm. ``before``: since when pools were full at the last look."""
    config, host = configured()
    if config is None:
        return Sight(config=None, overview=None, findings={Group.HOST: host}, partly=frozenset(Group))
    ring, found = ring_findings(config)
    host += [*found, *file_findings(config), *agent_findings()]
    store, partly = _store(config, ring)
    seen, farm = (None, list[Finding]()) if Group.FARM in partly else _farm(config)
    if seen is None:
        partly |= {Group.FARM}
    full = dict[str, FullSince]()
    if seen is not None:
        marks = {pool.name: full_since(pool, before.get(pool.name)) for pool in seen.pools}
        full = {name: mark for name, mark in marks.items() if mark is not None}
        farm += [*seen.unread, *pools(seen.pools, full), *denials(seen.denials), *nodes(seen.nodes)]
        partly |= {Group.FARM} if seen.unread else set()
    findings = {Group.HOST: host, Group.STORE: store, Group.FARM: farm}
    return Sight(config=config, overview=seen, full=full, findings=findings, partly=frozenset(partly))


def _store(config: Config, ring: KeyRing | None) -> tuple[list[Finding], set[Group]]:
    """Return the doctor's findings on the store, and what cannot be seen of store and farm."""
    found = guarded("store", lambda: asyncio.run(store_findings(config, ring)))
    if any(each.check == "store" and each.verdict is Verdict.FAIL for each in found):
        return found, {Group.STORE, Group.FARM}
    return found, set() if ring is not None else {Group.STORE, Group.FARM}


def _farm(config: Config) -> tuple[Overview | None, list[Finding]]:
    """Return the farm's pools, nodes and denials; None if they cannot be read, and then why."""

    async def read() -> Overview:
        async with open_farm(config) as (farm, _):
            return await overview(farm, (await farm.policy()).pools)

    try:
        return asyncio.run(read()), []
    except RecordRejected:
        return None, []  # the doctor's check of the policy says it
    except (StoreError, KeyRingRejected, ConfigError) as error:
        return None, [failed("farm", why(error))]
