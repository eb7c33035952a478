"""Sealing: what opens, what does not, and that the error never tells which."""

import dataclasses
import hashlib
import hmac
import json
import os
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmlease.crypto import keyring, keyring_file, seal
from farmlease.crypto.keyring import Key, KeyRing
from farmlease.crypto.seal import Purpose, RecordBinding, Sealer, key_id_of
from farmlease.domain.identity import User
from farmlease.errors import FarmleaseError, KeyRingRejected, RecordRejected

NOW = 1_795_294_078_123
RING = KeyRing(
    primary="0a1b2c3d", keys=(Key(id="0a1b2c3d", created_at=NOW, secret=bytes(range(32))),), index=bytes(range(32, 64))
)
NEWER = Key(id="ffffffff", created_at=NOW + 1, secret=bytes(range(64, 96)))
ROTATED = dataclasses.replace(RING, primary=NEWER.id, keys=(*RING.keys, NEWER))
ALICE = User(canonical="corp\\alice")
SEALER = Sealer(RING, "citrix-a")
BINDING = RecordBinding(pool="qlikview", user_index=SEALER.user_index(ALICE), lease_id="5d41402a", version=7)
PLAINTEXT = b"the vendor's bytes"

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes and owners")


def refusal(attempt: Callable[[], object]) -> str:
    """Return the text of the refusal, having seen that no other exception hangs on it."""
    with pytest.raises(RecordRejected) as caught:
        attempt()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


THE_REFUSAL = refusal(lambda: SEALER.unseal_record(BINDING, b""))


# --- sealed records --------------------------------------------------------------------------------------------------


@given(st.binary(max_size=2000), st.text(), st.text(), st.text(), st.integers(min_value=0))
def test_record_round_trip(data: bytes, pool: str, user_index: str, lease_id: str, version: int) -> None:
    """A record opens for the binding it was sealed for."""
    binding = RecordBinding(pool=pool, user_index=user_index, lease_id=lease_id, version=version)
    assert data == SEALER.unseal_record(binding, SEALER.seal_record(binding, data))


@given(st.sampled_from(Purpose), st.text(), st.lists(st.text()).map(tuple), st.binary(max_size=200))
def test_generic_round_trip(purpose: Purpose, subject: str, context: tuple[str, ...], plaintext: bytes) -> None:
    """Whatever is sealed opens for the same purpose, subject and context."""
    assert plaintext == SEALER.unseal(purpose, subject, context, SEALER.seal(purpose, subject, context, plaintext))


@given(st.text())
def test_name_round_trip(name: str) -> None:
    """A name opens for the index it was sealed for."""
    assert name == SEALER.unseal_name("index", SEALER.seal_name("index", name))


def test_every_flipped_bit_is_refused() -> None:
    """L6: no single bit of a sealed record can change unnoticed, header included."""
    sealed = SEALER.seal_record(BINDING, PLAINTEXT)
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        assert THE_REFUSAL == refusal(partial(SEALER.unseal_record, BINDING, bytes(flipped)))


def test_flipping_one_key_id_into_another_is_refused() -> None:
    """L6: a key id changed into that of another key of the ring does not help either."""
    sealer = Sealer(ROTATED, "citrix-a")
    sealed = SEALER.seal_record(BINDING, PLAINTEXT)
    swapped = sealed[:1] + bytes.fromhex(NEWER.id) + sealed[5:]
    assert THE_REFUSAL == refusal(lambda: sealer.unseal_record(BINDING, swapped))


def test_every_truncation_is_refused() -> None:
    """L6: a sealed record cut short or lengthened is refused."""
    sealed = SEALER.seal_record(BINDING, PLAINTEXT)
    for length in range(len(sealed)):
        assert THE_REFUSAL == refusal(partial(SEALER.unseal_record, BINDING, sealed[:length]))
    assert THE_REFUSAL == refusal(lambda: SEALER.unseal_record(BINDING, sealed + b"\x00"))


@given(st.binary())
def test_random_bytes_are_refused(data: bytes) -> None:
    """L6: no bytes raise anything but the one refusal."""
    assert THE_REFUSAL == refusal(lambda: SEALER.unseal_record(BINDING, data))


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(BINDING, pool="clearquest"),
        dataclasses.replace(BINDING, user_index=SEALER.user_index(User(canonical="corp\\bob"))),
        dataclasses.replace(BINDING, lease_id="5d41402b"),
        dataclasses.replace(BINDING, version=8),
        dataclasses.replace(BINDING, pool="qlikview5", lease_id="d41402a"),
    ],
    ids=["pool", "user", "lease", "version", "shifted boundary"],
)
def test_any_other_binding_is_refused(other: RecordBinding) -> None:
    """L6: a record opens for no other pool, user, lease or version."""
    assert THE_REFUSAL == refusal(lambda: SEALER.unseal_record(other, SEALER.seal_record(BINDING, PLAINTEXT)))


