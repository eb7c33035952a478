"""How long a certificate is good: the one thing of it that its owner has to watch."""

from cryptography import x509

__all__ = ["begins_at", "ends_at"]


def begins_at(der: bytes) -> int:
    """Return the first instant, in ms, for which a certificate in DER form is good. ValueError if it is none."""
    return int(x509.load_der_x509_certificate(der).not_valid_before_utc.timestamp() * 1000)


def ends_at(der: bytes) -> int:
    """Return the last instant, in ms, for which a certificate in DER form is good. ValueError if it is none."""
    return int(x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp() * 1000)
