"""The agent's token file, as the agent itself reads it."""

from pathlib import Path

import pytest

from farmlease.errors import ConfigError
from farmlease.node.http.server import own_token


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
