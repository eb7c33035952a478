"""``farmlease status``: how a farm is, on one screen, or what changed since the last look."""
