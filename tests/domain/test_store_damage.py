"""What health says of a store that may drop keys."""

from farmlease.domain.store_damage import eviction_text


def test_a_store_that_evicts_is_told() -> None:
    """Before it has, by its policy; and what it has."""
    assert "" == eviction_text("noeviction", 0) == eviction_text("", 0)
    assert "may evict leases (allkeys-lru)" in eviction_text("allkeys-lru", 0)
    assert "has evicted 1 key, perhaps of leases" in eviction_text("noeviction", 1)