def test_another_farm_is_refused() -> None:
    """L6: two farms with one ring cannot open each other's records."""
    sealed = Sealer(RING, "citrix-b").seal_record(BINDING, PLAINTEXT)
    assert THE_REFUSAL == refusal(lambda: SEALER.unseal_record(BINDING, sealed))


def test_another_purpose_is_refused() -> None:
    """L6: a sealed name is no receipt, though all else be equal."""
    for purpose in Purpose:
        for other in set(Purpose) - {purpose}:
            sealed = SEALER.seal(purpose, "subject", ("context",), PLAINTEXT)
            assert THE_REFUSAL == refusal(partial(SEALER.unseal, other, "subject", ("context",), sealed))


def test_another_ring_is_refused() -> None:
    """L6: neither an unknown key id nor another secret under the same id opens a record."""
    sealed = SEALER.seal_record(BINDING, PLAINTEXT)
    unknown = Sealer(KeyRing.generate(NOW), "citrix-a")
    assert THE_REFUSAL == refusal(lambda: unknown.unseal_record(BINDING, sealed))
    impostor = dataclasses.replace(RING, keys=(dataclasses.replace(RING.keys[0], secret=bytes(32)),))
    assert THE_REFUSAL == refusal(lambda: Sealer(impostor, "citrix-a").unseal_record(BINDING, sealed))


def test_name_of_another_user_is_refused() -> None:
    """L6: a sealed name moved to another user's index does not open."""
    sealed = SEALER.seal_name(BINDING.user_index, ALICE.canonical)
    assert THE_REFUSAL == refusal(lambda: SEALER.unseal_name("other", sealed))


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_contexts_cannot_be_confused(one: list[str], other: list[str]) -> None:
    """Different lists of texts never give the same associated data."""
    assert (one == other) == (seal._fields(*one) == seal._fields(*other))


def test_sealing_twice_differs_and_hides() -> None:
    """L10: sealed bytes show neither the plaintext nor that two of them are equal."""
    one, other = (SEALER.seal_name(BINDING.user_index, "corp\\alice") for _ in range(2))
    assert one != other
    assert b"alice" not in one + other


def test_old_key_still_unseals() -> None:
    """After a rotation the new key seals, and what the old one sealed still opens."""
    sealed = SEALER.seal_record(BINDING, PLAINTEXT)
    rotated = Sealer(ROTATED, "citrix-a")
    assert PLAINTEXT == rotated.unseal_record(BINDING, sealed)
    assert RING.primary == key_id_of(sealed)
    assert NEWER.id == key_id_of(rotated.seal_record(BINDING, PLAINTEXT))


def test_key_id_of_what_is_not_sealed() -> None:
    """Bytes that cannot be sealed bytes have no key id."""
    shortest = SEALER.seal(Purpose.API, "", (), b"")
    assert [RING.primary, None, None, None] == [
        key_id_of(data) for data in (shortest, shortest[:-1], b"\x02" + shortest[1:], b"")
    ]


def test_form_in_bytes_is_pinned() -> None:
    """Records already in a store stay readable by later versions."""
    sealed = bytes.fromhex(PINNED_RECORD)
    assert PLAINTEXT == SEALER.unseal_record(BINDING, sealed)


PINNED_RECORD = "010a1b2c3d1f2cdfc507aa376f2a6fcaa011d957f825e5305d9ff63ecc26808b8a9f0b1abbb5db749a585cac1f20913720b501"


def test_threads_share_a_sealer() -> None:
    """One sealer serves several threads at once."""

    def many(number: int) -> bool:
        data = str(number).encode() * 500
        subject = str(number % 3)
        return all(
            data == SEALER.unseal(Purpose.RECEIPT, subject, (), SEALER.seal(Purpose.RECEIPT, subject, (), data))
            for _ in range(200)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(many, range(16)))


def test_sub_keys_kept_are_bounded() -> None:
    """A farm of many users does not make the sealer grow."""
    sealer = Sealer(RING, "citrix-a")
    for number in range(seal.SUB_KEYS_CACHED + 10):
        sealer.seal_name(str(number), "x")
    assert seal.SUB_KEYS_CACHED == sealer._sub_key.cache_info().currsize


# --- user index ------------------------------------------------------------------------------------------------------


def test_user_index_is_pinned() -> None:
    """The index of a user never changes: a lease in the store is found by it."""
    assert "ZFFZROLZUW2BUoSJVLr_tw" == SEALER.user_index(ALICE)


