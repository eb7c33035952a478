"""The borrowed-licence record as a value, and its only encoding in bytes.

It holds user, seat and time, and the vendor's files as opaque bytes: this module must never look inside them. It does
not seal either; ``crypto/seal.py`` seals the bytes before they leave the node.

The bytes, numbers being big-endian::

    1    format version, now 1
    4    length of the header
    n    header: JSON with user, pool, seat, device, borrowed_at and, for each file, [name, mode, size]
    …    the files' contents, one after the other in the header's order

A record has exactly one encoding: bytes that would not be written this way (spaces in the header, an unknown field,
something after the last file) are refused. New fields therefore come with a new format version.
"""

import json
from dataclasses import dataclass, field

from farmlease.errors import FileRefused, RecordRejected

__all__ = ["MAX_RECORD_BYTES", "BorrowedRecord", "VendorFile", "decode", "encode", "is_half_written"]

#: Largest encoded record, in bytes, header included. It travels with every move of a user, so it stays small.
MAX_RECORD_BYTES = 1 << 20

_FORMAT = 1
_LENGTH_BYTES = 4
_HEADER_AT = 1 + _LENGTH_BYTES
_MAX_MODE = 0o777

#: The exact encoding of a header: one that is written otherwise is refused.
_HEADERS = json.JSONEncoder(separators=(",", ":"))
_MALFORMED = "the borrowed record is malformed: keep its bytes for inspection"


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorFile:
    """One file of the vendor's software, never interpreted."""

    name: str  #: the path as the pool's policy writes it, with its placeholders
    mode: int  #: permission bits, 0 to 0o777; set-user-id and the like do not travel
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BorrowedRecord:
    """Who borrowed which seat, when, and the vendor's files that prove it."""

    user: str  #: canonical name
    pool: str
    seat: str
    device: str
    borrowed_at: int  #: milliseconds since 1970 UTC by the store's clock
    files: tuple[VendorFile, ...]


def is_half_written(content: bytes, whole: bytes) -> bool:
    """Whether a file's content can only be a part: it is empty, all zeros, or no more than a beginning of ``whole``.

    ``whole``: the version before; empty if there is none. Zeros at the end count as nothing: a file system that lost
    its power leaves them. Not recognised: a part of something new.
    """
    begun, before = content.rstrip(b"\0"), whole.rstrip(b"\0")
    return not begun or (len(begun) < len(before) and before.startswith(begun))


def encode(record: BorrowedRecord) -> bytes:
    """Return the record's bytes, at most ``MAX_RECORD_BYTES``.

    Raises ``FileRefused`` when the files make it larger, when two of them have one name, or when a mode has bits
    beyond 0o777.
    """
    for file in record.files:
        if not 0 <= file.mode <= _MAX_MODE:
            raise FileRefused(f"{file.name} has mode {file.mode:#o}: only permission bits up to 0o777 travel, chmod it")
    if len({file.name for file in record.files}) != len(record.files):
        raise FileRefused("the record has two files of the same name: name each file once in the policy's files")
    header = _header(record)
    size = _HEADER_AT + len(header) + sum(len(file.content) for file in record.files)
    if size > MAX_RECORD_BYTES:
        raise FileRefused(
            f"the record would be {size} bytes, the limit is {MAX_RECORD_BYTES}: name fewer or smaller files"
        )
    length = len(header).to_bytes(_LENGTH_BYTES)
    return b"".join((bytes([_FORMAT]), length, header, *(file.content for file in record.files)))


def decode(data: bytes) -> BorrowedRecord:
    """Return the record that ``encode`` made these bytes of.

    Raises ``RecordRejected`` for anything else: too large, of an unknown format version, or malformed in any way.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise RecordRejected(
            f"the borrowed record is {len(data)} bytes, the limit is {MAX_RECORD_BYTES}: it is refused"
        )
    if data and data[0] != _FORMAT:
        raise RecordRejected(
            f"the borrowed record has format version {data[0]}, this farmlease knows {_FORMAT}: update this node"
        )
    record = _parsed(data)
    # Raised here, outside the handler: a parser's exception holds the header, and with it the user's name.
    if record is None:
        raise RecordRejected(_MALFORMED)
    return record


def _header(record: BorrowedRecord) -> bytes:
    return _HEADERS.encode(
        {
            "user": record.user,
            "pool": record.pool,
            "seat": record.seat,
            "device": record.device,
            "borrowed_at": record.borrowed_at,
            "files": [[file.name, file.mode, len(file.content)] for file in record.files],
        }
    ).encode("ascii")


def _parsed(data: bytes) -> BorrowedRecord | None:
    """Return the record, or None where the bytes are not exactly what ``encode`` would write."""
    try:
        contents_at = _HEADER_AT + int.from_bytes(data[1:_HEADER_AT])
        header = json.loads(data[_HEADER_AT:contents_at].decode("ascii"))
        record = BorrowedRecord(
            user=_text(header["user"]),
            pool=_text(header["pool"]),
            seat=_text(header["seat"]),
            device=_text(header["device"]),
            borrowed_at=_integer(header["borrowed_at"]),
            files=_files(header["files"], data[contents_at:]),
        )
        return record if encode(record) == data else None
    except (LookupError, TypeError, ValueError, RecursionError, FileRefused):
        return None


def _files(entries: object, contents: bytes) -> tuple[VendorFile, ...]:
    if not isinstance(entries, list):
        raise TypeError
    files = []
    start = 0
    for name, mode, size in entries:
        end = start + _integer(size)
        if end < start:  # a negative size could make a small record unfold into a huge one
            raise ValueError
        files.append(VendorFile(name=_text(name), mode=_integer(mode), content=contents[start:end]))
        start = end
    return tuple(files)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value
