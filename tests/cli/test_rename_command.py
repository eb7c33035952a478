r"""Leases under names that their users no longer have: told, moved, and addressed as a list prints them."""

import json

import pytest

from farmlease.admin.renaming import DueRename, LeaseRenamer
from farmlease.farm import Farm
from farmlease.store.name_store import Rename
from tests.support.commands import CLEARQUEST, Ended, Host, me

PLAIN = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 5\n'
CORP = '[identity]\ndefault_domain = "CORP"\ndomains = { CORP = ["corp.example.com"] }\n' + PLAIN


def listed(host: Host, *args: str) -> list[str]:
    """Return whose leases a list shows."""
    return sorted(lease["user"] for lease in json.loads(host.run("lease", "list", "-o", "json", *args).out))


def applied(host: Host, policy: str, *args: str) -> list[str]:
    """Apply a policy; return what is said."""
    ended = host.run("pool", "apply", host.write(policy), *args)
    assert (0, "") == (ended.status, ended.err)
    return ended.out.splitlines()


def refused(ended: Ended) -> str:
    """Return why a command failed."""
    assert (1, "") == (ended.status, ended.out)
    return ended.err.removeprefix("farmlease: ").rstrip("\n")


def searches(host: Host) -> bool:
    """Whether agents look under former names."""

    async def read(farm: Farm) -> bool:
        return (await farm.policy()).former_names

    return host.with_farm(read)


def test_a_dry_run_names_every_lease_that_would_be_renamed(host: Host) -> None:
    """Old and new name, and what has to wait; nothing moves."""
    host.apply(PLAIN)
    host.lend("alice", "carol@corp.example.com", ended=True)
    host.lend("bob")
    host.lend("CORP\\dora", ended=True)
    lines = applied(host, CORP, "--dry-run")
    assert {
        "rename: alice -> corp\\alice in pool qlikview",
        "waits: bob -> corp\\bob in pool qlikview has 1 session",
    } < set(lines)
    assert "dry run: nothing was applied" == lines[-1]
    assert "alice" in listed(host)
    assert not any("dora" in line for line in lines)


def test_apply_moves_leases_and_the_next_one_those_that_were_in_use(host: Host) -> None:
    """Until none is left agents look under former names; from then on they do not."""
    host.apply(PLAIN)
    host.lend("alice", ended=True)
    host.lend("bob")
    lines = applied(host, CORP)
    assert f"applied policy {host.version()}" in lines
    assert "renamed: alice -> corp\\alice in pool qlikview" in lines
    assert "1 lease left under former names" in lines[-1]
    assert ["bob", "corp\\alice"] == listed(host)
    assert searches(host)

    host.end("bob")
    version = host.version()
    lines = applied(host, CORP)
    assert "renamed: bob -> corp\\bob in pool qlikview" == lines[-1]
    assert ["corp\\alice", "corp\\bob"] == listed(host)
    assert (False, version) == (searches(host), host.version())
    assert ["unchanged"] == applied(host, CORP)


def test_a_record_opens_under_the_new_name(host: Host) -> None:
    """L6: it was sealed anew for the index that it moved to."""
    host.apply(PLAIN)
    host.lend("alice", ended=True)
    applied(host, CORP)
    assert "VALID\n" == host.run("lease", "check", "CORP\\alice").out
    assert "VALID\n" == host.run("lease", "check", "alice").out


def test_a_rename_is_audited_with_who_did_it(host: Host) -> None:
    """The new name, the old index and in the note the old name; --user finds what was before by any of them."""
    host.apply(PLAIN)
    host.lend("alice", ended=True)
    applied(host, CORP)
    for name in ("alice", "CORP\\alice", "alice@corp.example.com"):
        events = [json.loads(line) for line in host.run("audit", "--user", name, "-o", "json").out.splitlines()]
        assert ["acquired", "released", "renamed"] == [event["event"] for event in events]
    renamed = events[-1]
    assert ("corp\\alice", "was alice", me()) == (renamed["user"], renamed["note"], renamed["by"])
    assert renamed["detail"] == events[0]["index"] != renamed["index"]


def test_who_has_a_lease_under_both_names_keeps_both(host: Host) -> None:
    """Nothing is joined: both are listed, each by its name, and told with the line that mends it."""
    host.apply(PLAIN)
    host.lend("alice", "CORP\\alice", ended=True)
    lines = applied(host, CORP)
    (told,) = [line for line in lines if line.startswith("two leases: ")]
    assert "farmlease lease return alice --pool qlikview, or 'corp\\alice'" in told
    assert ["alice", "corp\\alice"] == listed(host) == listed(host, "--user", "alice@corp.example.com")
    for name, other in (("alice", "corp\\alice"), ("corp\\alice", "alice")):
        shown = host.run("lease", "show", name).out
        assert shown.startswith(f"{name} holds a named seat")
        assert f"{other} is the same person" in " ".join(shown.split())
    assert "farmlease lease return 'corp\\alice' --pool qlikview" in host.run("lease", "show", "alice").out

    assert 0 == host.run("lease", "return", "alice", "--pool", "qlikview", "--yes").status
    states = {lease["user"]: lease["state"] for lease in json.loads(host.run("lease", "list", "-o", "json").out)}
    assert {"alice": "quarantined", "corp\\alice": "idle"} == states