def test_user_index_is_what_it_says() -> None:
    """It is HMAC-SHA256 of the canonical name by a labelled sub-key (HKDF, RFC 5869), cut to 128 bits."""
    label = b"\x00\x00\x00\x0bfarmlease 1\x00\x00\x00\x0auser index"
    extracted = hmac.digest(bytes(32), RING.index, "sha256")
    index_key = hmac.digest(extracted, label + b"\x01", "sha256")
    digest = hmac.new(index_key, b"corp\\alice", hashlib.sha256).digest()[:16]
    padded = SEALER.user_index(ALICE).replace("-", "+").replace("_", "/") + "=="
    assert digest == keyring._from_base64(padded)


def test_user_index_outlives_rotation_and_depends_on_the_ring() -> None:
    """Rotation keeps the index; another ring gives another one; so do two users."""
    assert SEALER.user_index(ALICE) == Sealer(ROTATED, "citrix-a").user_index(ALICE)
    assert SEALER.user_index(ALICE) != Sealer(KeyRing.generate(NOW), "citrix-a").user_index(ALICE)
    assert SEALER.user_index(ALICE) != SEALER.user_index(User(canonical="corp\\alicf"))


# --- the key ring and its file ---------------------------------------------------------------------------------------


def test_generated_rings_differ() -> None:
    """Two rings share no secret and no id."""
    one, other = KeyRing.generate(NOW), KeyRing.generate(NOW)
    assert (one.primary,) == one.ids
    assert NOW == one.keys[0].created_at
    assert len({one.index, other.index, one.keys[0].secret, other.keys[0].secret}) == 4
    assert one.primary != other.primary


def test_repr_shows_no_secret() -> None:
    """L10: neither ring nor key nor sealer shows a secret in a log line."""
    shown = f"{RING!r} {RING.keys[0]!r} {SEALER!r} {RING}"
    for secret in (RING.index, RING.keys[0].secret):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert "secret" not in shown
    assert "index" not in shown


def names_in(folder: Path) -> list[str]:
    """Return the names of all that lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ring", [RING, ROTATED], ids=["one key", "two keys"])
def test_file_round_trip(ring: KeyRing, tmp_path: Path) -> None:
    """What was written is what is read, and nothing else lies beside it."""
    keyring_file.create(tmp_path / "keyring.json", ring)
    assert ring == keyring_file.load(tmp_path / "keyring.json")
    assert ["keyring.json"] == names_in(tmp_path)


@posix
def test_file_and_folder_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """The file is made 0600, an absent folder 0700."""
    path = tmp_path / "farmlease" / "keyring.json"
    before = os.umask(0o277)
    try:
        os.umask(0)
        keyring_file.create(path, RING)
        os.umask(0o277)
        keyring_file.create(tmp_path / "keyring.json", RING)
    finally:
        os.umask(before)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o600 == stat.S_IMODE((tmp_path / "keyring.json").stat().st_mode)


def test_create_never_overwrites(tmp_path: Path) -> None:
    """What stands there already stays as it is, and nothing is left beside it."""
    path = tmp_path / "keyring.json"
    path.write_bytes(b"precious")
    with pytest.raises(FarmleaseError, match="already exists and is never overwritten"):
        keyring_file.create(path, RING)
    assert b"precious" == path.read_bytes()
    assert ["keyring.json"] == names_in(tmp_path)


@posix
def test_create_does_not_follow_a_link(tmp_path: Path) -> None:
    """A link, even one that leads nowhere, counts as something that stands there."""
    path = tmp_path / "keyring.json"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FarmleaseError, match="already exists"):
        keyring_file.create(path, RING)
    assert ["keyring.json"] == names_in(tmp_path)


def test_one_of_many_creators_wins(tmp_path: Path) -> None:
    """Of several commands at once one makes the ring, the others are told so."""
    path = tmp_path / "keyring.json"
    rings = [KeyRing.generate(NOW) for _ in range(16)]

    def create(ring: KeyRing) -> bool:
        try:
            keyring_file.create(path, ring)
        except FarmleaseError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, rings))
    assert 1 == sum(won)
    assert rings[won.index(True)] == keyring_file.load(path)
    assert ["keyring.json"] == names_in(tmp_path)


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves neither half a ring nor a temporary file."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FarmleaseError, match="No space left on device"):
        keyring_file.create(tmp_path / "keyring.json", RING)
    assert [] == names_in(tmp_path)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    """A file where the folder should be is not taken for an existing ring."""
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(FarmleaseError, match="cannot write the key ring"):
        keyring_file.create(tmp_path / "folder" / "keyring.json", RING)


def test_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """Without a ring the command to make one is named."""
    with pytest.raises(KeyRingRejected, match="farmlease key generate"):
        keyring_file.load(tmp_path / "keyring.json")


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o700, 0o601, 0o4600])
def test_wider_mode_is_refused(mode: int, tmp_path: Path) -> None:
    """Any mode wider than 0600 is refused, and the text says what to do."""
    path = tmp_path / "keyring.json"
    keyring_file.create(path, RING)
    path.chmod(mode)
    with pytest.raises(KeyRingRejected, match=f"has mode {mode:04o}, 0600 is needed: `chmod 600 {path}`"):
        keyring_file.load(path)


@posix
def test_narrower_mode_is_fine(tmp_path: Path) -> None:
    """A ring that its owner can only read is still a ring."""
    path = tmp_path / "keyring.json"
    keyring_file.create(path, RING)
    path.chmod(0o400)
    assert RING == keyring_file.load(path)


if sys.platform != "win32":  # there are no such owners and files there

    def test_foreign_owner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A ring that somebody else could change is refused."""
        path = tmp_path / "keyring.json"
        keyring_file.create(path, RING)
        if os.geteuid() == 0:
            os.chown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(KeyRingRejected, match="belongs to another user"):
            keyring_file.load(path)

    def test_links_folders_and_pipes_are_refused(tmp_path: Path) -> None:
        """Only a regular file is read; a pipe does not make the agent wait."""
        keyring_file.create(tmp_path / "real.json", RING)
        (tmp_path / "link").symlink_to(tmp_path / "real.json")
        os.mkfifo(tmp_path / "pipe", 0o600)
        with pytest.raises(KeyRingRejected, match="is a link"):
            keyring_file.load(tmp_path / "link")
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(KeyRingRejected, match="is not a regular file"):
                keyring_file.load(path)


