"""How long a test waits for what another process does, and how late a promise in seconds may be kept.

On a machine that does nothing else, the figure itself and a little; on a busy one as many times more as others want its
cores: a limit is for finding what hangs or asks too often, and not for measuring the machine.
"""

import os

__all__ = ["within"]


def within(seconds: float) -> float:
    """Return the limit in seconds for something that takes ``seconds`` at most where nothing else goes on."""
    if not hasattr(os, "getloadavg"):  # Windows does not say
        return 3 * seconds
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