@pytest.mark.parametrize(
    "command",
    [
        ("lease", "show"),
        ("lease", "check"),
        ("lease", "list", "--user"),
        ("device", "list"),
        ("audit", "--user"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("spelling", ["bob", "CORP\\bob", "bob@corp.example.com"])
def test_a_lease_in_use_is_found_by_either_name(host: Host, command: tuple[str, ...], spelling: str) -> None:
    """A name exactly as a list prints it, and every other spelling of the person."""
    host.apply(PLAIN)
    host.lend("bob")
    applied(host, CORP)
    ended = host.run(*command, spelling)
    assert (0, "") == (ended.status, ended.err)
    assert ("bob" if command[1] != "check" else "VALID") in ended.out


def test_what_changes_a_lease_finds_it_by_either_name(host: Host) -> None:
    """Devices, returns and revocations alike."""
    host.apply(PLAIN)
    host.lend("bob", device="NB-1")
    applied(host, CORP)
    assert 0 == host.run("device", "replace", "CORP\\bob", "NB-1", "NB-2", "--reason", "r", "--yes").status
    assert 0 == host.run("device", "release", "bob", "NB-2").status
    assert (
        0 == host.run("lease", "revoke", "bob@corp.example.com", "--pool", "qlikview", "--reason", "r", "--yes").status
    )
    assert "holds a lease in pool qlikview" in refused(host.run("lease", "forget", "CORP\\bob", "--yes"))


def test_forgetting_erases_former_names_too(host: Host) -> None:
    """No name of the person is left, in whichever spelling it was stored."""
    host.apply(PLAIN.replace("capacity", 'quarantine = "0s"\ncapacity'))
    host.lend("alice", ended=True)
    applied(host, CORP.replace("capacity", 'quarantine = "0s"\ncapacity'))
    assert 0 == host.run("lease", "return", "alice", "--pool", "qlikview", "--yes").status
    assert 0 == host.run("lease", "forget", "CORP\\alice", "--yes").status
    events = [json.loads(line) for line in host.run("audit", "-o", "json").out.splitlines()]
    assert not any("alice" in f"{event['user']} {event['note']}" for event in events)
    assert {"configured", "acquired", "renamed", "forgotten"} <= {event["event"] for event in events}
    assert 1 == host.run("lease", "forget", "alice", "--yes").status


def test_a_lease_that_was_imported_stays_one(host: Host) -> None:
    """A row of a person whose lease is in use under a former name is a device of that lease, not a second one."""
    host.apply(PLAIN)
    host.lend("bob")
    applied(host, CORP)
    file = host.folder / "books.csv"
    file.write_text("UserName,MachineId,UtcBorrowTime\nCORP\\bob,NB-7,\n")
    ended = host.run("lease", "import", str(file), "--pool", "qlikview")
    assert "imported 1, known before 0, bad 0\n" == ended.out
    (lease,) = json.loads(host.run("lease", "list", "-o", "json").out)
    assert ("bob", ["citrix-a", "nb-7"]) == (lease["user"], [each["device"] for each in lease["devices"]])


def test_a_revocation_moves_without_a_lease(host: Host) -> None:
    """Who was kept out under the old name is kept out under the new one."""
    host.apply(PLAIN)
    host.lend("alice", ended=True)
    host.run("lease", "revoke", "alice", "--pool", "qlikview", "--reason", "left", "--yes")
    assert "renamed: alice -> corp\\alice in pool qlikview" in applied(host, CORP)
    host.lend("CORP\\zoe", ended=True)
    with pytest.raises(AssertionError, match="REVOKED"):
        host.lend("CORP\\alice")


def test_a_revocation_waits_for_a_session_and_moves_with_the_next_apply(host: Host) -> None:
    """It is told whose session holds it up; once that has ended, the next apply moves it, and nothing is left."""
    floating = PLAIN.replace('"named"', '"floating"\nquarantine = "1h"')
    host.apply(floating)
    host.lend("alice")
    assert 0 == host.run("lease", "revoke", "alice", "--pool", "qlikview", "--reason", "left", "--yes").status
    host.lend("CORP\\alice")
    corp = CORP.replace(PLAIN, floating)
    told = "waits: the revocation of alice -> corp\\alice in pool qlikview: corp\\alice has a session"
    assert told in applied(host, corp)
    assert searches(host)
    host.end("CORP\\alice")
    assert "renamed: the revocation of alice -> corp\\alice in pool qlikview" == applied(host, corp)[-1]
    assert not searches(host)
    with pytest.raises(AssertionError, match="REVOKED"):
        host.lend("CORP\\alice")


def test_an_interrupted_apply_goes_on_with_the_next(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had moved has, and what had not moves; meanwhile agents look under former names."""
    host.apply(PLAIN)
    host.lend("alice", "bob", "carol", ended=True)
    moved, move = 0, LeaseRenamer.move

    async def once(self: LeaseRenamer, due: DueRename) -> Rename:
        nonlocal moved
        moved += 1
        if moved == 2:
            raise KeyboardInterrupt
        return await move(self, due)

    with monkeypatch.context() as patched:
        patched.setattr(LeaseRenamer, "move", once)
        assert 130 == host.run("pool", "apply", host.write(CORP)).status
    assert 2 == len([name for name in listed(host) if "\\" not in name])
    assert searches(host)
    applied(host, CORP)
    assert ["corp\\alice", "corp\\bob", "corp\\carol"] == listed(host)
    assert not searches(host)


# --- by hand -----------------------------------------------------------------------------------------------------------


def test_rename_by_hand_moves_one_person_in_all_pools(host: Host) -> None:
    """It asks first, and tells what it did."""
    host.apply(PLAIN + CLEARQUEST.replace("floating", "named"))
    host.lend("miller", ended=True)
    host.lend("miller", pool="clearquest", ended=True)
    assert "confirm with --yes" in refused(host.run("lease", "rename", "miller", "smith"))
    dry = host.run("lease", "rename", "miller", "smith", "--dry-run")
    assert dry.out.endswith("dry run: nothing was renamed\n")
    assert ["miller", "miller"] == listed(host)
    ended = host.run("lease", "rename", "miller", "smith", "--yes")
    assert (0, "") == (ended.status, ended.err)
    assert "renamed miller -> smith in pool clearquest\n" in ended.out
    assert ["smith", "smith"] == listed(host)
    last = json.loads(host.run("audit", "--user", "smith", "-o", "json").out.splitlines()[-1])
    assert ("renamed", me(), "was miller") == (last["event"], last["by"], last["note"])


@pytest.mark.parametrize(
    ("told", "new"),
    [
        ("john has 1 session in pool qlikview; nothing was changed; rename again when that is over", "smith"),
        ("mary holds a lease of its own in pool qlikview, and two are never joined; give one back with", "mary"),
        ("what the user holds stands under the name john already; nothing was changed", "John"),
    ],
)
def test_a_rename_that_cannot_be_is_refused_with_what_to_do(host: Host, told: str, new: str) -> None:
    """Nothing is changed, in no pool."""
    host.apply(PLAIN)
    host.lend("john", "mary")
    assert told in refused(host.run("lease", "rename", "john", new, "--yes"))
    assert ["john", "mary"] == listed(host)


def test_a_rename_of_nobody_is_refused(host: Host) -> None:
    """The line says where names are listed."""
    host.apply(PLAIN)
    assert "zoe holds no lease; see `farmlease lease list`" == refused(
        host.run("lease", "rename", "zoe", "smith", "--yes")
    )


# --- identity check ----------------------------------------------------------------------------------------------------


def test_identity_check_finds_nothing_on_a_usual_farm(host: Host) -> None:
    """Exit status 0."""
    host.apply(CORP)
    host.lend("CORP\\alice", "CORP\\bob")
    ended = host.run("identity", "check", "-o", "json")
    assert (0, []) == (ended.status, json.loads(ended.out))


def test_identity_check_lists_pairs_with_the_line_that_mends_them(host: Host) -> None:
    """Exit status 1, in each format."""
    host.apply(CORP.replace('default_domain = "CORP"\n', ""))
    host.lend("CORP\\alice", "alice", ended=True)
    ended = host.run("identity", "check", "-o", "json")
    assert [
        {
            "finding": "one mapping apart",
            "pool": "",
            "user": "alice",
            "other": "corp\\alice",
            "mend": 'default_domain = "CORP"',
        }
    ] == json.loads(ended.out)
    assert 1 == ended.status
    assert "mend" in host.run("identity", "check", "-o", "csv").out.splitlines()[0]
    assert 'default_domain = "CORP"' in host.run("identity", "check").out


def test_identity_check_needs_a_policy(host: Host) -> None:
    """Without one nothing says who is who."""
    assert "no policy was applied" in refused(host.run("identity", "check"))
