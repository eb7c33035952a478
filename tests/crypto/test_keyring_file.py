"""The key ring's file through its life: a key more, another primary, a key less; whole, private, one at a time."""

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing, KeyState
from farmlease.crypto.keyring_file import change
from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import User
from farmlease.errors import FarmleaseError, KeyRingRejected

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes and owners")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A key ring's file."""
    keyring_file.create(tmp_path / "keyring.json", KeyRing.generate(0))
    return tmp_path / "keyring.json"


def grow(path: Path) -> KeyRing:
    """Add a key."""
    return change(path, keyring_file.load(path), lambda ring: ring.grown(1000))


def test_a_keys_life() -> None:
    """A new key is pending until it is activated; the one before is old then, and may go."""
    ring = KeyRing.generate(0)
    (old,) = ring.ids
    grown = ring.grown(1000)
    new = grown.ids[1]
    assert (None, new) == (ring.pending, grown.pending)
    assert [KeyState.PRIMARY, KeyState.PENDING] == [grown.state(each) for each in grown.ids]
    active = grown.activated()
    assert [KeyState.OLD, KeyState.PRIMARY] == [active.state(each) for each in active.ids]
    assert ((new,), new) == (active.without(old).ids, active.without(old).primary)


def test_the_primary_never_goes() -> None:
    """A ring without its primary is none."""
    ring = KeyRing.generate(0).grown(1)
    with pytest.raises(KeyRingRejected):
        ring.without(ring.primary)


def test_pseudonyms_stay_the_same_through_a_rotation() -> None:
    """The index key is the ring's own, and no key of those that rotate: with another, every lease would be lost."""
    ring, alice = KeyRing.generate(0), User(canonical="corp\\alice")
    after = ring.grown(1).activated().without(ring.primary)
    assert set() == set(ring.ids) & set(after.ids)
    assert Sealer(ring, "citrix-a").user_index(alice) == Sealer(after, "citrix-a").user_index(alice)
    assert after.is_of_the_farm(ring)
    assert not after.is_of_the_farm(KeyRing.generate(0))


def test_a_sealer_goes_by_the_ring_it_was_given_last() -> None:
    """What it sealed before opens as long as the key is there; a ring with other pseudonyms is refused."""
    ring = KeyRing.generate(0)
    sealer = Sealer(ring, "citrix-a")
    before = sealer.seal_name("x", "alice")
    sealer.adopt(ring.grown(1).activated())
    after = sealer.seal_name("x", "alice")
    assert (False, True) == (sealer.is_fresh(before), sealer.is_fresh(after))
    assert "alice" == sealer.unseal_name("x", before) == sealer.unseal_name("x", sealer.reseal_name("x", before))
    assert after == sealer.reseal_name("x", after)
    with pytest.raises(KeyRingRejected, match="another farm's"):
        sealer.adopt(KeyRing.generate(0))
    assert "alice" == sealer.unseal_name("x", after)


@posix
def test_a_change_keeps_mode_and_owner(path: Path) -> None:
    """An agent with a user of its own reads the ring that root has changed; nobody else ever could, for no moment."""
    if os.geteuid() == 0:
        os.chown(path, 4242, 4243)
        (path.parent).chmod(0o755)
        with pytest.raises(KeyRingRejected, match="another user"):
            grow(path)  # root itself does not believe a stranger's ring
        os.chown(path, 0, 4243)
    before = path.stat()
    grow(path)
    after = path.stat()
    assert (before.st_uid, before.st_gid, 0o600) == (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode))
    assert before.st_ino != after.st_ino
    assert 2 == len(keyring_file.load(path).ids)


def test_a_change_leaves_nothing_beside_the_ring_but_its_lock(path: Path) -> None:
    """No half-written copy of the secrets is left, and the lock holds nothing."""
    grow(path)
    others = {each.name: each.read_bytes() for each in path.parent.iterdir() if each != path}
    assert {".keyring.json.lock": b""} == others


def test_of_two_who_change_the_ring_at_once_one_is_refused(path: Path) -> None:
    """Each believes to add the only new key: one does, and the others are told; no key is lost."""
    seen = keyring_file.load(path)

    def add(number: int) -> bool:
        try:
            change(path, seen, lambda ring: ring.grown(number))
        except FarmleaseError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert 1 == sum(threads.map(add, range(16)))
    assert 2 == len(keyring_file.load(path).ids)


def test_who_holds_the_lock_is_not_waited_for(path: Path) -> None:
    """The error says to try again."""
    before = path.read_bytes()
    with FileLock(path.with_name(".keyring.json.lock")), pytest.raises(FarmleaseError, match="another process"):
        grow(path)
    assert before == path.read_bytes()


def test_a_ring_may_have_been_through_an_editor_on_windows(path: Path) -> None:
    """A byte order mark and carriage returns change nothing."""
    ring = keyring_file.load(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert ring == keyring_file.load(path)
