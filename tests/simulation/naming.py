"""The names of hosts: one that is renamed is the same host, whatever the store calls it.

Judges know each host by the name that it had first. What they read of the store, and of what it was asked, goes
through here.
"""

from dataclasses import replace

from tests.simulation.server import Carried

__all__ = ["HostNames"]


class HostNames:
    """The later names of all hosts of one run."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._present: dict[str, str] = {}

    def renamed(self, first: str, name: str) -> None:
        """Note that a host has another name."""
        self._first[name] = first
        self._present[first] = name

    def first(self, name: str) -> str:
        """Return the name that a host had first."""
        return self._first.get(name, name)

    def present(self, life: str) -> str:
        """Return a life of a host under the name that the host has now."""
        name, _, incarnation = life.partition("#")
        return f"{self._present.get(self.first(name), name)}#{incarnation}"

    def read(self, text: str) -> str:
        """Return a text of the store, each life of a host in it, and each host's own seat, under its first name."""
        for name, first in self._first.items():
            text = text.replace(f"{name}#", f"{first}#").replace(f"@{name}", f"@{first}")
        return text

    def heard(self, carried: Carried) -> Carried:
        """Return what a script was asked, likewise; ``called``: the life of the host that asked, as the store knows it."""
        if not self._first:
            return carried
        given = {name: self.read(value) for name, value in carried.arguments.items() if name in {"node", "previous"}}
        called = {"called": carried.arguments["node"]} if "node" in given else {}
        return replace(carried, arguments={**carried.arguments, **given, **called})
