"""An agent put together: every part of it, made once, in the order in which they need each other.

This is the only place that knows all parts. Tests make whole nodes with it on stores, clocks and disks of their own.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from farmlease.clock import Clock
from farmlease.config.model import Config
from farmlease.farm import Farm
from farmlease.node.admission import Admission
from farmlease.node.agent import Agent
from farmlease.node.book import Book
from farmlease.node.condition import Condition
from farmlease.node.custody import Custody
from farmlease.node.debts import Debts
from farmlease.node.departure import Departure
from farmlease.node.errands import Errands
from farmlease.node.hooks import Hook, Hooks
from farmlease.node.journal import Journal
from farmlease.node.kept import KeptFiles
from farmlease.node.memory import Memory
from farmlease.node.metrics import Metrics
from farmlease.node.offline import Offline
from farmlease.node.presence import Presence
from farmlease.node.pulse import Pulse
from farmlease.node.reacquire import Reacquire
from farmlease.node.receipts import Receipts
from farmlease.node.reception import Reception
from farmlease.node.recovery import Recovery
from farmlease.node.ring import RingCare
from farmlease.node.rounds import Rounds
from farmlease.node.seats import Seats
from farmlease.node.standing import Standing
from farmlease.node.turns import Turns
from farmlease.node.upkeep import Upkeep
from farmlease.node.vigil import Vigil
from farmlease.store.keys import node_member
from farmlease.store.node_store import NodeStore
from farmlease.store.seal_store import SealStore

__all__ = ["Node", "compose"]


@dataclass(frozen=True, slots=True)
class Node:
    """A composed agent and what it stands on."""

    agent: Agent
    rounds: Rounds
    standing: Standing
    journal: Journal
    memory: Memory
    receipts: Receipts
    reacquire: Reacquire
    metrics: Metrics


@contextlib.contextmanager
def compose(config: Config, farm: Farm, clock: Clock, metrics: Metrics | None = None) -> Iterator[Node]:
    """Open the node's state folder and put its agent together; AlreadyRunning if another agent has the folder.

    ``metrics`` are told what happens; default: ones of its own.

    A journal that cannot be believed is kept, and the agent starts with a new one. JournalFailed if the disk refuses,
    JournalRejected if a later version of farmlease wrote the journal.
    """
    folder = config.agent.state_dir
    kept = KeptFiles(folder / "kept")
    journal = Journal.open(folder, node=config.node, kept=kept, now_ms=clock.now_ms())
    try:
        yield _node(config, farm, clock, journal, kept, metrics=metrics or Metrics(clock))
    finally:
        journal.close()


def _node(config: Config, farm: Farm, clock: Clock, journal: Journal, kept: KeptFiles, *, metrics: Metrics) -> Node:
    node, sealer, turns, errands = config.node, farm.sealer, Turns(), Errands()
    member, denies = node_member(node, journal.incarnation), config.agent.offline == "deny"
    commands = {Hook.GRANTED: config.hooks.granted, Hook.ENDED: config.hooks.ended, Hook.LOST: config.hooks.lost}
    hooks = Hooks(commands, errands, metrics.hook_ran)
    standing = Standing(farm, journal, node, config.agent.heartbeat_ms)
    book = Book(journal=journal, sealer=sealer, kept=kept, node=node, clock=clock)
    receipts = Receipts(journal=journal, sealer=sealer, kept=kept, node=node, clock=clock)
    custody = Custody(receipts=receipts, sealer=sealer, kept=kept, clock=clock)
    memory = Memory(journal=journal, sealer=sealer, node=node, clock=clock, book=book)
    reacquire, vigil = Reacquire(clock), Vigil(book, clock, standing, memory)
    debts = Debts(
        node=node, journal=journal, sealer=sealer, store=farm.store, book=book, custody=custody, kept=kept,
        clock=clock, memory=memory, receipts=receipts,
    )  # fmt: skip
    departure = Departure(
        member=member, sealer=sealer, journal=journal, book=book, custody=custody, debts=debts, turns=turns,
        errands=errands, hooks=hooks,
    )  # fmt: skip
    recovery = Recovery(
        farm=farm, member=member, memory=memory, book=book, receipts=receipts, debts=debts, standing=standing,
        turns=turns, errands=errands, clock=clock, window_ms=config.recovery.window_ms,
    )  # fmt: skip
    pulse = Pulse(
        store=farm.store, node=node, journal=journal, standing=standing, book=book, debts=debts, errands=errands,
        memory=memory, recovery=recovery, clock=clock,
    )  # fmt: skip
    reception = Reception(
        sealer=sealer, node=node, book=book, custody=custody, receipts=receipts, memory=memory, departure=departure,
        turns=turns, hooks=hooks,
    )  # fmt: skip
    seats = Seats(
        farm=farm, node=node, standing=standing, book=book, receipts=receipts, memory=memory, reception=reception,
        departure=departure, turns=turns, clock=clock, beat=pulse.beat, recovery=recovery,
        offline=Offline(receipts=receipts, memory=memory, book=book, sealer=sealer, denies=denies),
    )  # fmt: skip
    admission = Admission(
        farm=farm, node=node, standing=standing, book=book, debts=debts, departure=departure, seats=seats,
        errands=errands, pulse=pulse,
    )  # fmt: skip
    upkeep = Upkeep(
        pulse=pulse, standing=standing, book=book, debts=debts, departure=departure, seats=seats, turns=turns,
        errands=errands, reacquire=reacquire, vigil=vigil, recovery=recovery,
    )  # fmt: skip
    ring = RingCare(
        path=config.keys.file, node=node, sealer=sealer, vault=SealStore(farm.store.connection, farm.name),
        journal=journal, book=book, receipts=receipts, debts=debts, standing=standing, memory=memory, clock=clock,
        every_ms=config.agent.heartbeat_ms, store_timeout_ms=config.store.timeout_ms,
    )  # fmt: skip
    presence = Presence(
        nodes=NodeStore(farm.store.connection, farm.name), node=node, listen=config.health.listen, journal=journal,
        book=book, sealer=sealer,
    )  # fmt: skip
    condition = Condition(
        journal=journal, standing=standing, book=book, debts=debts, receipts=receipts, memory=memory,
        recovery=recovery, presence=presence, ring=ring, offline_denies=denies,
    )  # fmt: skip
    agent = Agent(
        store=farm.store, standing=standing, book=book, debts=debts, memory=memory, recovery=recovery, turns=turns,
        errands=errands, reacquire=reacquire, vigil=vigil, departure=departure, pulse=pulse, presence=presence,
        admission=admission, upkeep=upkeep, condition=condition, clock=clock, metrics=metrics,
        heartbeat_ms=config.agent.heartbeat_ms,
    )  # fmt: skip
    rounds = Rounds(
        store=farm.store, journal=journal, standing=standing, memory=memory, pulse=pulse, presence=presence,
        upkeep=upkeep, ring=ring, metrics=metrics,
    )  # fmt: skip
    return Node(
        agent=agent, rounds=rounds, standing=standing, journal=journal, memory=memory, receipts=receipts,
        reacquire=reacquire, metrics=metrics,
    )  # fmt: skip
