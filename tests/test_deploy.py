"""The policies in ``deploy/`` are ready: they load, ask for nothing impossible, and do what their comments say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from farmlease.domain.model import Kind, Reason, SessionRequest, Share
from farmlease.domain.policy import Denied, Policy, RestrictedUse, check_timing, parse_policy
from farmlease.store.answers.session import Claim, Refusal, Taken, Taking, Waiting
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index

DEPLOY = Path(__file__).parent.parent / "deploy"
FILES = sorted(DEPLOY.glob("pools-*.toml"))
MINUTE = 60_000
VERSION = 1


def load(name: str) -> Policy:
    """Return a policy of the folder."""
    return parse_policy((DEPLOY / name).read_text(encoding="utf-8"), name)


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a session found a seat, or why nowhere: of several denials the last."""

    pool: str | None = None
    reason: Reason | None = None
    restricted: bool = False
    taken: Taken | None = None
    waiting: bool = False


@dataclass(slots=True)
class Farm:
    """Hosts that go by one policy and ask the store pool by pool, as an agent does."""

    timed: TimedStore
    policy: Policy

    async def beat(self, *nodes: str) -> None:
        """Let hosts be heard of in every pool."""
        for node in nodes:
            for pool in self.policy.pools:
                await self.timed.store.heartbeat(pool, VERSION, f"{node}#a", None)

    async def start(
        self,
        user: str,
        *,
        node: str = "ctx-01",
        session: str = "1",
        app: str = "clearquest",
        site: str | None = None,
        groups: Sequence[str] = (),
        device: str = "citrix-a",
        wait_ms: int = 0,
    ) -> Answer:
        """Ask for a session."""
        request = SessionRequest(
            user=self.policy.identity.user(user),
            session=session,
            app=app,
            site=site,
            groups=tuple(groups),
            wait_ms=wait_ms,
        )
        plan = self.policy.plan(request, node)
        if isinstance(plan, RestrictedUse):
            return Answer(restricted=True)
        if isinstance(plan, Denied):
            return Answer(reason=plan.reason)
        answer = Answer()
        for pool in plan.pools:
            if not pool.serves(node):
                answer = Answer(reason=Reason.WRONG_NODE)
                continue
            claim = Claim(user=index(request.user.canonical), node=f"{node}#a", session=session)
            taking = Taking(
                device=device,
                lease_id=f"lease of {user}",
                record=b"record",
                name=b"name",
                reservations=pool.reservations(request, node),
                wait_ms=wait_ms,
            )
            match await self.timed.store.acquire(pool, VERSION, claim, taking):
                case Taken() as taken:
                    return Answer(pool=pool.name, taken=taken)
                case Waiting():
                    return Answer(pool=pool.name, waiting=True)
                case Refusal() as refusal:
                    answer = Answer(reason=refusal.reason)
        return answer

    async def held(self, pool: str) -> int:
        """Return how many seats of a pool are held."""
        count = await self.timed.store.count(pool)
        assert count is not None
        return count.held


@pytest.fixture
async def clearquest(timed: TimedStore) -> Farm:
    """A farm by ClearQuest's rules, with three hosts, at 09:00."""
    farm = Farm(timed, load("pools-clearquest.toml"))
    await farm.beat("ctx-01", "ctx-02", "ctx-07")
    return farm


@pytest.fixture
async def qlikview(timed: TimedStore) -> Farm:
    """A farm by QlikView's rules, with two hosts, at 09:00."""
    farm = Farm(timed, load("pools-qlikview.toml"))
    await farm.beat("ctx-01", "ctx-02")
    return farm


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_ready_policy_fits_the_default_heartbeat(file: Path) -> None:
    """No session of its pools ends because of one late heartbeat of 60 s."""
    for pool in load(file.name).pools:
        check_timing(60_000, pool)


