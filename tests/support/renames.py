"""A farm whose table of who is who changes: john is his own person first, and CORP's afterwards."""

from farmlease.admin.renaming import LeaseRenamer
from farmlease.domain.identity import User
from farmlease.domain.policy import parse_policy
from farmlease.store.name_store import Rename
from tests.support.nodes import Site

__all__ = ["PLAIN", "read_otherwise"]

PLAIN = User("john")


async def read_otherwise(site: Site) -> list[Rename]:
    """Apply a policy that reads john as CORP's, and move what can move."""
    policy = parse_policy(site.policy.replace("domains", 'default_domain = "CORP"\ndomains'), "test")
    applied = await site.farm.apply(policy)
    renamer = LeaseRenamer(site.farm)
    due = [each async for each in renamer.due(["qlikview"], policy.identity)]
    outcomes = [await renamer.move(each) for each in due]
    if all(each is Rename.RENAMED for each in outcomes):
        await site.farm.names.settle(applied.version)
    return outcomes
