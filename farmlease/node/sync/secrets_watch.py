"""A look, now and then, at what lets this node in at the store, and at whether it will do so tomorrow.

While a connection lasts nothing fails by a password that was not changed everywhere, or by a certificate that ends
soon. So that is said before.
"""

from contextlib import suppress

from farmlease.clock import Clock
from farmlease.domain.diagnosis.finding import Verdict
from farmlease.domain.diagnosis.store import certificates
from farmlease.errors import ConfigError
from farmlease.store.connection.address import StoreAddress
from farmlease.store.connection.connection import Connection
from farmlease.store.inspect.tls_facts import wiring_of

__all__ = ["LOOK_AT_SECRETS_EVERY", "SecretsWatch", "StoreSecrets"]

#: Seconds between two looks, and between two at the certificates themselves, for which each server is connected to.
LOOK_AT_SECRETS_EVERY, _CERTIFICATES_EVERY = 10.0, 600.0


class StoreSecrets:
    """What is going to fail, as it was last seen."""

    def __init__(self) -> None:
        self.texts: tuple[str, ...] = ()

    def note(self, texts: tuple[str, ...]) -> None:
        """Note what is going to fail, in words."""
        self.texts = texts


class SecretsWatch:
    """Looks at the connections, the files and the certificates of a store."""

    def __init__(self, connection: Connection, address: StoreAddress, secrets: StoreSecrets, clock: Clock) -> None:
        self._connection = connection
        self._address = address
        self._secrets = secrets
        self._clock = clock
        self._ending: tuple[str, ...] = ()
        self._look_again_at = float("-inf")

    async def look(self) -> None:
        """Look once, and note what was found. A server that is away is no error here."""
        if self._clock.monotonic() >= self._look_again_at:
            self._look_again_at = self._clock.monotonic() + _CERTIFICATES_EVERY
            with suppress(ConfigError, OSError):  # of a file, which is told as such when it is read again
                found = certificates(await wiring_of(self._address))
                self._ending = tuple(each.text for each in found if each.verdict is not Verdict.OK)
        failing = (f"{why} (what was there before still serves)" for why in self._connection.not_renewed)
        self._secrets.note((*failing, *self._ending))
