"""How the network to a store is protected, as facts for the doctor: in clear or not, and until when.

Connects to each server that the address names, and sends it nothing.
"""

import asyncio
import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from farmlease import plain_file
from farmlease.crypto.certificates import begins_at, ends_at
from farmlease.domain.diagnosis.store import Certificate, Wiring
from farmlease.store.connection.address import StoreAddress, hosts, is_encrypted, split_url, tls_context
from farmlease.store.connection.socket import end_tls

__all__ = ["wiring_of"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


async def wiring_of(address: StoreAddress) -> Wiring:
    """Inspect the connection to a store. ConfigError for an address with a fault."""
    url, now_ms = split_url(address), time.time_ns() // 1_000_000
    if not is_encrypted(address, url):
        return Wiring(encrypted=False, plain=tuple(f"{host}:{port}" for host, port in hosts(url) if not _is_here(host)))
    context = tls_context(address)
    certificates = [*_own(address)]
    trouble = ""
    for host, port in hosts(url):
        try:
            async with asyncio.timeout(address.timeout_ms / 1000):
                certificates.append(await _served(host, port, context))
        except (OSError, ssl.SSLError, TimeoutError) as error:
            trouble = f"no TLS with {host}:{port} ({_why(error)}); check its certificate and ours"
    return Wiring(encrypted=True, certificates=tuple(certificates), trouble=trouble, now_ms=now_ms)


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time; does it serve rediss://?"
    # asyncio puts the address into the system's text.
    plain = os.strerror(error.errno) if error.errno else "no answer"
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or plain
    return str(reason).replace("_", " ").lower()


def _own(address: StoreAddress) -> Iterator[Certificate]:
    """Yield when the authorities we trust, and our own certificate, end; of several in a file the first to end."""
    for name, path in (("ca_file", address.ca_file), ("cert_file", address.cert_file)):
        lives = list(_lives(path)) if path is not None else []
        if lives:
            yield Certificate(f"{name} {path}", *min(lives))


def _lives(path: Path) -> Iterator[tuple[int, int]]:
    for text in _PEM.findall(plain_file.read(path).decode("ascii", "replace")):
        with suppress(ValueError):
            der = ssl.PEM_cert_to_DER_cert(text)
            yield ends_at(der), begins_at(der)


async def _served(host: str, port: int, context: ssl.SSLContext) -> Certificate:
    _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        end_tls(writer)
    return Certificate(f"the certificate of {host}:{port}", ends_at(der), begins_at(der))


def _is_here(host: str) -> bool:
    """Whether a host is this one, whatever network it has."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
