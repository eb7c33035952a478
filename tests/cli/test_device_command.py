"""``farmlease device …``: the slots of a user's devices, freed and moved."""

import json
import re
from typing import Any

import pytest

from tests.support.commands import QLIKVIEW, ClockedHost, Host
from tests.support.stores import DAY, HOUR, NINE

JOHN = "CORP\\john"
CLEARQUEST = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\n'
WHY = ("--reason", "fell off a table")


def devices(host: Host, *args: str) -> list[dict[str, Any]]:
    """Return what ``device list`` lists of john."""
    ended = host.run("device", "list", JOHN, *args, "-o", "json")
    assert (0, "") == (ended.status, ended.err)
    listed: list[dict[str, Any]] = json.loads(ended.out)
    return listed


def slots(host: Host) -> list[tuple[str, str | None]]:
    """Return john's devices and until when each slot is taken."""
    return [(row["device"], row["until"]) for row in devices(host)]


@pytest.fixture
def lent(clocked: ClockedHost) -> ClockedHost:
    """A host of a farm where john works at 09:00, and has worked on a notebook."""
    clocked.apply(QLIKVIEW + CLEARQUEST)
    clocked.lend(JOHN)
    clocked.lend(JOHN, device="NB-0042", ended=True)
    clocked.lend(JOHN, pool="clearquest", device="NB-0099")
    return clocked


def test_list_is_every_device_of_the_named_pools(lent: ClockedHost) -> None:
    """Until when the slot is taken, or the sessions that keep it; a floating seat has no slots to count."""
    session = {"node": "ctx-01", "session": "s-john-citrix-a"}
    rows = [
        {"user": "corp\\john", "pool": "qlikview", "device": "NB-0042", "until": "2026-02-04T09:00:00.000Z",
         "sessions": []},
        {"user": "corp\\john", "pool": "qlikview", "device": "citrix-a", "until": None, "sessions": [session]},
    ]  # fmt: skip
    assert rows == devices(lent)
    assert rows == devices(lent, "--pool", "qlikview")
    table = lent.run("device", "list", "john@corp.example.com").out.splitlines()
    assert ["USER", "POOL", "DEVICE", "UNTIL (UTC)", "SESSIONS"] == re.split(r"\s{2,}", table[0])
    assert [["NB-0042", "2026-02-04 09:00"], ["citrix-a", "in use", "s-john-citrix-a on ctx-01"]] == [
        re.split(r"\s{2,}", line)[2:] for line in table[1:]
    ]
    assert "[]\n" == lent.run("device", "list", "nobody", "-o", "json").out


def test_a_used_slot_is_free_a_quarantine_after_its_last_use(lent: ClockedHost) -> None:
    """Last used at 09:00, released at 15:00, free at 09:00 tomorrow: then, and not before, a third device may come."""
    lent.clock.advance(HOUR)
    lent.lend(JOHN)
    lent.clock.advance(HOUR)
    released = lent.run("device", "release", JOHN, "NB-0042")
    told = "released device NB-0042; its slot stays taken until 2026-01-06 09:00 UTC\n"
    assert (0, told, "") == (released.status, released.out, released.err)
    assert ("NB-0042", "2026-01-06T09:00:00.000Z") in slots(lent)
    lent.clock.set(NINE + DAY - 1)
    with pytest.raises(AssertionError, match="device_limit"):
        lent.lend(JOHN, device="NB-0077")
    lent.clock.advance(1)
    lent.lend(JOHN, device="NB-0077")


def test_a_device_in_use_is_not_released(lent: ClockedHost) -> None:
    """Nothing ends by it."""
    ended = lent.run("device", "release", JOHN, "citrix-a")
    told = "farmlease: sessions of the user run on device citrix-a; end them first\n"
    assert (1, "", told) == (ended.status, ended.out, ended.err)


def test_the_broken_notebook(lent: ClockedHost) -> None:
    """At 09:00 the slot of the old notebook is the new one's at once, as long as it was the old one's."""
    ended = lent.run("device", "replace", JOHN, "NB-0042", "NB-0077", *WHY)
    assert (0, "replaced device NB-0042 by NB-0077\n", "") == (ended.status, ended.out, ended.err)
    assert [("NB-0077", "2026-02-04T09:00:00.000Z"), ("citrix-a", None)] == slots(lent)
    lent.lend(JOHN, device="NB-0077", ended=True)
    with pytest.raises(AssertionError, match="device_limit"):
        lent.lend(JOHN, device="NB-0042")


def test_replacing_twice_changes_nothing(lent: ClockedHost) -> None:
    """The same replacement asked for again is done already, and uses up none."""
    for _ in range(2):
        ended = lent.run("device", "replace", JOHN, "NB-0042", "NB-0077", *WHY)
        assert (0, "replaced device NB-0042 by NB-0077\n") == (ended.status, ended.out)


