"""Phrases that many texts share: an instant, and a number of things."""

from datetime import UTC, datetime

__all__ = ["counted", "moment"]


def moment(at_ms: int) -> str:
    """Return an instant as a person reads it: ``2026-12-21 09:00 UTC``, rounded up to the minute."""
    return datetime.fromtimestamp(-(-at_ms // 60_000) * 60, UTC).strftime("%Y-%m-%d %H:%M UTC")


def counted(number: int, what: str) -> str:
    """Return "1 session", "2 sessions"."""
    return f"{number} {what}{'s' * (number != 1)}"
