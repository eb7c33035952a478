"""How long is waited for the host's account database, how often it is asked, and what counts when it does not answer."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pytest
from structlog.testing import capture_logs

from farmlease.domain.identity import Identities, User
from farmlease.node.accounts.accounts import Accounts, Failures, NoAnswer, spellings
from farmlease.node.accounts.database import Account
from tests.support.patience import within

FARM = Identities({"CORP": "corp.example.com"}, {"john": r"CORP\john", r"CORP\adm-john": r"CORP\john"})
JOHN = FARM.user("john")
HOUR = 3_600.0


@dataclass(slots=True)
class HandClock:
    """A clock that the test moves."""

    seconds: float = 1_000.0

    def now_ms(self) -> int:
        """Return the time in milliseconds."""
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Nobody sleeps here."""


@dataclass(slots=True)
class Directory:
    """An account database. Who asks for a name in ``hanging`` waits for ``go``; for one in ``broken`` it is an error."""

    accounts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    go: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    counting: threading.Lock = field(default_factory=threading.Lock)

    def account(self, name: str) -> Account | None:
        """Return the account of this name."""
        self.asked.append(name)
        with self.counting:
            self.busy += 1
            self.busiest = max(self.busy, self.busiest)
        try:
            if name in self.hanging or "*" in self.hanging:
                self.go.wait(within(60))
            if name in self.broken:
                raise OSError(5, f"no answer about {name}")
        finally:
            with self.counting:
                self.busy -= 1
        groups = self.accounts.get(name)
        if groups is None:
            return None
        return Account(name=name, uid="7", home=PurePosixPath("/home", name), groups=groups)

    def name_of(self, uid: int) -> str | None:
        """Return the name of the account with this number."""
        found = self.account(str(uid))
        return None if found is None else found.name


@dataclass(slots=True)
class Desk:
    """Accounts over a directory, with a clock."""

    directory: Directory
    clock: HandClock
    accounts: Accounts

    async def groups(self, given: str = "john") -> tuple[str, ...] | NoAnswer:
        """Return a user's groups."""
        found = await self.accounts.account(FARM.user(given), given, FARM)
        return found if isinstance(found, NoAnswer) else found.groups


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Accounts over a directory in which john is a designer."""
    directory, clock = Directory({"john": ("designers",)}), HandClock()
    yield Desk(directory, clock, Accounts(clock, directory))
    directory.go.set()


# --- by which name --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("john", ("john", r"corp\john")),
        (r"CORP\john", (r"CORP\john", "john", r"corp\john")),
        ("john@corp.example.com", ("john@corp.example.com", "john", r"corp\john")),
        (r"OTHER\john", (r"OTHER\john", r"other\john")),
        ("john@other.example", ("john@other.example",)),
        (r"CORP\adm-john", (r"CORP\adm-john", r"corp\john")),
        (r"CORP\mary", (r"CORP\mary", r"corp\mary")),
        ("mary", ("mary",)),
    ],
)
def test_the_names_that_are_tried(given: str, names: tuple[str, ...]) -> None:
    r"""As given, plain, and ``DOMAIN\name``; a plain name only where the farm says that it is the same person's."""
    assert names == spellings(FARM.user(given), given, FARM)


async def test_the_first_name_that_the_host_knows_counts(desk: Desk) -> None:
    """A host may know a person by any of them."""
    assert ("designers",) == await desk.groups(r"CORP\john")
    assert [r"CORP\john", "john"] == desk.directory.asked
    desk.directory.accounts = {r"corp\john": ("domain users",)}
    assert ("domain users",) == await desk.groups("john@corp.example.com")


async def test_nobody_gets_the_groups_of_a_namesake(desk: Desk) -> None:
    """Another domain's john is not this host's john, and is in none of his groups."""
    assert NoAnswer.NONE is await desk.groups(r"OTHER\john")


# --- how often ------------------------------------------------------------------------------------------------------------


async def test_an_answer_is_good_for_five_minutes(desk: Desk) -> None:
    """Then the database is asked again."""
    assert ("designers",) == await desk.groups()
    desk.directory.accounts["john"] = ("testers",)
    desk.clock.seconds += 299
    assert ("designers",) == await desk.groups()
    desk.clock.seconds += 2
    assert ("testers",) == await desk.groups()
    assert ["john", "john"] == desk.directory.asked


async def test_that_there_is_none_is_soon_forgotten(desk: Desk) -> None:
    """Whoever gets an account in this minute has it in the next."""
    assert NoAnswer.NONE is await desk.groups("mary")
    desk.directory.accounts["mary"] = ("testers",)
    assert NoAnswer.NONE is await desk.groups("mary")
    desk.clock.seconds += 31
    assert ("testers",) == await desk.groups("mary")


async def test_many_who_ask_for_one_user_are_one_look_up(desk: Desk) -> None:
    """A hundred logons of one user at once make one thread."""
    desk.directory.hanging.add("john")
    asking = [asyncio.create_task(desk.groups()) for _ in range(100)]
    await asyncio.sleep(0.05)
    desk.directory.go.set()
    assert {("designers",)} == set(await asyncio.gather(*asking))
    assert ["john"] == desk.directory.asked


