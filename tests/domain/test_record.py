"""The borrowed-licence record to bytes and back."""

import dataclasses
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farmlease.domain.record import MAX_RECORD_BYTES, BorrowedRecord, VendorFile, decode, encode
from farmlease.errors import FileRefused, RecordRejected

VENDOR_FILE = VendorFile(name="/home/{user}/.qlikview/BorrowedCalData.pgo", mode=0o600, content=b"\x00opaque\xff")
RECORD = BorrowedRecord(
    user="corp\\alice",
    pool="qlikview",
    seat="17",
    device="citrix-a",
    borrowed_at=1_795_294_078_123,
    files=(VENDOR_FILE, VendorFile(name="/home/{user}/.qlikview/Settings.ini", mode=0o640, content=b"")),
)

vendor_files = st.builds(
    VendorFile, name=st.text(), mode=st.integers(min_value=0, max_value=0o777), content=st.binary(max_size=300)
)
records = st.builds(
    BorrowedRecord,
    user=st.text(),
    pool=st.text(),
    seat=st.text(),
    device=st.text(),
    borrowed_at=st.integers(),
    files=st.lists(vendor_files, unique_by=lambda file: file.name, max_size=4).map(tuple),
)


def header_of(data: bytes) -> dict[str, Any]:
    """Return the JSON header of an encoded record."""
    header: dict[str, Any] = json.loads(data[5 : 5 + int.from_bytes(data[1:5])])
    return header


def with_header(header: object, contents: bytes = b"", **style: Any) -> bytes:
    """Return a record's bytes around a header of the test's making."""
    text = json.dumps(header, **{"separators": (",", ":"), **style}).encode()
    return b"\x01" + len(text).to_bytes(4) + text + contents


@given(records)
def test_round_trip(record: BorrowedRecord) -> None:
    """Decoding gives back exactly what was encoded."""
    assert record == decode(encode(record))


def test_form_in_bytes_is_pinned() -> None:
    """Records already in a store stay readable: version, header length, header, contents."""
    header = (
        b'{"user":"corp\\\\alice","pool":"qlikview","seat":"17","device":"citrix-a","borrowed_at":1795294078123,'
        b'"files":[["/home/{user}/.qlikview/BorrowedCalData.pgo",384,8],["/home/{user}/.qlikview/Settings.ini",416,0]]}'
    )
    assert b"\x01\x00\x00\x00\xd1" + header + b"\x00opaque\xff" == encode(RECORD)


def test_every_truncation_is_refused() -> None:
    """A record cut short anywhere is refused."""
    data = encode(RECORD)
    for length in range(len(data)):
        with pytest.raises(RecordRejected):
            decode(data[:length])


@given(st.binary(min_size=1))
def test_trailing_bytes_are_refused(trailing: bytes) -> None:
    """Nothing may follow the last file."""
    with pytest.raises(RecordRejected):
        decode(encode(RECORD) + trailing)


@given(st.binary())
@example(b"")
@example(b"\x01")
@example(b"\x01\xff\xff\xff\xff")
@example(b"\x01\x00\x01\x00\x00" + b"[" * 65536)
@example(b"\x01\x00\x00\x1f\x40" + b"9" * 8000)
def test_random_bytes_are_refused(data: bytes) -> None:
    """No bytes raise anything but RecordRejected."""
    with pytest.raises(RecordRejected):
        decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(["user", "pool", "seat", "device", "borrowed_at", "files", "more"]), json_values)
