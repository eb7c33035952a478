"""Fixtures of the node's room."""

from tests.nodes import site

__all__ = ["site"]
