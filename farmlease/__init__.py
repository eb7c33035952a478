"""farmlease: borrowed licences that follow their user across a load-balanced farm.

Read in this order, an hour in all: ``domain/model.py``, ``domain/policy.py``, ``domain/session_states.py``,
``store/lua/acquire.lua``, ``store/lease_store.py``, ``node/sessions/start.py``.

This module must stay light: ``farmlease session …`` runs at every logon and imports it.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
