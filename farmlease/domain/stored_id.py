"""How the store spells the id of a session or a device: ``pts/3`` without its ``/``, so that names can be joined.

The store joins nodes, ids and users with ``/`` and ``#``. No id holds a control character, so that two of them stand
for these two there: one for one, so that different ids never become the same, and an id never grows. An id that holds
neither is stored as it is.

Ids are encoded where the store's scripts are called (``store/lease_store.py``), and decoded where an answer or a lease
document becomes a value: ``text.translate(STORED)`` and ``text.translate(SHOWN)``.
"""

__all__ = ["SHOWN", "STORED"]

#: An id as given to the id as stored.
STORED = str.maketrans("/#", "\x01\x02")
#: An id as stored to the id as given.
SHOWN = str.maketrans("\x01\x02", "/#")
