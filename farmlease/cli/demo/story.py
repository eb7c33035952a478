"""The demo's story, step by step. Every line shown was just read from the agents, the store or the disk.

The users' sessions go through the agents' HTTP interface, as with a host's logon hooks; seats and leases are read as an
administrator does. A step whose check fails raises FarmleaseError, which ends the demo with status 1.
"""

import asyncio
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from farmlease.admin.leases import LeaseAdmin
from farmlease.cli.client.agent import Answer
from farmlease.cli.demo.printer import DemoPrinter
from farmlease.cli.demo.stage import FARM, NODES, DemoFarm, Host
from farmlease.domain.identity import Identities
from farmlease.domain.model import LeaseView
from farmlease.domain.wording import moment
from farmlease.errors import FarmleaseError
from farmlease.store.inspect.dump import DumpedKey, read_dump

__all__ = ["Story"]

JOHN = r"CORP\john"
IDENTITIES = Identities({"CORP": "corp.example.com"})
NOTEBOOK, HOME_PC = "nb-4711", "pc-home"
#: What must not be found in clear: every user, and the words of the vendor's file.
SECRETS = ("john", "mary", "peter", "susan", "BorrowedCalData", "UtcBorrowTime")
DELIVERED_WITHIN = 10.0  #: seconds


class Story:
    """One run of the story on one farm."""

    def __init__(self, demo: DemoFarm, printer: DemoPrinter) -> None:
        self._demo = demo
        self._printer = printer
        self._one, self._two = (demo.hosts[node] for node in NODES)
        self._file = demo.licence_file("john")
        self._lease_id = ""
        self._carried = b""

    async def play(self) -> None:
        """Play all steps. Raises FarmleaseError where a check fails."""
        self._cast()
        await self._john_starts()
        await self._john_is_sent_elsewhere()
        await self._devices()
        await self._others()
        await self._what_redis_holds()
        await self._outage()
        await self._recovery()

    # --- the steps ----------------------------------------------------------------------------------------------------

    def _cast(self) -> None:
        version = ".".join(map(str, self._demo.program.version))
        pool = self._demo.pool
        self._printer.fact("store", f"redis-server {version}, started for this demo")
        self._printer.fact(
            "hosts", f"{self._one.name} and {self._two.name}, an agent process each; together farm {FARM}"
        )
        self._printer.fact(
            "policy", f"pool {pool.name}: {pool.capacity} named seats, {pool.devices_per_user} devices per user"
        )
        self._printer.fact("files", f"{self._demo.folder}, removed at the end")

    async def _john_starts(self) -> None:
        self._printer.step(f"John starts QlikView on {self._one.name}")
        self._lease_id = await self._granted(self._one, JOHN, "7", seats=1)
        self._carried = self._program_writes()
        await self._ends(self._one, "7")
        lease = await self._lease(JOHN)
        _expect((), lease.sessions, "John's sessions after their end")
        self._printer.fact("lease", f"stays John's until {moment(lease.lease.expires_at)}, with no session open")

    async def _john_is_sent_elsewhere(self) -> None:
        self._printer.step(f"The balancer sends John to {self._two.name}, who is spelt differently there")
        await self._same_lease(self._two, "john@corp.example.com", "3")

    async def _devices(self) -> None:
        self._printer.step("John's own machines")
        await self._granted(self._two, JOHN, "4", seats=1, device=NOTEBOOK)
        _expect(204, (await self._two.ask("DELETE", "/v1/sessions/4")).status, "the status of an end")
        answer = await self._denied(self._two, JOHN, "5", "device_limit", device=HOME_PC)
        blocking = {claim["device"] for claim in _listed(answer, "blocking")}
        _expect({FARM, NOTEBOOK}, blocking, "the devices that stand in the way")
        _expect_true("a denial says until when", so=answer.fields()["retry_at"] is not None)

    async def _others(self) -> None:
        self._printer.step("Others take the other seats")
        await self._granted(self._one, r"CORP\mary", "8", seats=2)
        await self._granted(self._two, r"CORP\peter", "6", seats=3)
        await self._denied(self._one, r"CORP\susan", "9", "capacity")

    async def _what_redis_holds(self) -> None:
        self._printer.step("What Redis holds")
        held = await read_dump(self._demo.server.socket)
        index = self._demo.farm.sealer.user_index(IDENTITIES.user(JOHN)).encode()
        for entry in held:
            if index in entry.parts and entry.kind == "hash":
                value = entry.parts[entry.parts.index(index) + 1]
                self._printer.fact("HGET", f"{entry.key.decode()} {index.decode()}")
                self._printer.raw("", _printable(value))
        files = _file_contents(self._demo.server.folder)
        haystack = b"\n".join([*_texts(held), *files])
        _expect_true("the search finds what is there", so=_times_found(NODES[0], haystack) > 0)
        for secret in SECRETS:
            _expect(0, _times_found(secret, haystack), f"how often {secret} stands in the store in clear")
        self._printer.fact(
            "searched",
            f"{len(held)} keys and {len(files)} files of the store, {len(haystack):,} bytes, for "
            f"{', '.join(SECRETS)}, in any case: not there. Names of hosts and devices are.",
        )

    async def _outage(self) -> None:
        self._printer.step("The store goes away")
        await self._demo.server.stop()
        self._printer.fact("store", "redis-server has ended")
        await self._denied(self._one, r"CORP\susan", "9", "offline")
        self._carried = self._program_writes()
        await self._ends(self._two, "3")
        self._printer.fact(self._two.name, f"its health is {await self._two.store_failure()}")

    async def _recovery(self) -> None:
        self._printer.step("The store is back")
        before = await self._restart()
        lease = await self._delivered("3")
        waited = time.monotonic() - before
        self._printer.fact(self._two.name, f"delivered John's end and his file {waited:.1f} s after the store's start")
        _expect(3, lease.record_version, "the version of John's record after two changes of his file")
        await asyncio.gather(self._one.store_recovered(), self._two.store_recovered())
        self._printer.fact("hosts", "have counted again what they had, before anybody new is let in")
        await self._same_lease(self._one, JOHN, "10")
        working = await self._one.ask("GET", "/v1/sessions/8")
        _expect(["active"], [use.get("state") for use in _listed(working, "uses")], "the states of Mary's uses")
        self._printer.fact(self._one.name, "Mary's session has been active all the time")

    # --- parts of the steps -------------------------------------------------------------------------------------------

    async def _granted(self, host: Host, user: str, session: str, *, seats: int, device: str | None = None) -> str:
        """Start a session that must be granted with so many seats in use then; return the lease's id."""
        before = (await self._demo.farm.use(self._demo.pool)).used
        answer = await self._start(host, user, session, device)
        document = answer.fields()
        _expect((201, "granted"), (answer.status, document.get("decision")), f"the answer to {user}")
        use = await self._demo.farm.use(self._demo.pool)
        _expect(seats, use.used, f"the seats in use after {user} started")
        lease = await self._lease(user)
        where = device or FARM
        devices = sorted(claim.device for claim in lease.devices)
        _expect_true(f"the lease of {user} is on {where}", so=where in devices)
        seat = "still {} of {} seats in use" if before == use.used else "seat {} of {}"
        self._printer.granted(
            host.name,
            f"{answer.status} granted to {document['user']}: {seat.format(use.used, use.capacity)}, "
            f"device {len(devices)} of {self._demo.pool.devices_per_user} ({where}), lease {lease.lease.id}",
        )
        return lease.lease.id

    async def _denied(self, host: Host, user: str, session: str, reason: str, device: str | None = None) -> Answer:
        """Start a session that must be denied for this reason."""
        answer = await self._start(host, user, session, device)
        document = answer.fields()
        _expect(("denied", reason), (document.get("decision"), document.get("reason")), f"the answer to {user}")
        _expect(503 if reason == "offline" else 409, answer.status, f"the status of a denial for {reason}")
        whom = f"{user} on {device}" if device else user
        self._printer.denied(host.name, f"{answer.status} denied to {whom}, {reason}: {document['detail']}")
        return answer

    async def _same_lease(self, host: Host, user: str, session: str) -> None:
        """John starts again somewhere: same lease, same seat, and his file is there as he left it."""
        _expect_true("no file of John's is on a host before he starts", so=not self._file.exists())
        seats = (await self._demo.farm.use(self._demo.pool)).used
        _expect(self._lease_id, await self._granted(host, user, session, seats=seats), "the id of John's lease")
        _expect(self._carried, _read(self._file), "the content of John's file")
        self._printer.granted(
            host.name, f"the same lease; {self._file.name} is back, byte for byte: {_shown(self._carried)}"
        )

    async def _ends(self, host: Host, session: str) -> None:
        """John ends a session, whether or not the store is available."""
        answer = await host.ask("DELETE", f"/v1/sessions/{session}")
        _expect(204, answer.status, "the status of an end")
        _expect_true("John's file has left the host", so=not self._file.exists())
        self._printer.fact(host.name, f"{answer.status} John ends; {self._file.name} has left the host")

    async def _restart(self) -> float:
        """Start the store again on its folder; return when it began."""
        began = time.monotonic()
        await self._demo.server.start()
        self._printer.fact("store", f"redis-server runs again on {self._demo.server.folder}")
        return began

    async def _delivered(self, session: str) -> LeaseView:
        """Wait until the end of John's session is delivered to the store; return his lease."""
        deadline = time.monotonic() + DELIVERED_WITHIN
        while time.monotonic() < deadline:
            lease = await self._lease(JOHN)
            if session not in {claim.session for claim in lease.sessions}:
                return lease
            await asyncio.sleep(0.02)
        raise FarmleaseError(f"the demo does not hold: John's end was not delivered within {DELIVERED_WITHIN:g} s")

    async def _start(self, host: Host, user: str, session: str, device: str | None) -> Answer:
        document = {"user": user, "session": session} | ({"device": device} if device else {})
        return await host.ask("POST", "/v1/sessions", document)

    async def _lease(self, user: str) -> LeaseView:
        lease = await LeaseAdmin(self._demo.farm).lease(self._demo.pool, IDENTITIES.user(user))
        if lease is None:
            raise FarmleaseError(f"the demo does not hold: {user} has no lease")
        return lease

    def _program_writes(self) -> bytes:
        """Play the vendor's program: write what it would, into John's home."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = f"UserName=john UtcBorrowTime={now}".encode()
        _write(self._file, content)
        self._printer.fact("program", f"writes {self._file.name}: {_shown(content)}")
        return content


def _expect(expected: object, actual: object, what: str) -> None:
    """Raise FarmleaseError unless ``actual`` is ``expected``."""
    if expected != actual:
        raise FarmleaseError(f"the demo does not hold: {what} should be {expected!r} and is {actual!r}")


def _expect_true(what: str, *, so: bool) -> None:
    """Raise FarmleaseError unless ``so``."""
    if not so:
        raise FarmleaseError(f"the demo does not hold: it is not so that {what}")


def _times_found(word: str, haystack: bytes) -> int:
    """Count a word in any case, standing alone: a random pseudonym may contain its letters."""
    alone = rb"(?<![\w-])" + re.escape(word.encode()) + rb"(?![\w-])"
    return len(re.findall(alone, haystack, re.IGNORECASE))


def _listed(answer: Answer, field: str) -> list[dict[str, object]]:
    """Return a list of objects in an answer; empty if it is none."""
    value = answer.fields().get(field)
    return value if isinstance(value, list) else []


def _texts(held: Iterable[DumpedKey]) -> Iterable[bytes]:
    """Yield every key, field, member and value."""
    for entry in held:
        yield entry.key
        yield from entry.parts


def _file_contents(folder: Path) -> list[bytes]:
    """Return what the files below a folder hold."""
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def _printable(value: bytes) -> str:
    """Return text as it is, and anything else in hexadecimal digits."""
    text = value.decode("ascii", errors="replace")
    return text if text.isprintable() and "\ufffd" not in text else value.hex()


def _shown(content: bytes) -> str:
    """Return the content of the vendor's file in quotes."""
    return f'"{content.decode()}"'


def _read(path: Path) -> bytes | None:
    """Return a file's content; None if there is no such file."""
    return path.read_bytes() if path.exists() else None


def _write(path: Path, content: bytes) -> None:
    """Write a file, in a new folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