def ring_json(**changes: object) -> dict[str, object]:
    """Return the ring as it stands in its file, changed."""
    whole: dict[str, object] = json.loads(RING.to_json())
    return whole | changes


def key_json(**changes: object) -> dict[str, object]:
    """Return the ring's key as it stands in its file, changed."""
    whole: dict[str, object] = json.loads(RING.to_json())["keys"][0]
    return whole | changes


SHORT = "c2hvcnQ="
NO_BASE64 = "not base64!"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "not a key ring"),
        (b"\xff\xfe", "not a key ring"),
        (b"[" * 100_000, "not a key ring"),
        (RING.to_json()[:-3], "not a key ring"),
        (b"[]", "not a key ring"),
        (ring_json(format=2), "unknown key ring format"),
        (ring_json(format="1"), "unknown key ring format"),
        (ring_json(more=1), "exactly format, primary, index and keys"),
        (ring_json(keys={}), "not hold its own primary"),
        (ring_json(keys=[]), "not hold its own primary"),
        (ring_json(keys=[1]), "not a key ring"),
        (ring_json(primary="00000000"), "not hold its own primary"),
        (ring_json(primary=None), "not hold its own primary"),
        (ring_json(index=SHORT), "is not 32 bytes"),
        (ring_json(index=None), "not a key ring"),
        (ring_json(keys=[key_json(), key_json()]), "two keys of the same id"),
        (ring_json(keys=[key_json(secret=SHORT)]), "is not 32 bytes"),
        (ring_json(keys=[key_json(secret=NO_BASE64)]), "not a key ring"),
        (ring_json(keys=[key_json(created_at=5)]), "not a key ring"),
        (ring_json(keys=[key_json(created_at="2026-01-01T00:00:00")]), "not a key ring"),
        (ring_json(keys=[key_json(more=1)]), "exactly id, created_at and secret"),
        (ring_json(primary="0A1B2C3D", keys=[key_json(id="0A1B2C3D")]), "eight hexadecimal digits"),
        (ring_json(primary="0a1b", keys=[key_json(id="0a1b")]), "eight hexadecimal digits"),
        (ring_json(keys=[key_json(id={})]), "not hold its own primary"),
        (ring_json(keys=[key_json(), key_json(id=[])]), "not a key ring"),
        (b" " * (1 << 18) + RING.to_json(), "larger than any key ring"),
    ],
)
def test_what_is_no_ring_is_refused(text: bytes | dict[str, object], why: str, tmp_path: Path) -> None:
    """A damaged ring is refused in words that quote nothing of it, and no other exception hangs on the error."""
    path = tmp_path / "keyring.json"
    path.write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
    path.chmod(0o600)
    with pytest.raises(KeyRingRejected, match=why) as caught:
        keyring_file.load(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.__context__ is None
    assert "AAECAwQF" not in str(caught.value)


def test_times_in_the_file_are_rfc_3339() -> None:
    """The file says when a key was made in a form a person can read."""
    assert "2026-11-21T20:47:58.123Z" == key_json()["created_at"]
