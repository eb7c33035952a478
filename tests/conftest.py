"""Fixtures of all rooms."""

from tests.stores import server, timed, timed_server

__all__ = ["server", "timed", "timed_server"]