def test_qlikviews_rules_are_the_vendors() -> None:
    """Named, two devices, 30 days, quarantine of 24 hours, and the file that travels."""
    (pool,) = load("pools-qlikview.toml").pools
    assert (Kind.NAMED, 2, 30 * DAY, DAY, 2 * HOUR) == (
        pool.kind,
        pool.devices_per_user,
        pool.lease_ms,
        pool.quarantine_ms,
        pool.session_timeout_ms,
    )
    assert 1 == pool.replacements
    assert [True] == [file.endswith("BorrowedCalData.pgo") for file in pool.files]


def test_clearquests_rules_are_the_vendors() -> None:
    """Shared by user and workstation, 120 min, three attempts of 10 min, idle 30 min, a form 4 h; the web by user.

    Nothing that is shipped reports activity of the web's sessions, so they have no idle time.
    """
    floating, web, locked = load("pools-clearquest.toml").pools
    for pool in (floating, web):
        assert (Kind.FLOATING, 2 * HOUR, 4 * HOUR, 10 * MINUTE) == (
            pool.kind,
            pool.session_timeout_ms,
            pool.max_hold_ms,
            pool.queue_ms,
        )
        assert (3, 10 * MINUTE) == (pool.reacquire.attempts, pool.reacquire.every_ms)
    assert (30 * MINUTE, 0) == (floating.idle_timeout_ms, web.idle_timeout_ms)
    assert (Share.USER_DEVICE, Share.USER, 1) == (floating.share, web.share, floating.reserved_seats)
    assert (Kind.NODE_LOCKED, ("ctx-07",)) == (locked.kind, locked.nodes)


async def test_john_moves_from_host_to_host_and_has_two_devices(qlikview: Farm) -> None:
    """09:00 on ctx-01, then on ctx-02: one seat, one device. His notebook is the second; a third is refused."""
    assert "qlikview" == (await qlikview.start(r"CORP\john", app="qlikview")).pool
    assert "qlikview" == (await qlikview.start("john@corp.example.com", app="qlikview", node="ctx-02")).pool
    assert "qlikview" == (await qlikview.start(r"CORP\john", app="qlikview", session="2", device="NB-1")).pool
    assert (
        Reason.DEVICE_LIMIT is (await qlikview.start(r"CORP\john", app="qlikview", session="3", device="NB-2")).reason
    )
    assert 1 == await qlikview.held("qlikview")


async def test_visitors_and_services_take_no_seat(qlikview: Farm) -> None:
    """A visitor opens documents without a licence; an account of a service is not let in at all."""
    assert (await qlikview.start("ann", app="qlikview", groups=[r"corp\qlikview visitors"])).restricted
    assert Reason.NOT_ENTITLED is (await qlikview.start(r"CORP\svc-backup", app="qlikview")).reason
    assert None is await qlikview.timed.store.look_up(qlikview.policy.pools[0], index(r"corp\svc-backup"))
    assert 0 == await qlikview.held("qlikview")


async def test_the_mapper_tries_node_locked_then_floating(clearquest: Farm) -> None:
    """On ctx-07 any number of copies need no floating licence; on ctx-01 there is none of its own."""
    for copy in range(30):
        answer = await clearquest.start(f"mapper-{copy}", app="ClearQuest-Mapper", node="ctx-07", session=f"s{copy}")
        assert "clearquest-node" == answer.pool
    assert 0 == await clearquest.held("clearquest")
    assert "clearquest" == (await clearquest.start("mapper-1", app="clearquest-mapper", session="x")).pool
    assert 1 == await clearquest.held("clearquest")


async def test_a_designer_without_luck_is_told_of_the_floating_licences(clearquest: Farm) -> None:
    """ctx-01 is not ctx-07, and the floating licences are taken: that is said, not that it is the wrong host."""
    for user in range(24):
        await clearquest.start(f"user-{user}", session=f"s{user}")
    designer = await clearquest.start("dora", groups=[r"CORP\designers"])
    assert Reason.RESERVED is designer.reason


