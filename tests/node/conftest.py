"""Fixtures of the node's room."""

from tests.support.nodes import site

__all__ = ["site"]
