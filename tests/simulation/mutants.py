"""Farmlease broken on purpose: each mutant is one deliberate defect, and the simulation has to catch every one.

``python -m tests.simulation.mutants`` lives seeds until a law breaks and prints which, and after how many seeds. A few
are caught by no seed, for a reason that README.md gives: for those it runs the test of pytest that catches them. A
mutant whose words are no longer in the production code fails at once: it would prove nothing.
"""

import argparse
import gc
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

from farmlease.domain import offline_rules
from farmlease.domain.tombstones import Graves
from farmlease.errors import StoreUnavailable
from farmlease.node.agent import Agent
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.outbox import Message, Outbox
from farmlease.node.journal.receipts import Receipts
from farmlease.node.journal.sessions import SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.sessions import acquire
from farmlease.node.sessions.acquire import SeatAcquisition
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.grant import Granting
from farmlease.node.sessions.housekeeping import Housekeeping
from farmlease.node.sessions.pool_order import PoolOrder
from farmlease.node.sessions.reacquire import Reacquisition
from farmlease.node.sessions.start import SessionStart
from farmlease.node.sync.heartbeat import Heartbeat
from farmlease.node.sync.outbox_delivery import OutboxDelivery
from farmlease.node.sync.recovery import Recovery
from farmlease.node.sync.renamed_node import RenamedNode
from farmlease.node.sync.taken_back import TakenBack
from farmlease.store.connection.connection import Connection
from tests.simulation.by_test import catches, scripts_that_say
from tests.simulation.life import run, uncollected
from tests.simulation.series import processes
from tests.simulation.server import scripts
from tests.simulation.world import World

__all__ = ["MUTANTS", "Caught", "Mutant", "hunt"]

_TAKEN_BACK, _TOMBSTONES = "tests/node/sync/test_taken_back.py", "tests/store/test_tombstones.py"

