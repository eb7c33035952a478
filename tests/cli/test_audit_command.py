"""``farmlease audit`` and ``lease forget``: what was decided is found again, and a name is erased."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from farmlease.admin.audit import AuditEvent
from farmlease.cli import audit as audit_command
from farmlease.cli.client.farm import FarmClient
from farmlease.cli.signals import InterruptibleRunner
from farmlease.domain.identity import User
from farmlease.errors import StoreUnavailable
from farmlease.store.audit_store import AuditCursor
from farmlease.store.keys import note_keys
from tests.support.commands import CLEARQUEST, NODE, QLIKVIEW, ClockedHost, Host, me
from tests.support.patience import within
from tests.support.stores import DAY, HOUR, NINE

JOHN, MARY = "CORP\\john", "CORP\\mary"


def lines(host: Host, *args: str) -> list[dict[str, Any]]:
    """Return what ``audit ARGS -o json`` prints, line by line."""
    ended = host.run("audit", *args, "-o", "json")
    assert (0, "") == (ended.status, ended.err)
    return [json.loads(line) for line in ended.out.splitlines()]


def a_day(host: ClockedHost) -> None:
    """Two pools, grants and a denial in both, a revocation and a new policy."""
    host.apply(QLIKVIEW + CLEARQUEST)
    host.lend(JOHN)
    host.clock.advance(HOUR)
    host.lend(MARY, pool="clearquest")
    with pytest.raises(AssertionError, match="capacity"):
        host.lend(JOHN, pool="clearquest")
    host.clock.advance(1000)
    assert 0 == host.run("lease", "revoke", JOHN, "--pool", "qlikview", "--reason", "left us", "--yes").status


def test_the_pools_and_the_farm_are_one_list_in_order_of_time(clocked: ClockedHost) -> None:
    """Who, where, what, why and by whom, of all pools together, oldest first, names in clear."""
    a_day(clocked)
    found = lines(clocked)
    assert sorted(line["at"] for line in found) == [line["at"] for line in found]
    seen = [(line["pool"], line["event"], line["user"]) for line in found if line["event"] != "configured"]
    assert [
        (None, "policy_applied", None),
        ("qlikview", "acquired", "corp\\john"),
        ("clearquest", "acquired", "corp\\mary"),
        ("clearquest", "denied", "corp\\john"),
        ("qlikview", "ended", "corp\\john"),
        ("qlikview", "revoked", "corp\\john"),
    ] == seen
    (denied,) = (line for line in found if line["event"] == "denied")
    expected = ("ctx-01", NODE.partition("#")[2], "s-john-citrix-a", "citrix-a", "capacity")
    names = ("node", "incarnation", "session", "device", "detail")
    assert expected == tuple(denied[name] for name in names)


def test_an_administrators_decision_says_who_and_why(clocked: ClockedHost) -> None:
    """The operating system's user, the host and the words, which lie sealed in the store (L10)."""
    a_day(clocked)
    (revoked,) = (line for line in lines(clocked) if line["event"] == "revoked")
    assert (me(), "left us") == (revoked["by"], revoked["note"])
    file = clocked.write(QLIKVIEW)
    assert 0 == clocked.run("pool", "apply", file, "--yes").status
    applied = [line for line in lines(clocked) if line["event"] == "policy_applied"]
    assert [None, me()] == [line["by"] for line in applied]
    with clocked.store.client() as client:
        dumped = b"".join(client.dump(key) for key in client.keys("*"))
    assert b"left us" not in dumped
    assert me().encode() not in dumped


def test_who_drained_a_node_is_told_like_any_other(clocked: ClockedHost) -> None:
    """Draining and undraining are decisions of the farm: by whom, of which node, counted among those ever written."""
    clocked.report("ctx-02")
    assert [0, 0, 0] == [clocked.run("node", verb, "ctx-02").status for verb in ("drain", "undrain", "drain")]
    told = [line[21:] for line in clocked.run("audit").out.splitlines()]
    drained, undrained = (f"(farm)      {event:<15}  ctx-02; by {me()}" for event in ("drained", "undrained"))
    assert [drained, undrained, drained] == told
    with clocked.store.client() as client:
        client.xtrim(note_keys("citrix-a")[0], maxlen=1, approximate=False)
    assert "the farm itself: 2 older decisions were cut off" in clocked.run("audit").err


def test_a_removed_pools_decisions_are_still_found(clocked: ClockedHost) -> None:
    """What was decided in a pool that no policy has any more is in the list, and --pool finds it."""
    a_day(clocked)
    clocked.apply(QLIKVIEW)
    assert {"configured", "acquired", "denied"} == {line["event"] for line in lines(clocked, "--pool", "clearquest")}
    assert "clearquest" in {line["pool"] for line in lines(clocked)}


