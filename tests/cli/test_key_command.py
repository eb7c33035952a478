"""``farmlease key …``: a ring is made once, and no secret is shown."""

import json
import stat
import sys

import pytest

from farmlease.crypto import keyring_file
from tests.support.commands import Host


def test_generate_makes_a_private_ring(host: Host) -> None:
    """The file of the configuration is made, 0600, and the command says where it is and which key it holds."""
    host.ring_file.unlink()
    ended = host.run("key", "generate")
    assert (0, "") == (ended.status, ended.err)
    ring = keyring_file.load(host.ring_file)
    assert f"made {host.ring_file} with key {ring.primary}" in ended.out
    if sys.platform != "win32":
        assert 0o600 == stat.S_IMODE(host.ring_file.stat().st_mode)


def test_generate_never_overwrites(host: Host) -> None:
    """A ring that stands there already stays as it is: without it every record of the farm would be lost."""
    before = host.ring_file.read_bytes()
    ended = host.run("key", "generate")
    assert (1, "") == (ended.status, ended.out)
    assert f"farmlease: {host.ring_file} already exists" in ended.err
    assert 1 == ended.err.count("\n")
    assert before == host.ring_file.read_bytes()


def test_list_tells_which_key_is_the_primary(host: Host) -> None:
    """Each key has its id, whether new records are sealed with it, and when it was made."""
    ring = keyring_file.load(host.ring_file)
    (row,) = json.loads(host.run("key", "list", "-o", "json").out)
    made_at = "1970-01-01T00:00:00.000Z"
    held = {"records": 0, "names": 0, "notes": 0, "policy": False, "nodes": 0}
    assert {"id": ring.primary, "state": "primary", "primary": True, "created_at": made_at, **held} == row
    assert ["primary", "1970-01-01", "00:00"] == host.run("key", "list").out.splitlines()[1].split()[1:4]


@pytest.mark.parametrize("fmt", ["table", "json", "csv"])
def test_list_shows_no_secret(host: Host, fmt: str) -> None:
    """Not a secret of the ring is printed, in whatever format."""
    document = json.loads(host.ring_file.read_text())
    ended = host.run("key", "list", "-o", fmt)
    assert document["primary"] in ended.out
    for secret in (document["index"], *(key["secret"] for key in document["keys"])):
        assert secret not in ended.out + ended.err


@pytest.mark.parametrize("args", [("key", "list"), ("lease", "list"), ("pool", "list")])
def test_without_a_ring_the_way_to_one_is_told(host: Host, args: tuple[str, ...]) -> None:
    """A missing ring is status 5, and the line says how one is made."""
    host.ring_file.unlink()
    ended = host.run(*args)
    assert (5, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert "`farmlease key generate`" in ended.err


def test_without_a_configuration_nothing_is_made(host: Host) -> None:
    """A configuration that was named and is not there is wrong usage."""
    host.config_file.unlink()
    ended = host.run("key", "generate")
    assert (2, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