async def test_so_many_look_ups_at_once_and_no_more(desk: Desk) -> None:
    """A directory that hangs for everybody takes 64 threads, not one for each user, and all who wait get an answer."""
    desk.directory.hanging.add("*")
    before, began = threading.active_count(), time.monotonic()
    answers = await asyncio.gather(*(desk.groups(f"user-{number}") for number in range(300)))
    assert {NoAnswer.UNKNOWN} == set(answers)
    assert (64, 64) == (desk.directory.busy, desk.directory.busiest)
    assert threading.active_count() - before <= 64  # fewer, where a thread of before has ended meanwhile
    assert 2 <= time.monotonic() - began < within(3)
    assert Failures(300, 300) == desk.accounts.failures


# --- what hangs or fails --------------------------------------------------------------------------------------------------


async def test_a_look_up_that_hangs_holds_up_nobody_else(desk: Desk) -> None:
    """Another user's answer comes at once, and so do this user's next: they do not wait two seconds each."""
    desk.directory.accounts["mary"] = ("testers",)
    desk.directory.hanging.add("john")
    waiting, began = asyncio.create_task(desk.groups()), time.monotonic()
    assert ("testers",) == await desk.groups("mary")
    assert time.monotonic() - began < within(1)
    assert NoAnswer.UNKNOWN is await waiting
    assert 2 <= time.monotonic() - began < within(3)
    began = time.monotonic()
    assert NoAnswer.UNKNOWN is await desk.groups()
    assert time.monotonic() - began < within(0.5)
    assert ["john"] == [name for name in desk.directory.asked if name == "john"]


async def test_an_answer_that_comes_late_is_not_lost(desk: Desk) -> None:
    """Who asks next has it, and health is well again."""
    desk.directory.hanging.add("john")
    assert NoAnswer.UNKNOWN is await desk.groups()
    assert Failures(1, 1) == desk.accounts.failures
    desk.directory.go.set()
    while desk.accounts.failures.users:
        await asyncio.sleep(0.01)
    assert ("designers",) == await desk.groups()
    assert ["john"] == desk.directory.asked


@pytest.mark.parametrize("how", ["hangs", "fails"])
async def test_what_was_known_counts_for_a_day(desk: Desk, how: str) -> None:
    """The groups of yesterday are better than none; those of the day before are not."""
    assert ("designers",) == await desk.groups()
    (desk.directory.hanging if how == "hangs" else desk.directory.broken).add("john")
    desk.clock.seconds += 23 * HOUR
    assert ("designers",) == await desk.groups()
    assert Failures(1, 0) == desk.accounts.failures
    desk.clock.seconds += HOUR
    assert NoAnswer.UNKNOWN is await desk.groups()
    assert Failures(1, 1) == desk.accounts.failures


async def test_that_there_was_none_is_no_knowledge(desk: Desk) -> None:
    """Whoever had no account an hour ago is not thought to be in no group when the database fails."""
    assert NoAnswer.NONE is await desk.groups("mary")
    desk.directory.broken.add("mary")
    desk.clock.seconds += HOUR
    assert NoAnswer.UNKNOWN is await desk.groups("mary")


async def test_a_failure_is_told_for_ten_minutes_or_until_it_is_over(desk: Desk) -> None:
    """Health warns of users who cannot be looked up, not of one who went home."""
    desk.directory.broken |= {"john", "mary"}
    await desk.groups()
    await desk.groups("mary")
    assert Failures(2, 2) == desk.accounts.failures
    desk.directory.broken.clear()
    await desk.groups()
    assert Failures(1, 1) == desk.accounts.failures
    desk.clock.seconds += 601
    assert Failures() == desk.accounts.failures


async def test_the_log_names_nobody(desk: Desk) -> None:
    """L10: one line where it begins, and no name in it, though the error has one."""
    desk.directory.broken |= {"john", "mary"}
    with capture_logs() as lines:
        await desk.groups()
        await desk.groups("mary")
    assert [{"event": "accounts.failed", "log_level": "warning", "why": "OSError"}] == lines


async def test_a_caller_who_goes_away_takes_no_answer_with_him(desk: Desk) -> None:
    """The look-up goes on, and what it finds is kept."""
    desk.directory.hanging.add("john")
    gone = asyncio.create_task(desk.groups())
    await asyncio.sleep(0.05)
    gone.cancel()
    desk.directory.go.set()
    assert ("designers",) == await desk.groups()
    assert ["john"] == desk.directory.asked


async def test_names_of_numbers(desk: Desk) -> None:
    """They are asked for in the same way, and kept."""
    desk.directory.accounts["7"] = ()
    assert ("7", NoAnswer.NONE) == (await desk.accounts.name_of(7), await desk.accounts.name_of(8))
    desk.directory.broken.add("9")
    assert NoAnswer.UNKNOWN is await desk.accounts.name_of(9)
    assert Failures(1, 0) == desk.accounts.failures


async def test_only_so_much_is_kept(desk: Desk) -> None:
    """Answers for 4,096 names; the oldest goes first."""
    for number in range(4_097):
        assert NoAnswer.NONE is await desk.accounts.account(User(f"user-{number}"), f"user-{number}", FARM)
    assert 4_097 == len(desk.directory.asked)
    await desk.groups("user-4096")
    assert 4_097 == len(desk.directory.asked)
    await desk.groups("user-0")
    assert 4_098 == len(desk.directory.asked)
