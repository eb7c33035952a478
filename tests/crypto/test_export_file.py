"""A sealed export opens with its passphrase and no other, and a damaged one is told from a wrong passphrase."""

import hashlib
import json

import pytest

from farmlease.crypto.export_file import SHORTEST, seal, unseal
from farmlease.errors import ExportRejected, InvalidInput

PASSPHRASE = "correct horse battery"  # noqa: S105 - of a test
CONTENT = b"the farm's keys"


@pytest.fixture(scope="module")
def sealed() -> bytes:
    """Return an export file: each takes half a second to make."""
    return seal(CONTENT, PASSPHRASE)


def forged(sealed: bytes, **changes: object) -> bytes:
    """Return a file that says otherwise how its key is derived, with a digest that is right."""
    first, how, *rest = sealed.split(b"\n")[:-2]
    body = b"\n".join([first, json.dumps({**json.loads(how), **changes}).encode(), *rest]) + b"\n"
    return body + b"sha256 " + hashlib.sha256(body).hexdigest().encode() + b"\n"


def test_what_was_sealed_opens(sealed: bytes) -> None:
    """The same passphrase gives the content back, also of a copy that Windows made."""
    assert CONTENT == unseal(sealed, PASSPHRASE)
    assert CONTENT == unseal(sealed.replace(b"\n", b"\r\n"), PASSPHRASE)


def test_two_exports_share_nothing(sealed: bytes) -> None:
    """Salt and nonce are new each time, and nothing stands in clear."""
    other = seal(CONTENT, PASSPHRASE)
    assert sealed.splitlines()[1] != other.splitlines()[1]
    assert CONTENT not in sealed


def test_a_wrong_passphrase_is_called_that(sealed: bytes) -> None:
    """The file is whole, and the words say that it is the passphrase."""
    with pytest.raises(ExportRejected, match=r"^the passphrase is not the one"):
        unseal(sealed, PASSPHRASE + "!")


@pytest.mark.parametrize("at", [30, 60, 150, -30, -2])
def test_a_damaged_file_is_called_damaged(sealed: bytes, at: int) -> None:
    """One byte anywhere is enough."""
    broken = bytearray(sealed)
    broken[at] ^= 1
    with pytest.raises(ExportRejected, match="damaged or cut short"):
        unseal(bytes(broken), PASSPHRASE)


@pytest.mark.parametrize("length", [19, 40, 120, 200])
def test_so_is_one_that_was_cut_short(sealed: bytes, length: int) -> None:
    """Wherever it ends."""
    with pytest.raises(ExportRejected, match="damaged or cut short"):
        unseal(sealed[:length], PASSPHRASE)


@pytest.mark.parametrize("text", [b"", b"\n", b'{"format": 1}', b"\x00\xff\xfe", b"farm = 1"])
def test_what_is_none_is_said_to_be_none(text: bytes) -> None:
    """Another file is no damaged export."""
    with pytest.raises(ExportRejected, match="no export of farmlease"):
        unseal(text, PASSPHRASE)


def test_a_later_format_is_not_guessed_at(sealed: bytes) -> None:
    """A file of a newer farmlease asks for an update."""
    with pytest.raises(ExportRejected, match="update this host"):
        unseal(sealed.replace(b"export 1", b"export 2"), PASSPHRASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 1 << 30},
        {"n": 3},
        {"n": 0},
        {"r": 1 << 20},
        {"p": 1 << 20},
        {"p": -1},
        {"kdf": "none"},
        {"nonce": "AA=="},
        {"salt": "?"},
        {"n": "many"},
    ],
)
def test_a_forged_file_cannot_ask_for_any_work(sealed: bytes, changes: dict[str, object]) -> None:
    """A right digest proves nothing: what it asks for is bounded before anything is derived."""
    with pytest.raises(ExportRejected, match="damaged"):
        unseal(forged(sealed, **changes), PASSPHRASE)


def test_what_stands_in_clear_is_authenticated(sealed: bytes) -> None:
    """Less work for the key, with a right digest, opens nothing."""
    with pytest.raises(ExportRejected, match="passphrase"):
        unseal(forged(sealed, n=1 << 10), PASSPHRASE)


def test_a_short_passphrase_seals_nothing() -> None:
    """Whoever has the file may try as often as he likes."""
    with pytest.raises(InvalidInput, match=f"at least {SHORTEST}"):
        seal(CONTENT, "x" * (SHORTEST - 1))
