"""Seals what lies in the journal: for this node, so that a journal that is copied elsewhere says and opens nothing."""

from farmlease.crypto.seal import Purpose, Sealer

__all__ = ["NodeSealer"]


class NodeSealer:
    """The sealer of one node's journal. ``farm``: the sealer of what goes into the store."""

    def __init__(self, farm: Sealer, node: str) -> None:
        self.farm = farm
        self._node = node
        #: Whether the primary key sealed these bytes.
        self.is_fresh = farm.is_fresh

    def seal(self, parts: tuple[str, ...], plain: bytes) -> bytes:
        """Seal ``plain`` under a name of several parts."""
        return self.farm.seal(Purpose.RECEIPT, self._node, parts, plain)

    def unseal(self, parts: tuple[str, ...], body: bytes) -> bytes:
        """Return what was sealed under this name. RecordRejected if it does not open."""
        return self.farm.unseal(Purpose.RECEIPT, self._node, parts, body)
