"""Whether the process that a session belongs to is still that process: pids are used again.

The start of a process is known by a clock that nobody sets, where the system has one: a host whose clock is put right
must not lose its sessions for it.
"""

import sys

if sys.platform == "linux":
    from pathlib import Path
else:
    import psutil

__all__ = ["lives", "started_at"]

if sys.platform == "linux":

    def started_at(pid: int) -> float | None:
        """When this process started, in clock ticks since the host's boot; None if there is no such process."""
        found = _stat(pid)
        return None if found is None else found[1]

    def lives(pid: int, started: float) -> bool:
        """Whether the process that had this pid then is still running; one that only waits to be reaped is not."""
        found = _stat(pid)
        return found is not None and found[0] not in {"Z", "X"} and found[1] == started

    def _stat(pid: int) -> tuple[str, float] | None:
        """Return a process's state and start. Its name, which it chooses itself, ends at the last parenthesis."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return fields[0], float(fields[19])

else:

    def started_at(pid: int) -> float | None:
        """When this process started, in seconds since 1970 by the host's clock; None if there is no such process."""
        try:
            return float(psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def lives(pid: int, started: float) -> bool:
        """Whether the process that had this pid then is still running; one that only waits to be reaped is not."""
        try:
            process = psutil.Process(pid)
            return bool(process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
