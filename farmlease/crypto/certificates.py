"""When a certificate ends, read from its bytes: the one thing of it that its owner has to watch."""

from datetime import UTC, datetime

__all__ = ["ends_at"]

_UTC_TIME, _VERSION = 0x17, 0xA0
#: Two-digit years from this one on are of the last century (RFC 5280).
_LAST_CENTURY = 50
_LONG_FORM = 0x80


def ends_at(der: bytes) -> int:
    """Return the last instant, in ms, for which a certificate in DER form is good. ValueError if it is none."""
    try:
        _, at, _ = _part(der, 0)  # Certificate
        _, at, _ = _part(der, at)  # what is signed of it
        tag, _, end = _part(der, at)
        at = end if tag == _VERSION else at
        for _ in ("serial number", "algorithm", "issuer"):
            _, _, at = _part(der, at)
        _, at, _ = _part(der, at)  # validity
        _, _, at = _part(der, at)  # not before
        tag, start, end = _part(der, at)
        text = der[start:end].decode("ascii")
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not a certificate") from error
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _LAST_CENTURY else "20") + text
    moment = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def _part(der: bytes, at: int) -> tuple[int, int, int]:
    """Return a part's tag, where its content begins and where it ends."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length >= _LONG_FORM:
        size = length - _LONG_FORM
        length, start = int.from_bytes(der[start : start + size]), start + size
    if start + length > len(der):
        raise IndexError
    return tag, start, start + length
