"""Fixtures of the store's room."""

from tests.support.stories import one_at_a_time

__all__ = ["one_at_a_time"]