#: Seeds after which what their runs left behind is collected.
_TOGETHER = 10


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect. ``changes`` makes the context in which the code has it; ``prepare`` changes one world."""

    name: str
    what: str
    changes: Callable[[], Any]
    prepare: Callable[[World], None]
    profile: str = "usual"
    conditions: Callable[[World], None] = lambda _: None  #: of the world, with the defect and without it
    test: str = ""  #: of pytest, which catches it instead of seeds


@dataclass(frozen=True, slots=True)
class Caught:
    """What caught a mutant: the law, or "test", and how many seeds that took; no law if nothing did."""

    name: str
    law: str
    seeds: int
    what: str


def lua(name: str, what: str, old: str, new: str, profile: str = "usual") -> Mutant:
    """Return the mutant that says ``new`` for ``old`` wherever a script has it."""

    def rewrite(_: str, text: str) -> str:
        return text.replace(old, new)

    def prepare(world: World) -> None:
        world.server.rewrite = rewrite

    @contextmanager
    def changes() -> Iterator[None]:
        assert any(old in each.text for each in scripts().values()), f"{name}: no script says {old!r}"
        yield

    return Mutant(name, what, changes, prepare, profile)


def hasty(mutant: Mutant) -> Mutant:
    """Return the mutant on nodes that restore at once: in the random moment that they wait, the others come as well."""

    @contextmanager
    def changes() -> Iterator[None]:
        with mutant.changes(), patch("farmlease.node.sync.recovery.JITTER", 0.0):
            yield

    return replace(mutant, changes=changes)


def together(mutant: Mutant, other: Mutant) -> Mutant:
    """Return the mutant that has the defect of another one too: where one thing is guarded twice, both guards fall."""

    @contextmanager
    def changes() -> Iterator[None]:
        with mutant.changes(), other.changes():
            yield

    def prepare(world: World) -> None:
        mutant.prepare(world)
        other.prepare(world)

    return replace(mutant, changes=changes, prepare=prepare)


def among(mutant: Mutant, **shares: float) -> Mutant:
    """Return the mutant in worlds where these faults (``_`` for each space) come often, whatever the mood."""

    def conditions(world: World) -> None:
        for name, share in shares.items():
            world.mood.often(name.replace("_", " "), share)

    return replace(mutant, conditions=conditions)


def shown(mutant: Mutant, test: str) -> Mutant:
    """Return the mutant that this test of pytest catches, and no seed."""
    return replace(mutant, test=test)


def served(name: str, what: str, old: str, new: str, test: str) -> Mutant:
    """Return the mutant that says ``new`` for ``old`` in the scripts of the servers of this test of pytest."""
    return Mutant(name, what, partial(scripts_that_say, old, new), _as_it_is, test=test)


def python(name: str, what: str, owner: Any, method: str, old: str, new: str, profile: str = "usual") -> Mutant:
    """Return the mutant that says ``new`` for ``old`` in the source of a method."""

    @contextmanager
    def changes() -> Iterator[None]:
        original = inspect.unwrap(owner.__dict__[method])
        source = textwrap.dedent(inspect.getsource(original))
        assert old in source, f"{name}: {owner.__name__}.{method} does not say {old!r}"
        found: dict[str, Any] = {}
        exec(compile(source.replace(old, new), f"<{name}>", "exec"), original.__globals__, found)  # noqa: S102 - our own source
        with patch.object(owner, method, found[method]):
            yield

    return Mutant(name, what, changes, _as_it_is, profile)


def swapped(name: str, what: str, owner: Any, method: str, instead: Any, profile: str = "usual") -> Mutant:
    """Return the mutant that has another method."""

    @contextmanager
    def changes() -> Iterator[None]:
        assert method in owner.__dict__, f"{name}: {owner.__name__} has no {method}"
        with patch.object(owner, method, instead):
            yield

    return Mutant(name, what, changes, _as_it_is, profile)


def module(name: str, what: str, owner: Any, function: str, instead: Any, profile: str = "usual") -> Mutant:
    """Return the mutant whose module has another function."""

    @contextmanager
    def changes() -> Iterator[None]:
        assert hasattr(owner, function), f"{name}: {owner.__name__} has no {function}"
        with patch.object(owner, function, instead):
            yield

    return Mutant(name, what, changes, _as_it_is, profile)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _as_it_is(_: World) -> None:
    pass


def _time_of_hosts(world: World) -> None:
    clocks = {host.name: host.clock for host in world.hosts}
    world.server.clock_of = lambda by: clocks[by].now_ms() * 1000 if by in clocks else world.server.now_us


_call = Connection.call


async def _last_answer(self: Connection, script: Any, keys: Any, args: Any) -> Any:
    """Answer a call that failed with what the last one of the same script was answered."""
    answers = self.__dict__.setdefault("answers", {})
    try:
        answers[script.name] = await _call(self, script, keys, args)
    except StoreUnavailable:
        if script.name not in answers:
            raise
    return answers[script.name]


async def _nothing_unknown(*_: Any) -> tuple[list[Any], bool]:
    return [], True


async def _do_nothing(*_: Any) -> None:
    """Do nothing."""


def _write_nothing(_: StoreState, name: str, body: bytes) -> None:
    """Write nothing."""


_write = SessionTable._write


def _write_too_late(self: SessionTable, session: Any) -> None:
    """Show a session that starts, and write it down with its next change only."""
    if session.state.value == "active" and self._uses[session.key].state.value == "starting":
        self._uses[session.key] = session
    else:
        _write(self, session)


_messages = Outbox.messages


def _last_first(self: Outbox, after: int = 0) -> Iterator[tuple[int, Message]]:
    """Yield the messages that there are, the last one first."""
    yield from reversed(list(_messages(self, after)))


def _of_this_life(self: Outbox, after: int = 0) -> Iterator[tuple[int, Message]]:
    """Yield no message that an earlier life of the node had written."""
    life = "#" + self._journal.incarnation
    for number, message in _messages(self, after):
        if message.claim.node.endswith(life):
            yield number, message


async def _nothing_to_confirm(*_: Any) -> bool:
    return True


_adopt = Agent.adopt


def _adopt_without_outbox(self: Agent) -> None:
    self._state.journal._rows("DELETE FROM owed")
    _adopt(self)


#: A node that hears of what was taken back and keeps its receipts: one of the two guards against their return.
_DEAF = swapped("receipt kept", "A node hears that a lease was taken back, and keeps its receipt.", TakenBack, "_heed",
                _do_nothing)  # fmt: skip
#: The other one: a store that restores what was taken back.
_UNHEEDED = lua("taking unheeded", "A lease that was taken back is restored by whoever had it.",
        "if bar and bar > now and not is_after_bar or taken_since(graves, mine.id, last_known())", "if bar and bar > now")  # fmt: skip

MUTANTS = (
    Mutant("time of the host", "Scripts go by the caller's clock.", _nothing, _time_of_hosts),
    lua("seats beyond capacity", "One seat more than there are is given.",
        "local held, most = count_alive(SEATS), limits.capacity + limits.overdraft",
        "local held, most = count_alive(SEATS), limits.capacity + limits.overdraft + 1"),
    lua("limit forgotten", "A limit of the policy bounds nobody.",
        "if (used[id] or 0) >= most[id] then return counted, id, most[id] end", ""),
    lua("limit not charged", "A seat counts in no limit.", "counted = counted .. id\n", "\n"),
    lua("restored over a limit", "More seats are restored than a limit allows.",
        "if most[id] and (used[id] or 0) >= most[id] then return false end", "", "loss"),
    lua("readmitted in word only", "A revocation that was ended keeps its user out.",
        "call('ZREM', BARRED, user)\naudit('readmitted'", "audit('readmitted'"),
    lua("capacity ignored for who returns", "Who has a lease gets any further seat.",
        "if alive(SEATS, seat) then return charging.standing",
        "if alive(SEATS, seat) or next(lease.devices) then return charging.standing"),
    lua("devices not counted", "Any number of machines may use a lease.",
        "if count_of(lease.devices) < most then return nil end", "if true then return nil end"),
    lua("one session too many", "The limit of sessions is counted from 0.",
        "if count < most then return nil end", "if count <= most then return nil end"),
    lua("asked again, taken again", "The same question takes its seat anew.",
        "if moving and moving.device == device then\n", "if false then\n"),
    lua("counted without sweeping", "Sessions of dead nodes keep their seats.",
        "if sweep() then return { 'more' } end\nlocal lease, spelled = find_lease()",
        "local lease, spelled = find_lease()"),
    lua("seats never freed", "A seat whose last session ended stays taken.",
        "if not deadline then\n    call('ZREM', SEATS, seat)", "if not deadline then\n    if reservation then return end"),
    lua("quarantine forgotten", "A seat given back is free at once.",
        "math.min(lease['until'], lease.contact + limits.quarantine_ms)", "0"),
    lua("linger forgotten", "A floating seat is free with its last session.",
        "limits.kind == 'floating' and limits.linger_ms > 0", "false"),
    lua("revoked and back", "A revocation keeps nobody out.",
        "if bar then return denied('revoked', bar, 0, limits.capacity) end", ""),
    lua("held for ever", "A hold knows no longest time.",
        "now + math.min(tonumber(ARGV[5]), limits.max_hold_ms)", "now + 4000000000"),
    lua("deadline a second late", "A node may be silent a second longer than the policy says.",
        "call('ZADD', NODES, text(now + limits.session_timeout_ms), node)",
        "call('ZADD', NODES, text(now + limits.session_timeout_ms + 1000), node)"),
    lua("lease a minute short", "A named lease ends before its deadline.",
        "contact + limits.lease_ms\n", "contact + limits.lease_ms - 60000\n"),
    lua("lapsed node revived", "A heartbeat after the deadline brings the sessions back.",
        "if deadline and deadline <= now and terminate_of_node(node, 'timeout', SWEEP_SESSIONS) <= 0 then", "if false then"),
    lua("reboot forgotten", "The sessions of a host's last life go on.",
        "if previous ~= '' then", "if false then"),
    lua("no word left", "A node is not told what it lost.", "if reason then leave_notice", "if false then leave_notice"),
    lua("released without fence", "An old release ends a newer session.",
        "if claim.fence > fence then return { 'stale', text(claim.fence) } end", "", "late"),
    lua("fence stands still", "Two grants in one millisecond get one fence.",
        "local given = math.max(state.fence + 1, now)",
        "local given = now"),
    lua("saved over another's", "A record is stored without compare-and-set.",
        "if lease.version ~= version - 1 then", "if false then"),
    lua("blocking not said", "A denial names no devices.",
        "blocking[#blocking + 1] = { device = other, node = node_using(lease, other),",
        "blocking[#blocking + 1] = { device = '', node = node_using(lease, other),"),
    lua("no time to try again", "A denial does not say when the first seat falls free.",
        "deadline_of(first[2]) or math.huge, held", "math.huge, held"),
    lua("older policy obeyed", "Who goes by an older policy is not sent to read the new one.",
        "if limits.policy > version then return { 'policy' } end", ""),
    python("retried under a new name", "Each try of a start names another session.",
           SeatAcquisition, "ask_store", "version, claim, taking, known",
           "version, replace(claim, session=session.id + secrets.token_hex(2)), taking, known"),
    swapped("answered with another's answer", "A call without an answer gets the last one of its kind.",
            Connection, "call", _last_answer),
    lua("no recovery window", "A store that lost its data lets newcomers in at once.",
        "state.recovering = unused and 0 or now + window", "state.recovering = now", "loss"),
    lua("epoch not compared", "Nobody notices that the store lost its data.",
        "return (caller.epoch > 0 and caller.epoch ~= state.epoch) or caller.seen > state.fence\n"
        "    or (caller.life ~= state.life and not has_moved()) or", "return", "loss"),
    lua("first come, all in", "The window ends when the first node has restored.",
        "call('ZCOUNT', AWAITED, 0, 0) == 0", "true", "loss"),
    hasty(lua("rosters not awaited", "The window ends before every node that the others knew has restored.",
        "for _, other in ipairs(cjson.decode(ARGV[4])) do call('ZADD', AWAITED, 'NX', 0, other) end", "", "loss")),
    lua("hold lost at restore", "A session that is restored is held no longer.",
        "if known then\n      if known.fence", "claim.hold = nil\n    if known then\n      if known.fence", "loss"),
    swapped("memory not written", "A node's epochs, fences and rosters are forgotten with its agent.",
            StoreState, "_write", _write_nothing, "loss"),
    lua("restored over the limit", "What a node has is counted again, room or not.",
        "  return count_alive(SEATS) < limits.capacity + limits.overdraft\nend", "  return true\nend", "loss"),
    lua("clock believed", "A clock that leaps ahead ends what it leaps over.",
        "local ahead = now - caller.expected", "local ahead = math.min(0, now - caller.expected)", "time"),
    swapped("sessions not restored", "A node restores its leases, and not who uses them.",
            Recovery, "_living", lambda *_: {}, "loss"),
    swapped("leases not restored", "A node restores nothing at all.", Receipts, "of_pool", lambda *_: iter(()), "loss"),
    swapped("nothing given back", "What only the store counts for a node stays counted.",
            Recovery, "_unknown", _nothing_unknown, "late"),
    swapped("receipts never counted", "Who was let in by a receipt is not counted when the store is back.",
            SeatAcquisition, "count", _do_nothing),
    python("receipts never expire", "A receipt lets its user in after its lease has ended.",
           offline_rules, "admits", "not lease.has_ended(now)", "True"),
    swapped("debts forgotten at restart", "What was owed to the store is dropped when the agent starts.",
            Agent, "adopt", _adopt_without_outbox),
    swapped("answered before written", "A grant is told, and not yet in the journal.", SessionTable, "_write", _write_too_late),
    python("unfinished start kept", "What a killed agent had begun is not ended by the next one.",
           Housekeeping, "tidy", "if session.state is SessionState.STARTING:", "if False:"),
    python("word not heard", "The agent acknowledges a lost session and shows it as before.",
           Reacquisition, "_is_about", "session.state is SessionState.ACTIVE", "False"),
    python("any record will do", "A session starts on a record that does not open.",
           Granting, "by_store", "except (RecordRejected, FileRefused, PolicyError) as error:",
           "except RecordRejected:\n            pass\n        except (FileRefused, PolicyError) as error:"),
    python("same life after a reboot", "A rebooted host takes itself for the old one.",
           Journal, "_identify", 'same_boot(known["boot"], self._here.boot)', "True"),
    python("differences not looked into", "Sessions that the store forgot are not asked about.",
           Heartbeat, "_compare", "if counts[0] == counts[1]:", "if True:", "all"),
    python("ends not delivered", "An end is struck off before the store took it.",
           SessionEnd, "_give_back", "self._outbox.add(", "(lambda _: None)("),
    python("second program ends the first", "A start ends what its session has of other pools.",
           SessionStart, "_ask", "self._end(each for each in uses if each.user != request.user)",
           "self._end(each for each in uses if each.user != request.user or each.pool != request.pool)"),
    python("id shared by two users", "What the last user of a session id had goes on beside the next one's.",
           SessionStart, "_ask", "self._end(each for each in uses if each.user != request.user)", "self._end(())"),
    python("one use ended of many", "The end of a session ends the first of its uses only.",
           SessionEnd, "_end_session", "for each in uses:", "for each in uses[:1]:"),
    python("one pool's end ends all", "The end of one use ends the whole session.",
           SessionEnd, "_end_session", "if pool in (None, each.pool)", "if True"),
    python("order of the list", "A named seat that the user has is not tried first.",
           PoolOrder, "seated_first", "return tuple(sorted(pools, key=lambda pool: pool.name not in seated))", "return pools"),
    lua("seat left behind", "A session that moves to another device keeps its old seat too.",
        "if moving and (moving.seat or user) ~= seat then store_lease(user, lease, moving.seat or user) end", ""),
    lua("moved over the limit", "A session may move to any number of devices.",
        "local denial = over_device_limit(lease) or not moving and over_session_limit(lease)",
        "local denial = not moving and (over_device_limit(lease) or over_session_limit(lease))"),
    lua("move told as a grant", "A session that moves is answered as if it had taken a seat.",
        "return granted(moving and 'moved' or 'granted'", "return granted('granted'"),
    lua("move counted as one more", "A session that moves counts against the limit of sessions once more.",
        "not moving and over_session_limit(lease)", "over_session_limit(lease)"),
    lua("moved with a new fence", "A move gives a later fence, and the end of the grant before ends nothing.",
        "local fence = moving and moving.fence or", "local fence ="),
    python("another use's end", "The store's word for the end of one use closes another.",
           OutboxDelivery, "_close", "self._sessions.find(message.claim.session, message.pool)",
           "next(iter(self._sessions.of_session(message.claim.session)), None)"),
    among(lua("restored over the devices", "A lease is restored with all devices that anybody knew, however many.",
        "within_device_limit(lease)\nif fresh", "if fresh", "loss"), policy_changed=8, flushed=6),
    together(together(lua("restored though returned", "A lease that was given back is restored by whoever had it.",
        "if lease and lease.back and lease.contact >= mine.contact then return { 'ended' } end", "", "loss"), _UNHEEDED), _DEAF),
    lua("restored though kept out", "A user who is kept out gets the lease back by a restore.",
        "if bar and bar > now and not is_after_bar or taken_since(graves, mine.id, last_known())", "if taken_since(graves, mine.id, last_known())", "loss"),
    together(
        lua("fence not restored", "A restore leaves the fence as it was.",
            "state.fence = fence\nif bar and is_after_bar", "if bar and is_after_bar", "loss"),
        lua("fence not recovered", "A recovery leaves the fence as it was.",
            "call('HSET', META, 'fence', text(math.max(state.fence, caller.seen)))", "", "loss")),
    lua("later lease gives way", "Of two leases of a user the one issued earlier is restored.",
        "if lease and lease.id ~= mine.id and not is_later(mine, lease) then return { 'ended' } end", "", "loss"),
    swapped("debts out of order", "What a node owes the store is delivered last first.", Outbox, "messages", _last_first),
    swapped("a predecessor's debts", "What the host owes from before it was booted is not delivered.",
            Outbox, "messages", _of_this_life),
    swapped("receipt of an earlier life", "A receipt lets in after its host was booted.",
            Receipts, "is_of_this_life", lambda *_: True),
    hasty(module("old copy's grant", "A grant of an old copy of the store is taken for the one that was asked for.",
                 acquire, "_is_old", lambda *_: False, "loss")),
    among(swapped("nobody asked", "A difference is looked into without asking for one's own sessions.",
                 Housekeeping, "_confirm", _nothing_to_confirm, "late"), reply_lost=0.25, duplicated_late=0.3),
    lua("over with its hold", "A hold that is over ends the session of a node that lives.",
        "if alive(NODES, node_of(member)) then\n      call('ZREM', HOLDS, member)", "if false then\n      call('ZREM', HOLDS, member)"),
    together(_UNHEEDED, _DEAF),
    lua("taken for good", "A lease that its user has again is not restored, as it was taken back once.",
        "if bar and bar > now and not is_after_bar or taken_since(graves, mine.id, last_known())", "if bar and bar > now or taken_with(graves, mine.id)", "loss"),
    lua("taken without a word", "A lease is taken back, and no node hears of it.", "bury(user, taken, next_fence())", ""),
    lua("nothing new", "A heartbeat never says that something was taken back.", "text(state.buried), missing()", "'0', missing()"),
    together(lua("released slot is back", "A restore brings a released device back as it was.",
        "if taken_since(graves, place .. '/', known) then", "if false then"), _DEAF),
    together(lua("replaced slot is back", "A restore brings back the device that another one has replaced.",
        "if taken_since(graves, place, known) then return nil end", ""), _DEAF),
    among(lua("kept out no more", "Who was kept out is not kept out by a store that had lost that.", "if claim == '/' then",
        "if claim == '/' then return { 'put' } end\n  if false then", "loss"), flushed=6, tail_lost=6),
    _DEAF,
    python("not put back", "A node does not tell a store that lost it what was taken back.",
           TakenBack, "recover", "if theirs.get(user, Graves({})).lacks(ours, now):", "if False:", "loss"),
    among(swapped("takings forgotten at restart", "What a node heard was taken back is forgotten with its agent.",
            Journal, "write_tombstones", lambda *_: None, "loss"), agent_killed=8, flushed=6),
    among(lua("moved without a word", "A lease moves to another name of its user, and no node hears of it.",
        "store_graves(old, graves)\n  if there", "if there", "names"), user_renamed=4, host_renamed=0.1),
    among(python("receipt under two names", "A node that has a receipt under both names keeps the one under the former.",
           TakenBack, "_heed", "if self._receipts.find(user, pool) is not None:", "if False:", "names"), user_renamed=6),
    among(swapped("former name forgotten", "A host that was renamed leaves its sessions under the former name.",
            RenamedNode, "take_over", _do_nothing, "names"), host_renamed=4),
    among(python("told under a name unknown", "An end is delivered before the store knows the new name of its host.",
           OutboxDelivery, "_release", "await self.renamed.take_over(message.pool, known)", "pass", "names"), host_renamed=4),
    served(
        "late beat of a former name",
        "A copy of a heartbeat makes a node of the former name of its host.",
        "if alive(NODES, FORMER .. node) then return { 'strange' } end",
        "",
        "tests/store/test_rename_node.py::test_what_comes_late_under_the_former_name_is_refused",
    ),
    shown(python("erased name in receipts", "A node that hears of an erased name keeps it in its receipt.",
        TakenBack, "_forget_name", "graves.takes_name(receipt.document)", "False"),
        f"{_TAKEN_BACK}::test_an_erased_name_leaves_a_receipt_that_is_kept_for_files"),
    served("erased name not put back", "What is put back leaves an erased name where the store has it again.",
        "if not is_later then call('HDEL', NAMES, user) end", "",
        f"{_TOMBSTONES}::test_what_is_put_back_is_taken_again"),
    served("put back over a grant", "What is put back takes a lease that was granted since.",
        "if lease and taken_since(graves, lease.id, last) then", "if lease and taken_with(graves, lease.id) then",
        f"{_TOMBSTONES}::test_what_was_granted_later_is_left_alone"),
    served("put back over sessions", "What is put back ends sessions that were granted since.",
        "if taken_since(graves, lease.id, session.fence) then return", "if taken_with(graves, lease.id) then return",
        f"{_TOMBSTONES}::test_what_was_granted_later_is_left_alone"),
    shown(python("late answer believed", "A late answer to an end takes the receipt of what was granted since.",
        Receipts, "renew", "if LeaseDocument.parse(receipt.document).fence > remains.fence:", "if False:"),
        f"{_TAKEN_BACK}::test_a_late_answer_to_an_end_takes_no_device_that_a_session_moved_to"),
    shown(swapped("taking not told", "A session that the store had lost is not told that its lease was taken.",
        Graves, "why_lost", lambda *_: None),
        f"{_TAKEN_BACK}::test_a_session_that_the_store_had_lost_is_told_that_its_lease_was_taken"),
    shown(python("word takes the receipt", "The word of one lost session takes the receipt of another's grant.",
        Reacquisition, "_lose", "self._receipts.take_back(lost.user, session.pool, lost.fence)",
        "self._receipts.give_up(lost.user, session.pool)"),
        f"{_TAKEN_BACK}::test_the_word_of_one_lost_session_leaves_the_receipt_of_a_later_grant"),
)  # fmt: skip


def hunt(name: str, seeds: int, events: int = 400) -> Caught:
    """Live seeds until a law breaks that holds without the mutant."""
    mutant = next(each for each in MUTANTS if each.name == name)
    if mutant.test:
        return Caught(name, "test" if catches(mutant.test, mutant.changes) else "", 0, mutant.test)
    for first in range(0, seeds, _TOGETHER):
        if caught := _hunt(mutant, range(first, min(first + _TOGETHER, seeds)), events):
            return caught
    return Caught(name, "", seeds, "")


@uncollected()
def _hunt(mutant: Mutant, seeds: range, events: int) -> Caught | None:
    def broken(world: World) -> None:
        mutant.conditions(world)
        mutant.prepare(world)

    for seed in seeds:
        with mutant.changes():
            outcome = run(seed, events=events, profile=mutant.profile, prepare=broken)
        laws = [each for each in outcome.violations if each.law != "run"]  # one that falls over shows nothing
        if laws and not run(seed, events=events, profile=mutant.profile, prepare=mutant.conditions).violations:
            first = laws[0]
            return Caught(mutant.name, first.law, seed + 1, first.what)
    return None


def main() -> int:
    """Hunt them all; exit status 1 if one got away."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds each mutant may live at most")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", help="the mutants whose name has this in it")
    given = parser.parse_args()
    for each in MUTANTS:
        with each.changes():  # all of them still say something else than the code
            pass
    names = [each.name for each in MUTANTS if not given.only or given.only in each.name]
    found: list[Caught] = []
    sys.stdout.write(f"{'mutant':34}  law    seeds\n")
    with processes(given.jobs, gc.enable, batches=1) as pool:
        for caught in pool.imap(partial(hunt, seeds=given.seeds), names):
            sys.stdout.write(
                f"{caught.name:34}  {caught.law or '-':5}  {caught.seeds:5}  {ascii(caught.what[:110])[1:-1]}\n"
            )
            sys.stdout.flush()
            found.append(caught)
    away = [caught.name for caught in found if not caught.law]
    sys.stdout.write(f"{len(found) - len(away)} of {len(found)} caught\n")
    return 1 if away else 0


if __name__ == "__main__":
    sys.exit(main())