def test_a_user_is_found_in_any_spelling(clocked: ClockedHost) -> None:
    """--user gives one person's decisions of all pools, and nobody else's."""
    a_day(clocked)
    found = lines(clocked, "--user", "john@corp.example.com")
    assert ["acquired", "denied", "ended", "revoked"] == [line["event"] for line in found]
    assert {"corp\\john"} == {line["user"] for line in found}


def test_since_goes_back_by_the_stores_clock(clocked: ClockedHost) -> None:
    """Half an hour back, what is an hour old is left out."""
    a_day(clocked)
    assert "acquired" in {line["event"] for line in lines(clocked, "--pool", "qlikview")}
    assert ["ended", "revoked"] == [line["event"] for line in lines(clocked, "--pool", "qlikview", "--since", "30m")]
    ended = clocked.run("audit", "--since", "soon")
    assert (2, 1) == (ended.status, ended.err.count("\n"))


def test_a_line_for_people_and_a_line_for_a_sheet(clocked: ClockedHost) -> None:
    """Without a terminal each decision is one line, folded nowhere."""
    a_day(clocked)
    told = clocked.run("audit", "--user", JOHN).out.splitlines()
    where = "on ctx-01, session s-john-citrix-a, device citrix-a"
    assert f"2026-01-05 10:00:00  clearquest  denied           corp\\john; {where}; capacity" == told[1]
    assert f'2026-01-05 10:00:01  qlikview    revoked          corp\\john; by {me()}; "left us"' == told[3]
    sheet = clocked.run("audit", "--user", JOHN, "-o", "csv").out.splitlines()
    assert '"at","pool","event","user"' == sheet[0][:26]
    assert 5 == len(sheet)


def test_a_place_in_the_queue_is_told_in_words() -> None:
    """A bare number would be a riddle."""
    queued = AuditEvent(
        at=NINE, pool="qlikview", event="queued", user=JOHN, index="", node="ctx-01", incarnation="", session="7",
        device="citrix-a", detail="2", fence=0, by="", note="", id="",
    )  # fmt: skip
    assert audit_command.event_line(queued).endswith("; on ctx-01, session 7, device citrix-a; 2 ahead")


def test_a_foreign_entry_hides_no_other(clocked: ClockedHost) -> None:
    """What somebody else put into the stream is shown as far as it can be read, and the list goes on."""
    clocked.apply(QLIKVIEW)
    with clocked.store.client() as client:
        (key,) = client.keys("*qlikview*:audit")
        client.xadd(key, {b"\xff": b"\xfe", b"user": b"\xfd", b"fence": b"many", b"note": b"x", b"at": b"never"})
    clocked.lend(JOHN)
    found = lines(clocked, "--pool", "qlikview")
    assert ["configured", "unknown", "acquired"] == [line["event"] for line in found]
    assert ("\\xfd", None, "(unreadable with these keys)") == (
        found[1]["user"], found[1]["fence"], found[1]["note"],
    )  # fmt: skip


def test_what_was_cut_off_is_told(clocked: ClockedHost) -> None:
    """The audit is bounded: how many decisions are missing, and when it begins, on every version of Redis."""
    a_day(clocked)
    with clocked.store.client() as client:
        client.xtrim("fl:{citrix-a/qlikview/0}:audit", maxlen=1, approximate=False)
    ended = clocked.run("audit", "--pool", "qlikview", "-o", "json")
    assert "farmlease: pool qlikview: 3 older decisions were cut off; it begins 2026-01-05T10:00:01.000Z\n" == ended.err
    assert 1 == len(ended.out.splitlines())


def test_an_audit_of_any_length_passes(clocked: ClockedHost) -> None:
    """More than one page of each stream, none twice and none left out."""
    a_day(clocked)
    with clocked.store.client() as client, client.pipeline() as pipe:
        for number in range(2500):
            pipe.xadd("fl:{citrix-a/qlikview/0}:audit", {"event": "made", "session": str(number)})
        pipe.execute()
    found = [line["session"] for line in lines(clocked) if line["event"] == "made"]
    assert [str(number) for number in range(2500)] == found


