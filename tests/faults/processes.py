"""Real agent processes for the faults that only a process can have: kill -9 and SIGSTOP. Spoken to over HTTP.

What an agent says is only known by asking, so a seat counts as in use until the last question to which the answer was
that it is: who accuses an agent has its word.
"""

import asyncio
import http.client
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from farmlease.domain.identity import User
from tests.faults.history import History, Spell
from tests.faults.hosts import HEARTBEAT, PATIENCE, Answer, Plan
from tests.support.agents import Reply, RunningAgent
from tests.support.patience import turns, within

__all__ = ["Watched", "watched_agent"]

#: Seconds between two questions what an agent's sessions are.
ASK = 0.04


@dataclass(slots=True)
class Watched:
    """The agent of one node."""

    agent: RunningAgent
    plan: Plan
    history: History
    silence: float  #: seconds for which the store keeps a silent node
    silent: float = 0.0  #: seconds for which it did not run, at most
    down: asyncio.Event = field(default_factory=asyncio.Event)  #: set: it does not run
    _stopped: float = 0.0
    _revived: float = 0.0
    _grace: float = 0.0  #: a restarted agent is told what it lost at its first heartbeat, and may be asked before

    @property
    def name(self) -> str:
        """The node's name."""
        return self.agent.node

    @property
    def member(self) -> str | None:
        """What the store calls the node: that is the agent's own business."""
        return None

    async def start(self, user: User, session: str, wait: float = 0.0) -> Answer:
        """Ask for a session and note what was said. An agent that is down says nothing."""
        name, asked = f"{self.name} {session}", time.time()
        self.history.note(f"{name}: start?")
        reply = await self._asked(
            lambda: self.agent.start(user.canonical, session, **({"wait": f"{wait:.0f}s"} if wait else {}))
        )
        if reply is None or reply.status not in {200, 201}:
            self.history.note(f"{name}: {'no answer' if reply is None else reply.document.get('reason', reply.status)}")
            return Answer()
        told = reply.document
        self.history.note(f"{name}: granted {told['fence']} ({told['source']}, {reply.status})")
        if not any(each.until == float("inf") for each in self.history.of(self.name, session)):
            seat = self.plan.seat(self.name, session, user.canonical)
            now = time.time()
            self.history.open_spell(Spell(self.name, session, user.canonical, seat, asked, now, confirmed=now))
        return Answer(told["fence"], by_store=told["source"] == "store")

    async def end(self, session: str) -> None:
        """End a session; again and again where the agent is down, as a host does."""
        self.history.close_spell(self.name, session)
        self.history.note(f"{self.name} {session}: end?")
        for _ in turns(5):
            reply = await self._asked(lambda: self.agent.end(session))
            if reply is not None and reply.status == 204:
                return
            await asyncio.sleep(0.2)
        self.history.violate("bounded", f"{self.name} {session}: not ended")

    async def hold(self, session: str) -> None:
        """Have a session's seat kept, whatever its node does."""
        await self._asked(lambda: self.agent.request("POST", f"/v1/sessions/{session}/hold", {}))

    async def active(self) -> dict[str, tuple[str, int]]:
        """Return every session with a seat, by what the agent says: user and fence."""
        return {
            each["session"]: (each["user"], each["fence"])
            for each in await self.sessions() or []
            if each["state"] == "active"
        }

    async def unsettled(self) -> str | None:
        """Return what is still under way on this host."""
        with suppress(OSError, http.client.HTTPException):
            reply = await asyncio.to_thread(lambda: self.agent.health("/healthz"))
            if reply.document["status"] != "pass":
                return f"{self.name}: {reply.body.decode()}"
            odd = {
                each["session"]: each["state"]
                for each in await self.sessions() or []
                if each["state"] not in {"active", "lost"}
            }
            return f"{self.name}: {odd}" if odd else None
        return f"{self.name}: no answer"

    async def sessions(self) -> list[dict[str, Any]] | None:
        """Ask the agent for its sessions; None if it does not answer."""
        reply = await self._asked(lambda: self.agent.request("GET", "/v1/sessions"))
        if reply is None or reply.status != 200:
            return None
        found: list[dict[str, Any]] = reply.document if isinstance(reply.document, list) else reply.document["sessions"]
        return [each for each in found if each["pool"] == self.plan.pool]

    # --- faults -------------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        """End the agent with -9."""
        self._stopped = time.time()
        self._revived = self._grace = float("inf")
        await asyncio.to_thread(self.agent.kill)

    async def revive(self) -> None:
        """Start the agent again and wait until it is ready."""
        self.agent.launch()
        await asyncio.to_thread(self.agent.wait_ready)
        self._was_silent()
        self._revived = time.time()
        self._grace = self._revived + 2 * HEARTBEAT

    def stop(self) -> None:
        """Let the agent stand still, as a machine that swaps."""
        assert self.agent.process is not None
        self._stopped = time.time()
        psutil.Process(self.agent.process.pid).suspend()

    def resume(self) -> None:
        """Let it go on."""
        assert self.agent.process is not None
        self._was_silent()
        psutil.Process(self.agent.process.pid).resume()

    def _was_silent(self) -> None:
        self._not_heard(time.time() - self._stopped)
        self._stopped = 0.0

    def _not_heard(self, seconds: float) -> None:
        """Nothing came from the agent for so long: it stood still, or the machine did, and the store may have heard no more."""
        self.silent = max(self.silent, seconds)
        if self._is_too_long(seconds):
            self.history.given_up[self.name] = time.time()

    def _may_lose(self) -> bool:
        """Whether the agent was silent for so long that the store may have given its node up."""
        return self._is_too_long(max(self.silent, time.time() - self._stopped if self._stopped else 0.0))

    def _is_too_long(self, seconds: float) -> bool:
        return seconds + 2 * HEARTBEAT > self.silence

    # --- watching -----------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Ask for the sessions all the time and note what becomes of them."""
        states = dict[str, str]()
        while True:
            asked = time.time()
            for each in await self.sessions() or []:
                session, state = each["session"], each["state"]
                running = [spell for spell in self.history.of(self.name, session) if spell.until == float("inf")]
                if state == "active":
                    for spell in running:
                        if asked > self._grace or spell.since > self._revived:
                            spell.confirmed = max(spell.confirmed, asked)
                elif state in {"invalid", "lost"} and states.get(session) not in {state, "invalid"}:
                    self._lost(each)
                states[session] = state
            await asyncio.sleep(ASK)

    def _lost(self, document: dict[str, Any]) -> None:
        """A session has lost its seat. Until when the store had promised to keep it is known by who stopped the agent."""
        session, seat = document["session"], self.plan.seat(self.name, document["session"], document["user"])
        for spell in self.history.of(self.name, session):
            spell.until = min(spell.until, spell.confirmed)
        if self._may_lose():
            self.history.heard[self.name, session] = 0.0
        self.history.lose(self.name, session, seat, document.get("reason") or "?")

    async def _asked(self, ask: Callable[[], Reply]) -> Reply | None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(within(PATIENCE)):
                return await asyncio.to_thread(ask)
        except TimeoutError:  # an OSError too, so it comes first
            self.history.violate("bounded", f"{self.name} does not answer")
            return None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            took = time.monotonic() - began
            self.history.calls += 1
            self.history.slowest = max(self.history.slowest, took)
            self._not_heard(took)


@asynccontextmanager
async def watched_agent(agent: RunningAgent, plan: Plan, history: History, silence: float) -> AsyncIterator[Watched]:
    """Watch an agent until this ends."""
    watched = Watched(agent, plan, history, silence)
    history.promise(watched.name, float("inf"))
    task = asyncio.create_task(watched.watch())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for spell in history.spells:
            spell.until = min(spell.until, max(spell.confirmed, spell.since))