async def test_the_mail_reader_keeps_its_seat_when_25_others_want_it(clearquest: Farm) -> None:
    """09:00 of 25 others 24 get in; 09:01 the mail reader does; 09:02 it ends, and still nobody takes its seat."""
    answers = [await clearquest.start(f"user-{number}", session=f"s{number}") for number in range(25)]
    assert ["clearquest"] * 24 == [answer.pool for answer in answers[:24]]
    assert (None, Reason.RESERVED) == (answers[24].pool, answers[24].reason)
    clearquest.timed.clock.advance(MINUTE)
    mail = await clearquest.start(r"CORP\MailReader", session="mail")
    assert mail.taken is not None
    assert (25, Reason.CAPACITY) == (await clearquest.held("clearquest"), (await clearquest.start("late")).reason)
    clearquest.timed.clock.advance(MINUTE)
    claim = Claim(user=index(r"corp\mailreader"), node="ctx-01#a", session="mail")
    await clearquest.timed.store.release("clearquest", claim, mail.taken.fence)
    assert Reason.RESERVED is (await clearquest.start("late")).reason
    assert "clearquest" == (await clearquest.start("mailreader@corp.example.com", session="mail-2")).pool


async def test_who_waits_does_not_wait_for_the_mail_readers_seat(clearquest: Farm) -> None:
    """09:00 the 25th user waits; the mail reader passes by, for its seat is its own; one ends, and the 25th is in."""
    answers = [await clearquest.start(f"user-{number}", session=f"s{number}") for number in range(24)]
    assert (await clearquest.start("late", wait_ms=MINUTE)).waiting
    assert "clearquest" == (await clearquest.start(r"CORP\mailreader", session="mail")).pool
    assert (await clearquest.start("late", wait_ms=MINUTE)).waiting
    first = answers[0].taken
    assert first is not None
    claim = Claim(user=index("user-0"), node="ctx-01#a", session="s0")
    await clearquest.timed.store.release("clearquest", claim, first.fence)
    assert "clearquest" == (await clearquest.start("late", wait_ms=MINUTE)).pool


async def test_restricted_by_site(clearquest: Farm) -> None:
    """Who comes from the intake form uses no licence, an intern and a designer too; from elsewhere the rules go on."""
    for user, groups in ((r"CORP\john", []), (r"CORP\intern-3", []), (r"CORP\dora", [r"CORP\Designers"])):
        assert (await clearquest.start(user, site="Intake-Web", groups=groups)).restricted
    assert [0, 0] == [await clearquest.held(pool) for pool in ("clearquest", "clearquest-node")]
    assert Reason.NOT_ENTITLED is (await clearquest.start(r"CORP\intern-3")).reason


async def test_copies_on_one_workstation_use_one_licence_and_the_web_one_for_each_user(clearquest: Farm) -> None:
    """Three copies on the farm one, a fourth on a notebook a second; in the browser one, from however many hosts."""
    for session in ("1", "2"):
        await clearquest.start("john", session=session)
    await clearquest.start("john", session="3", node="ctx-02")
    assert 1 == await clearquest.held("clearquest")
    await clearquest.start("john", session="4", device="NB-1")
    assert 2 == await clearquest.held("clearquest")
    for node, device in (("ctx-01", "w1"), ("ctx-02", "w2"), ("ctx-07", "w3")):
        assert (
            "clearquest-web" == (await clearquest.start("john", node=node, session="w", site="web", device=device)).pool
        )
    assert 1 == await clearquest.held("clearquest-web")


async def test_a_silent_hosts_licences_are_free_after_two_hours(clearquest: Farm) -> None:
    """ctx-01 is last heard of at 09:00 with 24 sessions: at 10:59 they count, at 11:00 others have them."""
    for number in range(24):
        await clearquest.start(f"user-{number}", session=f"s{number}")
    clearquest.timed.clock.set(NINE + HOUR)
    await clearquest.beat("ctx-02")
    clearquest.timed.clock.set(NINE + 2 * HOUR - 1)
    assert Reason.RESERVED is (await clearquest.start("mary", node="ctx-02")).reason
    clearquest.timed.clock.advance(1)
    assert "clearquest" == (await clearquest.start("mary", node="ctx-02")).pool
    assert 1 == await clearquest.held("clearquest")