def test_follow_goes_on_with_what_comes(host: Host) -> None:
    """A decision taken later is printed by the same command, until it is interrupted."""
    host.apply(QLIKVIEW)
    command = host.command("audit", "--pool", "qlikview", "--follow", "-o", "json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert "configured" == json.loads(process.stdout.readline())["event"]
            host.lend(JOHN)
            line = json.loads(process.stdout.readline())
            assert ("acquired", "corp\\john") == (line["event"], line["user"])
        finally:
            process.send_signal(signal.SIGINT)
        assert 130 == process.wait(within(20))


def test_a_forgotten_person_is_a_pseudonym_in_the_trail(clocked: ClockedHost) -> None:
    """Name and words are gone from every pool, every decision stays with its time, and --user finds them by index."""
    a_day(clocked)
    clocked.clock.advance(DAY)
    before = lines(clocked, "--user", JOHN)
    ended = clocked.run("lease", "forget", JOHN, "--yes")
    told = "erased the user's name in 2 pools; the audit shows a pseudonym from now on\n"
    assert (0, told, "") == (ended.status, ended.out, ended.err)
    after = lines(clocked, "--user", JOHN)
    index = before[0]["index"]
    assert {index} == {line["user"] for line in after}
    facts = ("at", "pool", "event", "node", "session", "device", "detail", "fence", "by")
    assert [tuple(line[name] for name in facts) for line in before] == [
        tuple(line[name] for name in facts) for line in after if line["event"] not in {"forgotten", "lapsed"}
    ]
    assert {None} == {line["note"] for line in after}
    assert ("forgotten", me()) == (after[-1]["event"], after[-1]["by"])
    assert [] == [line for line in lines(clocked) if line["user"] == "corp\\john"]
    assert "corp\\mary" in {line["user"] for line in lines(clocked)}


def test_forgetting_again_erases_nothing(clocked: ClockedHost) -> None:
    """The second time there is no name left, which is told, and the audit does not grow."""
    a_day(clocked)
    clocked.clock.advance(DAY)
    assert 0 == clocked.run("lease", "forget", JOHN, "--yes").status
    before = lines(clocked)
    ended = clocked.run("lease", "forget", JOHN, "--yes")
    assert (1, "farmlease: the store has no name of this user; nothing was changed\n") == (ended.status, ended.err)
    assert before == lines(clocked)


def test_who_holds_a_lease_is_not_forgotten(clocked: ClockedHost) -> None:
    """In use, idle or in quarantine: nothing is erased, and the line says until when and what to do."""
    clocked.apply(QLIKVIEW)
    clocked.lend(JOHN)
    for _ in range(2):
        ended = clocked.run("lease", "forget", JOHN, "--yes")
        assert (1, "") == (ended.status, ended.out)
        assert "the user holds a lease in pool qlikview until 2026-" in ended.err
        assert 0 == clocked.run("lease", "return", JOHN, "--pool", "qlikview", "--yes").status
    assert {"corp\\john"} == {line["user"] for line in lines(clocked, "--user", JOHN)}


def test_nobody_is_forgotten_unasked(clocked: ClockedHost) -> None:
    """Without a terminal --yes is needed."""
    clocked.apply(QLIKVIEW)
    ended = clocked.run("lease", "forget", JOHN)
    told = "farmlease: this erases the user's name from every pool and from the audit, for good; nothing was changed"
    assert (1, told) == (ended.status, ended.err[: len(told)])


def test_who_comes_back_is_known_by_name_again(clocked: ClockedHost) -> None:
    """A new lease brings the name; a revocation outlives the name it was for."""
    a_day(clocked)
    clocked.clock.advance(DAY)
    assert 0 == clocked.run("lease", "forget", JOHN, "--yes").status
    clocked.lend(JOHN)
    assert {"corp\\john"} == {line["user"] for line in lines(clocked, "--pool", "qlikview", "--user", JOHN)}


@pytest.mark.parametrize(("command", "default"), [("audit", "as far as there is"), ("usage", "24h")])
def test_help_says_how_far_back_it_looks_without_since(host: Host, command: str, default: str) -> None:
    """The two differ, and so each says its own."""
    told = " ".join(host.run(command, "--help").out.split())
    assert f"How far back, e.g. 24h or 30d (default: {default})." in told


DECISION = AuditEvent(
    at=NINE, pool="qlikview", event="denied", user="john", index="john", node="ctx-01", incarnation="1", session="7",
    device="citrix-a", detail="capacity", fence=0, by="", note="", id="0",
)  # fmt: skip


class Torn:
    """A history that is asked three times; the second time the store goes away after the first decision of a page."""

    def __init__(self) -> None:
        self.asked = 0

    async def events(self, places: Sequence[AuditCursor], user: User | None) -> AsyncIterator[AuditEvent]:
        """Yield what is behind a place, and move the place on first, as the real one does."""
        del user
        self.asked += 1
        (place,) = places
        behind = int(place.after)
        known = min(2 * self.asked, 4)
        place.after = str(known)
        for number in range(behind + 1, known + 1):
            if self.asked == 2 and number == 4:
                raise StoreUnavailable("the store is away")
            yield replace(DECISION, id=str(number))


def test_follow_outlasts_a_store_that_goes_away(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read and not told yet is told when the store is back, and nothing twice."""
    monkeypatch.setattr(audit_command, "PAUSE", 0)
    with asyncio.Runner() as runner:
        history: Any = Torn()
        client = FarmClient(host.config, history, history, InterruptibleRunner(runner))
        found = audit_command.read_events(client, history, [AuditCursor("qlikview", "0")], (), follow=True)
        assert ["1", "2", "3", "4"] == [each.id for each in islice(found, 4)]
    assert "farmlease: the store is away; trying again\n" == capsys.readouterr().err
