"""The agent's token file, as the agent itself reads it, and its Unix socket."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from farmlease.errors import ConfigError, FarmleaseError
from farmlease.node.http.server import listening_socket, own_token
from tests.support.patience import within
from tests.support.ports import distant_port

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no Unix sockets")


@pytest.mark.parametrize("around", [(b"", b""), (b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")])
def test_what_an_editor_puts_around_a_token_is_no_part_of_it(tmp_path: Path, around: tuple[bytes, bytes]) -> None:
    """A byte order mark and line ends, of whatever system."""
    file = tmp_path / "token"
    file.write_bytes(around[0] + b"a-token" + around[1])
    file.chmod(0o600)
    assert "a-token" == own_token(file)


@pytest.mark.parametrize(
    "content", [b"", b" \r\n", b"\xef\xbb\xbf", b"\xff\xfe", "t\N{LATIN SMALL LETTER O WITH DIAERESIS}ken".encode()]
)
def test_what_is_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty one would let everybody in, and one of other letters fits into no header."""
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no token; delete it"):
        own_token(file)


def test_a_token_is_made_once(tmp_path: Path) -> None:
    """Where there is none yet the agent makes one for its owner only, and keeps it."""
    file = tmp_path / "run" / "token"
    token = own_token(file)
    assert (0o600, token) == (file.stat().st_mode & 0o777, own_token(file))


# --- IPv4 and IPv6 --------------------------------------------------------------------------------------------------------


def reached(*hosts: str, port: int) -> list[str]:
    """The addresses of this machine at which somebody listens on a port."""
    found = []
    for host in hosts:
        with suppress(ConnectionRefusedError), socket.create_connection((host, port), within(10)):
            found.append(host)
    return found


@pytest.mark.parametrize("spelling", ["::", "0:0:0:0:0:0:0:0", "::0.0.0.0"])
def test_every_address_of_ipv6_is_every_address(spelling: str) -> None:
    """One listener for both kinds, where the system can."""
    port = distant_port()
    with listening_socket(f"[{spelling}]:{port}"):
        assert ["127.0.0.1", "::1"] == reached("127.0.0.1", "::1", port=port)


def test_each_kind_may_have_a_listener_of_its_own() -> None:
    """Then neither is in the other's way, whichever comes first; one on another port takes nothing away."""
    port, other = distant_port(), distant_port()
    addresses = [f"0.0.0.0:{port}", f"[::]:{port}"]
    for order in (addresses, addresses[::-1]):
        with listening_socket(order[0], order), listening_socket(order[1], order):
            assert ["127.0.0.1", "::1"] == reached("127.0.0.1", "::1", port=port)
    with listening_socket(f"[::]:{port}", [f"[::]:{port}", f"127.0.0.1:{other}"]):
        assert ["127.0.0.1", "::1"] == reached("127.0.0.1", "::1", port=port)


def test_one_address_of_ipv6_is_that_alone() -> None:
    """Nobody who asks for loopback is reached from elsewhere."""
    port = distant_port()
    with listening_socket(f"[::1]:{port}"):
        assert ["::1"] == reached("127.0.0.1", "::1", port=port)


@pytest.mark.parametrize("address", ["[1:2]:8732", "[::1::]:8732", "[....]:8732"])
def test_what_is_no_address_of_ipv6_is_told(address: str) -> None:
    """In one line."""
    with pytest.raises(FarmleaseError, match=re.escape(f"cannot listen on {address} (")):
        listening_socket(address)


# --- the Unix socket ------------------------------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    """A socket's place with a short path, in a folder that is not there yet."""
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder / "run" / "farmlease" / "agent.sock"
    shutil.rmtree(folder)


@posix_only
def test_every_user_gets_to_the_socket(place: Path) -> None:
    """Its folders are made if they are missing, whatever the umask: the kernel says who comes, so all may."""
    before = os.umask(0o077)
    try:
        with listening_socket(f"unix:{place}"):
            assert (0o755, 0o666) == tuple(path.stat().st_mode & 0o777 for path in (place.parent, place))
            assert 0o755 == place.parent.parent.stat().st_mode & 0o777
    finally:
        os.umask(before)


@posix_only
def test_a_folder_that_is_there_stays_as_it_is(place: Path) -> None:
    """Somebody gave it its mode on purpose."""
    place.parent.mkdir(parents=True)
    place.parent.chmod(0o750)
    with listening_socket(f"unix:{place}"):
        assert 0o750 == place.parent.stat().st_mode & 0o777


@posix_only
def test_a_socket_without_a_listener_is_replaced(place: Path) -> None:
    """An agent that was killed leaves one behind."""
    listening_socket(f"unix:{place}").close()
    assert place.is_socket()
    with listening_socket(f"unix:{place}"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))


@posix_only
def test_a_socket_with_a_listener_is_not(place: Path) -> None:
    """The second agent ends, and the first goes on, even one that is too busy to take another connection."""
    with listening_socket(f"unix:{place}") as first, pytest.raises(FarmleaseError, match="Address already in use"):
        listening_socket(f"unix:{place}")
    place.unlink()
    with ExitStack() as stack:
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.bind(str(place))
        first.listen(0)
        for _ in range(3):  # more than it takes
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0)
            client.connect_ex(str(place))
        with pytest.raises(FarmleaseError, match="Address already in use"):
            listening_socket(f"unix:{place}")


@posix_only
def test_what_is_no_socket_is_left_alone(place: Path) -> None:
    """A file in its place is somebody's."""
    place.parent.mkdir(parents=True)
    place.write_text("notes")
    with pytest.raises(FarmleaseError, match="Choose another address"):
        listening_socket(f"unix:{place}")
    assert "notes" == place.read_text()


@posix_only
def test_of_agents_that_start_at_once_one_listens(place: Path) -> None:
    """None takes away the socket that another has just made in the place of an old one."""
    for _ in range(20):
        listening_socket(f"unix:{place}").close()  # what a killed agent leaves
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: tried(place), range(8)))
        with ExitStack() as stack:
            (only,) = [stack.enter_context(each) for each in made if each is not None]
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(place))
                only.accept()[0].close()


def tried(place: Path) -> socket.socket | None:
    """Return a listening socket; None where another one listens."""
    with suppress(FarmleaseError):
        return listening_socket(f"unix:{place}")
    return None


@posix_only
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="root may make a socket anywhere")
def test_where_the_agent_may_not_listen(place: Path) -> None:
    """A user who starts an agent without the right to the folder is told what to do."""
    place.parent.mkdir(parents=True)
    code = (
        "import os, sys; from farmlease.node.http.server import listening_socket; os.setgid(65534); os.setuid(65534)\n"
        "try: listening_socket(sys.argv[1])\nexcept Exception as error: print(error)"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    for address in (f"unix:{place}", f"unix:{place.parent}/more/agent.sock"):
        done = subprocess.run(
            [sys.executable, "-c", code, address], capture_output=True, text=True, check=False, env=environ
        )
        assert (
            f"cannot listen on {address} (Permission denied): start the agent as root or by its systemd unit"
            in done.stdout
        )
