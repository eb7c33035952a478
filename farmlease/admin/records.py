"""What administrators do with users' records: see which version counts, and bring an earlier one back.

The versions themselves lie on the hosts that superseded them; ``cli/lease/files.py`` reads those of the host it runs
on. A record is replaced by compare-and-set, so that a version that was saved meanwhile is never overwritten.
"""

from dataclasses import dataclass, replace

from farmlease.crypto.seal import RecordBinding
from farmlease.domain.policy import Pool
from farmlease.domain.record import BorrowedRecord, VendorFile, decode, encode
from farmlease.farm import Farm
from farmlease.store.answers.admin import RecordReplacement

__all__ = ["CurrentRecord", "RecordAdmin"]


@dataclass(frozen=True, slots=True)
class CurrentRecord:
    """The version of a user's record that counts, sealed and in clear."""

    binding: RecordBinding
    sealed: bytes
    record: BorrowedRecord
    saved_at: int | None  #: ms; None if it never was, or the store lost that


class RecordAdmin:
    """The records of one farm, for administrators."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def current(self, pool: Pool, index: str) -> CurrentRecord | None:
        """Return the record of a lease by its user index; None without one. RecordRejected if it does not open."""
        stored = await self._farm.leases.look_up(pool, index)
        if stored is None:
            return None
        binding = stored.binding(pool.name)
        return CurrentRecord(binding, stored.record, self.opened(binding, stored.record), stored.record_saved_at)

    def opened(self, binding: RecordBinding, sealed: bytes) -> BorrowedRecord:
        """Return a record in clear; RecordRejected if it was sealed for anything else."""
        return decode(self._farm.sealer.unseal_record(binding, sealed))

    async def restore(self, current: CurrentRecord, files: tuple[VendorFile, ...]) -> RecordReplacement:
        """Make a new version with these files in place of the current one."""
        binding = replace(current.binding, version=current.binding.version + 1)
        sealed = self._farm.sealer.seal_record(binding, encode(replace(current.record, files=files)))
        return await self._farm.leases.replace_record(
            binding.pool, binding.user_index, binding.lease_id, binding.version, sealed, self._farm.signature()
        )
