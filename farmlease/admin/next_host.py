"""What a host hands to the next: its configuration, the key ring and the files that [store] names, in one sealed file.

The next host gets the same files at the same places, but for its own name. This module must never put a secret into a
text.
"""

import base64
import binascii
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from farmlease import plain_file
from farmlease.admin.first_host import toml_value
from farmlease.admin.new_files import READABLE, SECRET, NewFile
from farmlease.config.model import Config, checked
from farmlease.config.source import Given, split_address
from farmlease.crypto import export_file, keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.toml_model import line_of
from farmlease.errors import ConfigError, ExportRejected, FarmleaseError, InvalidInput

__all__ = ["Arrived", "export", "unpack"]

#: Files that [store] may name. They are of the farm, and each of its hosts needs them.
_OF_THE_STORE = ("password_file", "sentinel_password_file", "ca_file", "cert_file", "key_file")
_MOST = 1 << 20  #: bytes of one of them
#: Addresses that are good on each host.
_ANY_HOSTS = {"0.0.0.0", "::", "127.0.0.1", "::1", "localhost"}  # noqa: S104 - compared, not listened on
_NOT_SECRET = {"ca_file", "cert_file"}


class Arrived(NamedTuple):
    """What a host gets of another."""

    files: Sequence[NewFile]  #: the configuration last
    config: Config
    own_addresses: Sequence[str]  #: addresses in it that may be the other host's


def export(given: Given, passphrase: str) -> bytes:
    """Return the sealed export of this host. ConfigError, KeyRingRejected or FarmleaseError if a part is missing."""
    if not given.text:
        raise ConfigError(given.absence or f"{given.source}: is empty: there is nothing to export")
    config = checked(Given(given.source, given.text, given.table, {}))  # the environment is this host's own
    ring = keyring_file.load(config.keys.file)
    content = {
        "config": _without_node(given),
        "keyring": ring.to_json().decode("ascii"),
        "files": {name: base64.b64encode(_read(path)).decode("ascii") for name, path in _of_the_store(config)},
    }
    return export_file.seal(json.dumps(content).encode(), passphrase)


def unpack(text: bytes, passphrase: str, path: Path, node: str) -> Arrived:
    """Return the files of an export for this host, whose configuration is to stand at ``path``.

    ExportRejected if it does not open; ConfigError or InvalidInput if ``node`` is no name.
    """
    content = export_file.unseal(text, passphrase)
    try:
        document = json.loads(content)
        config_text, ring_text = str(document["config"]), str(document["keyring"]).encode()
        carried = {str(name): base64.b64decode(each, validate=True) for name, each in document["files"].items()}
        table = tomllib.loads(config_text)
    except (ValueError, LookupError, TypeError, AttributeError, binascii.Error):
        raise ExportRejected(
            "it was exported by a farmlease that this one does not understand: update this host"
        ) from None
    if isinstance(ring := KeyRing.parse(ring_text), str):
        raise ExportRejected(f"the key ring in it is refused: {ring}")
    config_text = f"node = {toml_value(node)}\n{config_text}"
    config = checked(Given(str(path), config_text, {"node": node, **table}, {}))
    files = [
        NewFile(path=place, content=carried[name], mode=READABLE if name in _NOT_SECRET else SECRET)
        for name, place in _of_the_store(config)
        if name in carried
    ]
    files.append(NewFile(path=config.keys.file, content=ring.to_json()))
    files.append(NewFile(path=path, content=config_text.encode(), mode=READABLE))
    return Arrived(files, config, [*_own_addresses(config)])


def _of_the_store(config: Config) -> Iterator[tuple[str, Path]]:
    for name in _OF_THE_STORE:
        path: Path | None = getattr(config.store, name)
        if path is not None:
            yield name, path


def _read(path: Path) -> bytes:
    try:
        content = plain_file.read(path)
    except OSError as error:
        raise FarmleaseError(f"cannot read {path}, which the configuration names: {error.strerror}") from error
    if len(content) > _MOST:
        raise FarmleaseError(f"{path}, which the configuration names, is too large to be what it should be")
    return content


def _without_node(given: Given) -> str:
    """Return the text of a configuration without the name of its host, which is no other host's."""
    if "node" not in given.table:
        return given.text
    number, lines = line_of(given.text, ("node",)), given.text.splitlines(keepends=True)
    text = "" if number is None else "".join(lines[: number - 1] + lines[number:])
    try:
        alike = number is not None and tomllib.loads(text) == {k: v for k, v in given.table.items() if k != "node"}
    except tomllib.TOMLDecodeError:
        alike = False
    if not alike:
        raise InvalidInput(f"{given.source}: write node = … on one line of its own at the top, then export again")
    return text


def _own_addresses(config: Config) -> Iterator[str]:
    """Yield the addresses of the health listeners that only one host can have."""
    for name, addresses in (("listen", config.health.listen), ("agent_check", config.health.agent_check)):
        for each in addresses:
            if split_address(each)[0] not in _ANY_HOSTS:
                yield f'[health] {name} = "{each}"'
