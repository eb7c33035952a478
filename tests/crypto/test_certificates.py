"""When a certificate ends, read from its bytes."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from farmlease.crypto.certificates import ends_at
from tests.support.authority import Authority


@pytest.mark.parametrize("year", [2026, 2049, 2050, 9999])
def test_the_last_instant_of_a_certificate(year: int) -> None:
    """A certificate writes the year with two digits until 2049, and with four from then on."""
    end = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, end - timedelta(days=90), end)
    der = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    assert end == datetime.fromtimestamp(ends_at(der) / 1000, UTC)


@pytest.mark.parametrize("text", [b"", b"\x30\x80", b"no certificate"])
def test_what_is_no_certificate(text: bytes) -> None:
    """It is refused with the error that the caller expects."""
    with pytest.raises(ValueError):  # noqa: PT011 - the text is the library's
        ends_at(text)


@pytest.mark.parametrize("version", [0, 4], ids=["an explicit default", "a version that there is not"])
def test_what_the_library_refuses_though_servers_serve_it(tmp_path: Path, version: int) -> None:
    """Whatever the library's own error is, the caller gets the one that it expects."""
    certificate, _ = Authority(tmp_path, "authority").issue("server", version=version)
    with pytest.raises(ValueError, match="cannot be read"):
        ends_at(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
