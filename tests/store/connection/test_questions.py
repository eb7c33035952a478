"""Questions to servers that many wait for: put once for all, and for nobody who asks about something else."""

import asyncio
from collections import Counter

import pytest

from farmlease.store.connection.questions import Questions
from farmlease.store.connection.slot_homes import SlotHomes
from farmlease.store.connection.socket import HostPort
from tests.support.patience import within

SILENT, OTHER, HEIR = ("10.0.0.1", 7000), ("10.0.0.2", 7000), ("10.0.0.3", 7000)


class Servers:
    """Servers that answer when they are let; they number their answers, and count what they were asked."""

    def __init__(self) -> None:
        self.asked = Counter[HostPort]()
        self.answering = asyncio.Event()
        self.failure: Exception | None = None

    async def put(self, member: HostPort) -> int:
        """Answer, or fail."""
        self.asked[member] += 1
        number = self.asked[member]
        await self.answering.wait()
        if self.failure is not None:
            raise self.failure
        return number


async def test_one_answer_is_for_all_who_wait() -> None:
    """The server is asked once, and once more by who comes later."""
    servers = Servers()
    questions = Questions(servers.put)
    waiting = [asyncio.create_task(questions.ask(SILENT)) for _ in range(5)]
    await asyncio.sleep(0)
    servers.answering.set()
    assert [1] * 5 == await asyncio.gather(*waiting)
    assert 2 == await questions.ask(SILENT)


async def test_a_failure_is_for_all_who_wait() -> None:
    """Each gets an error of his own, and a server that did not answer is not asked again for those who waited."""
    servers = Servers()
    servers.failure = TimeoutError("silent")
    questions = Questions(servers.put)
    waiting = [asyncio.create_task(questions.ask_now(SILENT)) for _ in range(5)]
    await asyncio.sleep(0)
    servers.answering.set()
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert {"silent"} == {str(each) for each in errors}
    assert 5 == len({id(each) for each in errors})
    assert 1 == servers.asked[SILENT]


async def test_an_answer_now_is_no_older_than_the_call() -> None:
    """A question that was put before is waited for, and its answer not taken; the next one is for all who came late."""
    servers = Servers()
    questions = Questions(servers.put)
    early = asyncio.create_task(questions.ask_now(SILENT))
    await asyncio.sleep(0)
    late = [asyncio.create_task(questions.ask_now(SILENT)) for _ in range(5)]
    await asyncio.sleep(0)
    servers.answering.set()
    assert 1 == await early
    assert [2] * 5 == await asyncio.gather(*late)


async def test_who_goes_away_ends_no_question() -> None:
    """Who asked first is cancelled; who joined is answered, and nothing is left where all have gone."""
    servers = Servers()
    questions = Questions(servers.put)
    first, second = (asyncio.create_task(questions.ask(SILENT)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    servers.answering.set()
    assert 1 == await second
    servers.answering.clear()
    gone = asyncio.create_task(questions.ask(OTHER))
    await asyncio.sleep(0)
    gone.cancel()
    await questions.close()
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_slots_of_other_homes_do_not_wait_for_a_silent_one() -> None:
    """Of two slots that are elsewhere now one came from a silent server; the other one's move is found out at once."""
    silence = asyncio.Event()

    async def ask(member: HostPort, *_: object) -> list[object]:
        if member == SILENT:
            await silence.wait()
        life = "run_id:" + "".join(filter(str.isdigit, member[0]))
        server = f"{life}\r\nuptime_in_seconds:1000\r\n".encode()
        return [[], server, f"role:master\r\nmaster_replid2:{'0' * 40}\r\n".encode()]

    homes = SlotHomes(ask, lambda *_: [(0, 9, HEIR)])
    homes.heard(1, SILENT, "10001")
    homes.heard(2, OTHER, "10002")
    stuck = asyncio.create_task(homes.follow(1, HEIR, asking=False))
    await asyncio.sleep(0)
    async with asyncio.timeout(within(5)):
        await homes.follow(2, HEIR, asking=False)
    homes.heard(2, HEIR, "10003")
    assert not homes.is_moved(2, HEIR)
    assert not stuck.done()
    silence.set()
    await stuck
    await homes.close()