def test_a_second_replacement_within_30_days_needs_the_override(lent: ClockedHost) -> None:
    """Once at 09:00; refused at 10:00 until 4 February 09:00, done with --override, which the audit shows."""
    assert 0 == lent.run("device", "replace", JOHN, "NB-0042", "NB-0077", *WHY).status
    lent.clock.advance(HOUR)
    again = ("device", "replace", JOHN, "NB-0077", "NB-0078", *WHY)
    ended = lent.run(*again)
    told = (
        "denied: pool qlikview allows 1 replacement in 30 days, the next one at 2026-02-04 09:00 UTC; "
        "--override replaces it nevertheless and is audited\n"
    )
    assert (3, told, "") == (ended.status, ended.out, ended.err)
    assert 0 == lent.run(*again, "--override").status
    assert "NB-0078" == slots(lent)[0][0]
    with lent.store.client() as client:
        (audit,) = client.keys("*qlikview*:audit")
        entries = [entry for _, entry in client.xrange(audit) if entry[b"event"] == b"device_replaced"]
    assert [False, True] == [b"override" in entry[b"detail"] for entry in entries]
    assert not any(b"table" in value for entry in entries for value in entry.values())


def test_after_30_days_the_next_replacement_is_free(lent: ClockedHost) -> None:
    """Replaced at 09:00 on 5 January: denied one millisecond before 4 February 09:00, done then."""
    lent.clock.advance(HOUR)
    lent.lend(JOHN, device="NB-0042", ended=True)
    assert 0 == lent.run("device", "replace", JOHN, "NB-0042", "NB-0077", *WHY).status
    lent.clock.advance(30 * DAY - HOUR)
    lent.lend(JOHN, device="NB-0077", ended=True)
    lent.clock.advance(HOUR - 1)
    again = ("device", "replace", JOHN, "NB-0077", "NB-0078", *WHY)
    assert 3 == lent.run(*again).status
    lent.clock.advance(1)
    assert 0 == lent.run(*again).status


def test_a_pool_may_allow_no_replacements(clocked: ClockedHost) -> None:
    """Where none is allowed none ever will be, and --override is told all the same."""
    clocked.apply(QLIKVIEW + "replacements = 0\n")
    clocked.lend(JOHN, device="NB-0042", ended=True)
    ended = clocked.run("device", "replace", JOHN, "NB-0042", "NB-0077", *WHY)
    assert 3 == ended.status
    assert ended.out.startswith("denied: pool qlikview allows 0 replacements in 30 days, none ever; --override ")


def test_replacing_a_device_in_use_asks_first(lent: ClockedHost) -> None:
    """Its sessions end, so --yes is needed where nobody can be asked."""
    command = ("device", "replace", JOHN, "citrix-a", "NB-0077", *WHY)
    ended = lent.run(*command)
    told = "farmlease: this ends 1 session of corp\\john on device citrix-a; nothing was changed; confirm with --yes\n"
    assert (1, "", told) == (ended.status, ended.out, ended.err)
    assert 0 == lent.run(*command, "--yes").status
    assert ["NB-0042", "NB-0077"] == [device for device, _ in slots(lent)]


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        (("release", JOHN, "NB-1"), 1, "the user has no device NB-1 in pool qlikview; see `farmlease device list`"),
        (("release", "mary", "NB-1"), 1, "the user has no device NB-1 in pool qlikview; see `farmlease device list`"),
        (("replace", JOHN, "NB-1", "NB-2", *WHY), 1, "the user has no device NB-1 in pool qlikview"),
        (("replace", "mary", "NB-1", "NB-2", *WHY), 1, "the user holds no lease in pool qlikview"),
        (("replace", JOHN, "NB-0042", "citrix-a", *WHY), 1, "the lease is on device citrix-a already; free the other"),
        (("replace", JOHN, "NB-0042", "NB-0042", *WHY), 2, "the two devices are the same"),
        (("replace", JOHN, "NB-0042", "NB/2", *WHY), 2, "the device holds one of"),
        (("replace", JOHN, "NB-0042", "--", "-x"), 2, ""),
        (("release", JOHN, "NB-0042", "--pool", "clearquest"), 2, "pool clearquest is floating: only a named pool"),
        (("list", JOHN, "--pool", "clearquest"), 2, "pool clearquest is floating: only a named pool"),
    ],
)
def test_what_cannot_be_done_is_said(lent: ClockedHost, args: tuple[str, ...], status: int, told: str) -> None:
    """One line, and every slot as it was."""
    before = slots(lent)
    ended = lent.run("device", *args)
    assert (status, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert ended.err.startswith(f"farmlease: {told}")
    assert before == slots(lent)


def test_several_named_pools_need_a_name(host: Host) -> None:
    """Which slot is meant is not guessed."""
    host.apply(QLIKVIEW + QLIKVIEW[QLIKVIEW.index("[[pool]]") :].replace('"qlikview"', '"second"'))
    host.lend(JOHN, ended=True)
    ended = host.run("device", "release", JOHN, "citrix-a")
    told = "farmlease: name the pool with --pool; the pools are qlikview, second\n"
    assert (2, "", told) == (ended.status, ended.out, ended.err)
