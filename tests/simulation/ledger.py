"""A second opinion on every answer of the store: a plain model of each pool, told what was carried out.

It uses ``tests/support/farm_model.py``, which shares nothing with the scripts, and none of farmlease's decisions. Each script
that was carried out is also carried out on the model; where answer or contents differ, a law is broken, and which one
is told by what differs. When the store loses writes, or nodes restore what they have, the model takes over what the
store holds then (``contents.py``): it says what the store's own contents demand. Whether those are what users were told
is judged elsewhere (``laws.py``).
"""

import json
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.contents import changes, take_over
from tests.simulation.memory import Memory
from tests.simulation.naming import HostNames
from tests.simulation.server import Carried
from tests.support.farm_model import INF, Model, Rules

__all__ = ["Account", "Key", "Ledger", "parse_rules"]

Key = tuple[str, str, str]  #: user index, node#incarnation, session
Complain = Callable[[str, str], None]

#: Scripts, and answers, after which what is over may still lie in the store: nothing was counted.
_LOOK_ONLY = frozenset({"heartbeat", "look_up", "list", "configure", "recover", "readmit", "rename_node"})
_BEFORE_ANYTHING = frozenset({"lapsed", "configure", "policy", "strange", "none", "gone", "recovering"})
#: Answers before which nothing was ended either, whatever the clock says.
_NOTHING_ENDED = frozenset({"lapsed", "configure", "policy"})
#: Scripts that change no claim.
_NO_CLAIMS = frozenset(
    {"count", "damaged", "missing", "nodes", "peek", "rebuild", "restored", "sealed", "sessions", "tombstones"}
)
#: Scripts after which the store's contents are taken over as they are.
_TAKEN_OVER = frozenset({"put_back", "recover", "restore"})


@dataclass(slots=True)
class Account:
    """What the ledger knows of one pool."""

    model: Model
    version: int = 0
    versions: dict[str, int] = field(default_factory=dict)  #: user to version of the record
    #: Sessions that ended for a reason every holder has to accept, by key: the highest fence that ended.
    ended: dict[Key, int] = field(default_factory=dict)
    #: Until when each node's sessions live for sure, in seconds of the run: its last heartbeat that was carried out.
    heard: dict[str, float] = field(default_factory=dict)
    #: By seat, when it was taken last: the fence it was taken with, and how many seats were allowed then.
    admitted: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: The longest hold that each session was given, by key and fence.
    holds: dict[tuple[Key, int], float] = field(default_factory=dict)


def parse_rules(limits: str) -> Rules:
    """Return the rules of a pool from what ``configure`` was given."""
    found = json.loads(limits)
    return Rules(
        kind=found["kind"], share=found["share"], capacity=found["capacity"], overdraft=found["overdraft"],
        devices=found["devices_per_user"], sessions=found["sessions_per_user"], lease=found["lease_ms"],
        quarantine=found["quarantine_ms"], linger=found["linger_ms"], max_hold=found["max_hold_ms"],
        queue=found["queue_ms"] > 0, reserve=json.loads(found["reserve"] or "{}"), limit=json.loads(found.get("limit") or "{}"),
        timeout=found["session_timeout_ms"],
    )  # fmt: skip