@example(field="borrowed_at", value=True)
@example(field="borrowed_at", value=1e3)
@example(field="files", value=["abc"])
@example(field="files", value=[["a", 0o4755, 0]])
@example(field="files", value=[["a", 0o600, 5]])
@example(field="files", value=[["a", 0o600, True]])
def test_ill_typed_headers_are_refused(field: str, value: object) -> None:
    """A header decodes to a record of that very header, or is refused; never anything else."""
    header = header_of(encode(dataclasses.replace(RECORD, files=()))) | {field: value}
    data = with_header(header)
    try:
        record = decode(data)
    except RecordRejected:
        return
    assert data == encode(record)
    assert header == header_of(encode(record))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header: {key: value for key, value in header.items() if key != "seat"},
        lambda header: dict(reversed(header.items())),
        lambda header: header | {"files": [["a", 0o600, 4], ["a", 0o600, 4]]},
        lambda header: header | {"files": [["a", 0o600, 8], ["b", 0o600, -4], ["c", 0o600, 4]]},
        lambda header: header | {"files": [["a", 0o1777, 8]]},
        lambda header: header | {"borrowed_at": True},
        lambda header: header | {"borrowed_at": 1.5},
        lambda header: header | {"seat": 17},
        lambda header: header | {"files": [["a", True, 8]]},
        lambda header: [header],
    ],
    ids=[
        "field missing",
        "other order",
        "same name twice",
        "negative size",
        "sticky bit",
        "true",
        "fraction",
        "number for text",
        "mode true",
        "not an object",
    ],
)
def test_other_forms_are_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    """A record has one encoding; a header that encode would not write is refused."""
    with pytest.raises(RecordRejected):
        decode(with_header(spoil(header_of(encode(RECORD))), b"\x00opaque\xff"))


def test_small_record_cannot_unfold_into_a_huge_one() -> None:
    """Sizes that go back and forth over the same bytes are refused before they are copied a hundred times."""
    header = header_of(encode(RECORD)) | {"files": [[str(n), 0, 99_999 * (-1) ** n] for n in range(200)]}
    data = with_header(header, bytes(100_000))
    tracemalloc.start()
    try:
        with pytest.raises(RecordRejected):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(data)


def test_spaces_in_the_header_are_refused() -> None:
    """Likewise a header that differs in layout only."""
    header = header_of(encode(RECORD))
    assert RECORD == decode(with_header(header, b"\x00opaque\xff"))
    with pytest.raises(RecordRejected):
        decode(with_header(header, b"\x00opaque\xff", separators=(", ", ": ")))


@pytest.mark.parametrize("version", [0, 2, 255])
def test_unknown_format_version_says_so(version: int) -> None:
    """A record of a later farmlease is refused with its version and what to do."""
    with pytest.raises(RecordRejected, match=rf"format version {version}, this farmlease knows 1: update this node"):
        decode(bytes([version]) + encode(RECORD)[1:])


def test_limit_is_exact() -> None:
    """A record of one MiB goes through; one byte more is refused, naming size and limit."""
    room = MAX_RECORD_BYTES - len(encode(with_content(b""))) - len("1000000") + len("0")
    assert MAX_RECORD_BYTES == len(encode(with_content(bytes(room))))
    assert with_content(bytes(room)) == decode(encode(with_content(bytes(room))))
    with pytest.raises(FileRefused, match=r"1048577 bytes, the limit is 1048576"):
        encode(with_content(bytes(room + 1)))


def with_content(content: bytes) -> BorrowedRecord:
    """Return a record of one file."""
    return dataclasses.replace(RECORD, files=(dataclasses.replace(VENDOR_FILE, content=content),))


def test_too_large_is_not_even_parsed() -> None:
    """More bytes than the limit are refused before anything else is looked at."""
    with pytest.raises(RecordRejected, match=r"1048577 bytes, the limit is 1048576"):
        decode(bytes(MAX_RECORD_BYTES + 1))


@pytest.mark.parametrize("mode", [0o1000, 0o4755, -1])
def test_only_permission_bits_travel(mode: int) -> None:
    """A set-user-id file is refused, not made harmless in silence."""
    with pytest.raises(FileRefused, match="permission bits"):
        encode(dataclasses.replace(RECORD, files=(dataclasses.replace(VENDOR_FILE, mode=mode),)))


def test_two_files_of_one_name_are_refused() -> None:
    """Which of the two would be put in place could not be said."""
    with pytest.raises(FileRefused, match="same name"):
        encode(dataclasses.replace(RECORD, files=(VENDOR_FILE, VENDOR_FILE)))


def test_repr_hides_the_content() -> None:
    """A record in a log line does not carry the vendor's file with it."""
    assert "opaque" not in repr(RECORD)


def test_error_holds_no_part_of_the_record() -> None:
    """A refused record's error leads to neither its text nor the parser's exception, which quotes it."""
    with pytest.raises(RecordRejected) as caught:
        decode(with_header(header_of(encode(RECORD)))[:-3])
    assert "alice" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
