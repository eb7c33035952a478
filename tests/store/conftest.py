"""Fixtures of the store's room."""

from tests.support.stories import little_for_a_user, one_at_a_time

__all__ = ["little_for_a_user", "one_at_a_time"]