class Ledger:
    """The accounts of a farm. ``complain`` is called with the number of a law and what was seen.

    ``goes_on`` says whether a session lives on a host that could tell the store so; ``vouches``, whether a host has a
    session of a user that only a receipt let in; ``owes_end``, whether a node has ended one and has no answer to that.
    """

    def __init__(
        self,
        memory: Memory,
        complain: Complain,
        goes_on: Callable[[str, Key], bool],
        vouches: Callable[[str, str], bool],
        owes_end: Callable[[str, str, str], bool],
        names: HostNames,
    ) -> None:
        self._memory = memory
        self._names = names
        self._complain = complain
        self._goes_on = goes_on
        self.vouches = vouches
        self._owes_end = owes_end
        self.pools: dict[str, Account] = {}
        self.judging = True
        self.clock_is_sound = True  #: it was never set, and never stood still
        self.is_whole = True  #: the store has lost nothing so far, and its clock is what it was

    def hear(self, carried: Carried) -> None:
        """Carry on the model what was carried out, and compare."""
        if not carried.pool or carried.name in _NO_CLAIMS:
            return
        account = self.pools.get(carried.pool)
        if account is None:
            if carried.name != "configure":
                return
            account = self.pools[carried.pool] = Account(
                Model(parse_rules(carried.arguments["limits"]), carried.now_ms)
            )
        self._apply(account, carried)
        quiet = carried.name in _LOOK_ONLY or carried.word in _BEFORE_ANYTHING or self._in_doubt(account, carried)
        if self.judging and not quiet:
            self._compare_contents(account, carried)

    def lost(self) -> None:
        """The store lost writes, and so do the models; who had a seat is not told by that.

        Where an end was lost, the session is counted again, and whoever still has it may go on.
        """
        self.is_whole = False
        for pool, account in self.pools.items():
            take_over(account, self._memory, pool, self._names)
            for key in account.model.sessions:
                account.ended.pop(key, None)

    def turned_back(self) -> None:
        """The store's clock was set back: what was over and still lies in the store is not over any more."""
        self.clock_set()
        for pool, account in self.pools.items():
            take_over(account, self._memory, pool, self._names)

    def clock_set(self) -> None:
        """The store's clock leapt or stands still."""
        self.clock_is_sound = self.is_whole = False

    def now_ms(self, pool: str, clock_ms: int) -> int:
        """The time that scripts go by: behind the server's clock by as much as that was found to be ahead."""
        meta = self._memory.fields(f"fl:{{citrix-a/{pool}/0}}:meta".encode())
        return clock_ms - int(meta.get(b"skew", 0))

    # --- one script ---------------------------------------------------------------------------------------------------

    def _apply(self, account: Account, carried: Carried) -> None:
        if carried.word == "strange":
            return
        taken_over = carried.name in _TAKEN_OVER or self._in_doubt(account, carried)
        known = carried.name == "configure" and int(carried.arguments["policy"]) <= account.version
        if known or carried.word in _NOTHING_ENDED:
            account.model.now = self.now_ms(carried.pool, carried.now_ms)
        elif not taken_over:
            self._pass(account, carried)
        before = {key: each.fence for key, each in account.model.sessions.items()}
        if taken_over:
            self._take_over(account, carried, before.keys())
        judge = None if taken_over else getattr(self, f"_{carried.name}", None)
        expected = judge(account, carried, carried.arguments) if judge else None
        self._note_ended(account, before)
        if self.judging and expected is not None and expected != carried.answer[: len(expected)]:
            law = _law_of(carried.name, expected, carried.answer)
            self._complain(
                law, f"{carried.name} answered {_plain(carried.answer)}, its contents demand {_plain(expected)}"
            )

    def _take_over(self, account: Account, carried: Carried, before: AbstractSet[Key]) -> None:
        """The model becomes what the store holds; L11: in a store that lost nothing, a restore has changed nothing."""
        is_whole = carried.name == "restore" and self.is_whole
        if is_whole and not self._in_doubt(account, carried):
            self._pass(account, carried)
        known, held, slots = account.model, account.model.held(), self._slots(account, carried)
        take_over(account, self._memory, carried.pool, self._names)
        account.model.now = self.now_ms(carried.pool, carried.now_ms)
        for key in account.model.sessions.keys() - before:
            account.ended.pop(key, None)  # it is counted again: who was told so may rely on it
        # Who was let in by a receipt is counted by this for the first time.
        counts = is_whole and self.vouches(carried.pool, carried.arguments["user"])
        # In the window a node's silence is forgiven: nobody can tell whether the store lost its last beats.
        given = carried.arguments
        counts = counts or any(
            (node, user, reason) == (given["node"], given["user"], "timeout")
            for node, _, user, _, reason in known.words
            if carried.name == "restore"
        )
        # A late copy counts again what ended since, until its node's next heartbeat: of its user, and of nobody else.
        # So does a node that has no answer to an end, until it has one.
        late = is_whole and (not carried.awaited or self._owes_end(given["node"], carried.pool, given["user"]))
        own = given["user"] if late else ""
        _take_longer_holds(account, known)
        heard = carried.name == "restore" and carried.word not in _BEFORE_ANYTHING | {"more"}
        if heard and given["node"] in known.nodes:  # it is in contact, as by a heartbeat
            known.nodes[given["node"]] = account.model.now + account.model.rules.timeout
        if is_whole and not counts and (what := changes(known, account.model, but_of=own)):
            self._complain("L11", f"{carried.by} restored what was not lost: {what}")
        if carried.name == "restore":
            taken = account.model.held().keys() - held.keys()
            self._admit(account, carried.arguments["user"], taken, account.model.fence, slots)
        if carried.word in {"recovering", "restored"}:
            account.heard[carried.arguments["node"]] = carried.at + account.model.rules.timeout / 1000

    def _in_doubt(self, account: Account, carried: Carried) -> bool:
        """Whether a script came from somebody who does not count the time, when nobody has for half a timeout.

        It ends nothing, be it over or not: the clock may have leapt.
        """
        meta = self._memory.fields(f"fl:{{citrix-a/{carried.pool}/0}}:meta".encode())
        sure = max(int(meta.get(b"vouched", 0)), int(meta.get(b"taken", 0)))
        silent = self.now_ms(carried.pool, carried.now_ms) - sure > account.model.rules.timeout / 2
        return b"vouched" in meta and silent and not int(carried.arguments.get("expected", 0))

    def _pass(self, account: Account, carried: Carried) -> None:
        """Let time pass on the model: sessions of nodes that were silent for too long, by a true clock, are over."""
        before = {key: each.fence for key, each in account.model.sessions.items()}
        account.model.now = self.now_ms(carried.pool, carried.now_ms)
        account.model.settle()
        gone = {key: fence for key, fence in before.items() if key not in account.model.sessions}
        early = sorted(key for key in gone if account.heard.get(key[1], 0) > carried.at + 1)
        if carried.name != "configure" and any(
            self._goes_on(carried.pool, key) for key in early
        ):  # which ends nothing in a strange store
            self._complain("L5", f"{carried.name} ended {len(early)} sessions of {carried.pool} before their deadline")
        self._note_ended(account, {key: fence for key, fence in gone.items() if key not in early})

    def _note_ended(self, account: Account, before: dict[Key, int]) -> None:
        if len(before) > len(account.model.sessions) or before.keys() - account.model.sessions.keys():
            for key, fence in before.items():
                if key not in account.model.sessions:
                    account.ended[key] = max(fence, account.ended.get(key, 0))

    def _configure(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        version = int(given["policy"])
        if version > account.version:
            account.version = version
            account.model.rules = parse_rules(given["limits"])
        del carried
        return [b"configured", b"%d" % account.version]

    def _behind(self, account: Account, given: dict[str, str]) -> list[bytes] | None:
        version = int(given["policy"])
        if account.version < version:
            return [b"configure"]
        return [b"policy"] if account.version > version else None

    def _acquire(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        if behind := self._behind(account, given):
            return behind
        model, user, key = account.model, given["user"], (given["node"], given["session"])
        if model.nodes.get(given["node"], 0) <= account.model.now or self._is_new_name(carried):
            return [b"lapsed"]
        known = model.sessions.get((user, *key))
        again = known is not None and known.device == given["device"]
        if not again and (waits := self._recovering(account, carried)):
            return waits
        has_lease = user in model.leases
        held, slots = model.held(), self._slots(account, carried)
        before = {**model.sessions}
        told = model.acquire(
            user, key, given["device"], fresh=given["lease"], vips=tuple(json.loads(given["reservations"])),
            wait=int(given["wait"]),
        )  # fmt: skip
        if isinstance(told, int):
            return [b"waiting", b"%d" % told]
        if len(told) == 2:
            reason, retry = told
            self._explained(account, carried, before)
            return [b"denied", reason.encode(), b"" if retry == INF else b"%d" % retry]
        lease, fence, expires, overdraft = told
        if not has_lease:
            account.versions[user] = 1
        if not again:
            taken, left = model.held().keys() - held.keys(), held.keys() - model.held().keys()
            for seat, given_up in zip(sorted(taken), sorted(left), strict=False):  # of a move: as many as before
                account.admitted[seat] = account.admitted.get(given_up, (fence, 0))
                taken -= {seat}
            self._admit(account, user, taken, fence, slots)
        account.ended.pop((user, *key), None) if account.ended.get((user, *key), 0) < fence else None
        if carried.word == "moved":
            self._held_on(carried, "/".join(key), model.sessions[user, *key].hold)
        return [
            b"again" if again else b"moved" if known else b"granted", lease.encode(), carried.answer[2] if len(carried.answer) > 2 else b"",
            b"%d" % expires, b"%d" % fence, b"%d" % account.versions[user],
            carried.answer[6] if len(carried.answer) > 6 else b"", b"1" if overdraft else b"0",
        ]  # fmt: skip

    def _is_new_name(self, carried: Carried) -> bool:
        """Whether the store does not know yet that the host of this life is called so."""
        known = self._memory.scores(f"fl:{{citrix-a/{carried.pool}/0}}:nodes".encode())
        return "called" in carried.arguments and carried.arguments["called"].encode() not in known

    def _held_on(self, carried: Carried, session: str, hold: float) -> None:
        """L5: a session that moves to another device is held for as long as it was."""
        found = json.loads(self._names.read(carried.answer[9].decode()))["sessions"][session].get("hold", 0)
        if self.judging and found != hold:
            self._complain("L5", f"a session that moved is held until {found}, and was held until {hold:.0f}")

    def _recovering(self, account: Account, carried: Carried) -> list[bytes] | None:
        """In a recovery window nobody new is let in."""
        model, given = account.model, carried.arguments
        meta = self._memory.fields(f"fl:{{citrix-a/{carried.pool}/0}}:meta".encode())
        until, member = int(meta.get(b"recovering", 0)), (given["user"], given["node"], given["session"])
        if until <= model.now:
            return None
        if int(given["wait"]) and model.rules.queue:
            ahead = len(model.queue)
            if not isinstance(model.wait_for(member, int(given["wait"])), int):
                return [b"denied", b"user_limit", b""]
            return [b"waiting", b"%d" % ahead]
        model.leave_queue(member)
        return [b"denied", b"recovering", b"%d" % until]

    def _slots(self, account: Account, carried: Carried) -> frozenset[str]:
        """Return the devices of the lease that a script is about."""
        return frozenset(account.model.devices(carried.arguments["user"]) if "user" in carried.arguments else ())

    def _admit(self, account: Account, user: str, taken: AbstractSet[str], fence: int, slots: AbstractSet[str]) -> None:
        """L1: what was granted, or restored, took nothing beyond a limit: seats, devices, sessions.

        A seat that is restored is taken once more: by the limits of now, not by those it was granted under. A lease
        may stay on as many devices as it had, ``slots``, though the limit is lower by now, and on those in use.
        """
        model, rules = account.model, account.model.rules
        held, most = model.held(), rules.capacity + rules.overdraft
        account.admitted.update((seat, (fence, most)) for seat in taken)
        if not self.judging:
            return
        if taken and rules.kind != "node_locked" and len(held) > most:
            self._complain("L1", f"{len(held)} seats are held of {rules.capacity} and {rules.overdraft} beyond")
        for limit, allowed in rules.limit.items():
            counted = {
                seat for lease in model.leases.values() for seat, limits in lease.counted.items() if limit in limits
            }
            if counted & taken and len(counted & held.keys()) > allowed:
                self._complain("L1", f"{len(counted & held.keys())} seats count in a limit of {allowed}")
        if rules.sessions and len(model.of(user)) > rules.sessions:
            self._complain("L1", f"a user has {len(model.of(user))} sessions of {rules.sessions}")
        devices = model.devices(user)
        most = max(rules.devices, len(slots), sum(until == INF for until in devices.values()))
        if rules.kind == "named" and rules.devices and len(devices) > most and devices.keys() - slots:
            self._complain("L1", f"a lease is on {len(model.devices(user))} devices of {rules.devices}")
        if len(model.of(user)) > rules.most_uses or len(model.devices(user)) > rules.most_devices:
            self._complain("L1", "a user has more uses or devices than any user may have")

    def _explained(self, account: Account, carried: Carried, sessions: dict[Key, Any]) -> None:
        """L8: what blocks a user are the user's own claims, all of them, and nobody else's."""
        if not self.judging or carried.word != "denied":
            return
        reason, blocking = carried.answer[1].decode(), json.loads(carried.answer[5])
        user = carried.arguments["user"]
        if reason == "device_limit" or (reason == "user_limit" and "device" in str(blocking)):
            own = {(name, None if until == INF else until) for name, until in account.model.devices(user).items()}
            if {(each["device"], each.get("until")) for each in blocking} != own:
                self._complain("L8", f"{blocking} are said to block, {sorted(own, key=str)} do")
        elif reason == "session_limit" or (reason == "user_limit" and blocking):
            mine = sorted((key[1].partition("#")[0], key[2]) for key in sessions if key[0] == user)
            if sorted((self._names.first(each["node"]), each["session"]) for each in blocking) != mine:
                self._complain("L8", f"{blocking} are said to block, {mine} do")
        elif blocking:
            self._complain("L8", f"{blocking} are said to block in a denial for {reason}")

    def _heartbeat(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        if behind := self._behind(account, given):
            return behind
        model, node = account.model, given["node"]
        if self._left_its_name(carried):
            return None
        if given["previous"]:
            model.boot(given["previous"], node)
        model.nodes[node] = account.model.now + model.rules.timeout
        account.heard[node] = carried.at + model.rules.timeout / 1000
        words = {
            (session.encode(), user.encode(), b"%d" % fence, reason.encode())
            for session, user, fence, reason in model.words_for(node)
        }
        told = carried.answer[12:]
        if self.judging and carried.word == "alive" and set(zip(*(iter(told),) * 4, strict=True)) != words:
            self._complain("L4", f"{node} was told it lost {_plain(told)}, and lost {_plain(sorted(words))}")
        return [b"alive", b"%d" % model.nodes[node], b"%d" % model.on_node(node)]

    def _left_its_name(self, carried: Carried) -> bool:
        """Whether it is a late copy of what a host asked before its sessions went over to its present name."""
        called = carried.arguments.get("called", carried.arguments["node"])
        present = self._names.present(called)
        known = self._memory.scores(f"fl:{{citrix-a/{carried.pool}/0}}:nodes".encode())
        return present != called and present.encode() in known

    def _release(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        del carried
        key, fence = (given["user"], given["node"], given["session"]), int(given["fence"])
        claim = account.model.sessions.get(key)
        account.model.release(given["user"], key[1:], fence)
        if claim is None:
            return [b"gone"]
        return [b"stale", b"%d" % claim.fence] if claim.fence > fence else [b"released"]

    def _rename(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        model, old, new = account.model, given["old"], given["new"]
        until = int(self._memory.fields(f"fl:{{citrix-a/{carried.pool}/0}}:meta".encode()).get(b"recovering", 0))
        if until > model.now:
            return [b"recovering", b"%d" % until]
        lease = model.leases.get(old)
        if lease is not None and lease.id == given["lease"] and account.versions[old] != int(given["version"]):
            return [b"changed"]
        answer = model.rename(old, new, given["lease"])
        if answer == "renamed" and lease is not None:
            account.versions[new] = account.versions.pop(old)
            account.admitted.update((seat, account.admitted.get(old, (0, 0))) for seat in model.seats_of(new))
        return [answer.encode()]

    def _hold(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        del carried
        claim = account.model.sessions.get((given["user"], given["node"], given["session"]))
        if claim is None:
            return [b"gone"]
        if claim.fence != int(given["fence"]):
            return [b"stale", b"%d" % claim.fence]
        claim.hold = account.model.now + min(int(given["span"]), account.model.rules.max_hold)
        given_to = (given["user"], given["node"], given["session"]), claim.fence
        account.holds[given_to] = max(claim.hold, account.holds.get(given_to, 0))
        return [b"held", b"%d" % claim.hold]

    def _save(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        lease, version = account.model.leases.get(given["user"]), int(given["version"])
        if lease is None or lease.id != given["lease"]:
            return [b"gone"]
        known = account.versions[given["user"]]
        if known == version - 1:
            account.versions[given["user"]] = version
            return [b"saved", b"%d" % version]
        # Whether these very bytes were saved before, the contents say.
        return [b"saved"] if known == version and carried.word == "saved" else [b"conflict", b"%d" % known]

    def _withdraw(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        del carried
        told = account.model.withdraw(given["user"], given["reason"]) if account.version else None
        if told is None:
            return [b"none"]
        return [b"withdrawn", *(b"" if until is None else b"%d" % until for until in told)]

    def _put_back_record(self, account: Account, carried: Carried, given: dict[str, str]) -> None:
        if carried.word == "put":  # a later one that the store had, and lost
            account.versions[given["user"]] = int(given["version"])

    def _readmit(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        until = account.model.readmit(given["user"]) if account.version else None
        meta = self._memory.fields(f"fl:{{citrix-a/{carried.pool}/0}}:meta".encode())
        account.model.fence = int(meta.get(b"fence", 0))  # of a revocation too that only other nodes know of
        return None if until is None else [b"readmitted"]

    def _release_device(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        del carried
        word, until = account.model.release_device(given["user"], given["device"])
        return [word.encode(), *([b"" if until is None else b"%d" % until] if word == "released" else [])]

    def _replace_device(self, account: Account, carried: Carried, given: dict[str, str]) -> list[bytes] | None:
        del carried
        word, until = account.model.replace_device(
            given["user"], given["old"], given["new"], override=given["override"] == "1"
        )
        return [word.encode(), *([b"%d" % until] if until is not None else [])]

    # --- the contents -------------------------------------------------------------------------------------------------

    def _compare_contents(self, account: Account, carried: Carried) -> None:
        """The store's own sets hold exactly the claims that are alive, until exactly their deadlines."""
        tag = f"fl:{{citrix-a/{carried.pool}/0}}:".encode()
        scores, now = self._memory.scores, account.model.now
        counted = [
            (self._names.read(member.decode()), score)
            for member, score in scores(tag + b"seats").items()
            if score > now
        ]
        seats = dict(counted)
        if len(seats) < len(counted):
            self._complain("L3", f"after {carried.name} a seat is counted under two names of its host: {counted}")
        held = account.model.held()
        if seats != held:
            surplus = seats.keys() - held.keys()
            law = "L3" if surplus else "L5"
            self._complain(law, f"after {carried.name} the store holds seats {seats}, alive are {held}")
        nodes, holds = scores(tag + b"nodes"), scores(tag + b"holds")
        alive = set()
        for member in scores(tag + b"sessions"):
            if member[:1] != b"#":
                node, _, rest = member.partition(b"/")
                session, _, user = rest.rpartition(b"/")
                if nodes.get(node, 0) > now or holds.get(member, 0) > now:
                    key = user.decode(), self._names.read(node.decode()), session.decode()
                    if key in alive:
                        self._complain(
                            "L3", f"after {carried.name} session {key} is counted under two names of its host"
                        )
                    alive.add(key)
        if alive != account.model.sessions.keys():
            law = "L3" if alive - account.model.sessions.keys() else "L5"
            known = sorted(account.model.sessions)
            self._complain(law, f"after {carried.name} the store has sessions {sorted(alive)}, alive are {known}")


def _take_longer_holds(account: Account, known: Model) -> None:
    """An agent killed between a shorter hold and its answer knows the one before only: the later of both counts."""
    for key, each in account.model.sessions.items():
        before = known.sessions.get(key)
        if before is not None and before.hold < each.hold <= account.holds.get((key, each.fence), 0):
            before.hold = each.hold


def _law_of(name: str, expected: list[bytes], answer: list[Any]) -> str:
    """Which law an unexpected answer breaks."""
    wanted, got = expected[0], answer[0]
    if name == "acquire":
        if wanted == b"again" or got == b"again":
            return "L3"
        if got == b"granted":
            return "L5" if wanted == b"granted" else "L4" if wanted == b"lapsed" else "L1"
        return "L8" if wanted == got else "L5"
    return {"release": "L4", "heartbeat": "L4", "save": "L7"}.get(name, "L5")


def _plain(words: Any) -> str:
    return " ".join(word.decode("ascii", "replace")[:40] if isinstance(word, bytes) else str(word) for word in words)
