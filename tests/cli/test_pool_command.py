"""``farmlease pool …``: what is applied is what was shown, what is exported is what was applied."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from tests.support.commands import QLIKVIEW as WITH_IDENTITY
from tests.support.commands import Host
from tests.support.patience import within

IDENTITY = '[identity]\ndomains = { CORP = "corp.example.com" }\n\n'
QLIKVIEW = WITH_IDENTITY.replace(IDENTITY, "")
FIELDS = ["name", "kind", "capacity", "used", "quarantined", "free", "reserved", "queued"]
CLEARQUEST = '[[pool]]\nname = "clearquest"\nkind = "named"\ncapacity = 1\n'
FLOATING = '[[pool]]\nname = "floating"\nkind = "floating"\ncapacity = 2\n'
RULE = "[[rule]]\nusers = ['CORP\\intern-*']\naccess = \"denied\"\n"
NUMBERS = {"quarantined": 0, "reserved": 0, "queued": 0}


def test_apply_puts_a_policy_in_force(host: Host) -> None:
    """The first policy adds its pools, and the farm has them."""
    ended = host.run("pool", "apply", host.write(QLIKVIEW))
    assert (0, "") == (ended.status, ended.err)
    assert f"added pool qlikview: named, 3 seats\napplied policy {host.version()}\n" == ended.out
    assert QLIKVIEW == host.run("pool", "export").out


def test_applying_the_same_changes_nothing(host: Host) -> None:
    """The policy in force applied again is unchanged, its version too."""
    host.apply(QLIKVIEW)
    before = host.version()
    ended = host.run("pool", "apply", host.write(QLIKVIEW))
    assert (0, "unchanged\n", "") == (ended.status, ended.out, ended.err)
    assert before == host.version()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (QLIKVIEW + CLEARQUEST, "added pool clearquest: named, 1 seat"),
        (CLEARQUEST, "added pool clearquest: named, 1 seat\nremoved pool qlikview"),
        (QLIKVIEW + 'lease = "60d"\n', "changed pool qlikview: lease 30d to 60d"),
        (QLIKVIEW.replace("what", "all that"), "changed the text only"),
        (
            QLIKVIEW + RULE,
            "changed rules: 1 instead of 0\n  + rule 1 (line 6): users corp\\intern-*: access denied",
        ),
    ],
)
def test_a_dry_run_tells_and_does_nothing(host: Host, text: str, told: str) -> None:
    """``--dry-run`` says what would change, and the policy stays."""
    host.apply(QLIKVIEW)
    before = host.version()
    ended = host.run("pool", "apply", host.write(text), "--dry-run")
    assert (0, f"{told}\ndry run: nothing was applied\n") == (ended.status, ended.out)
    assert ("names neither app nor pool" in ended.err) == (text.count("[[pool]]") > 1)
    assert before == host.version()
    assert QLIKVIEW == host.run("pool", "export").out


def test_a_changed_limit_holds_at_once(host: Host) -> None:
    """A capacity raised by ``apply`` is the pool's from then on."""
    host.apply(QLIKVIEW)
    host.lend("a", "b", "c")
    assert 0 == host.run("pool", "apply", host.write(QLIKVIEW.replace("3", "4"))).status
    host.lend("d")
    assert 0 == json.loads(host.run("pool", "show", "qlikview", "-o", "json").out)["free"]


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("pool = [", "is not TOML"),
        (QLIKVIEW + "capcity = 3\n", 'line 6: pool[0].capcity: unknown key; the nearest valid one is "capacity"'),
        (b"\xff[[pool]]", "is not UTF-8 text"),
        (QLIKVIEW + 'session_timeout = "2m"\n', "pool qlikview: session_timeout 2m is not more than twice"),
        (QLIKVIEW + "nodes = ['n']\n", "line 6: pool[0].nodes: is for a node_locked pool only"),
        (QLIKVIEW + "reserve = [{ users = ['x'], seats = 4 }]\n", "line 6: pool[0].reserve: reserves 4 seats of 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(host: Host, policy: str | bytes, told: str) -> None:
    """A policy that cannot be meant, or that would be ignored in part, is refused with file, line and key."""
    file = host.write(policy)
    ended = host.run("pool", "apply", file)
    assert (2, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert ended.err.startswith(f"farmlease: {file}: ")
    assert told in ended.err
    assert 0 == host.version()


def test_a_condition_that_never_matches_is_refused_with_its_line(host: Host) -> None:
    """A rule for an alias would be no rule: apply says whom to write, and nothing is changed."""
    table = IDENTITY.replace("\n\n", "\naliases = { 'CORP\\adm-john' = 'CORP\\john' }\n\n")
    file = host.write(table + QLIKVIEW + "[[rule]]\nusers = ['adm-john@corp.example.com']\naccess = 'denied'\n")
    ended = host.run("pool", "apply", file)
    told = f"farmlease: {file}: line 11: rule[0].users[0]: is an alias, under which nobody starts a session: write the"
    assert (2, "", 0) == (ended.status, ended.out, host.version())
    assert ended.err.startswith(told)


def test_apply_warns_of_what_is_probably_not_meant(host: Host) -> None:
    """A domain that nobody listed, and sessions that get no pool: told to stderr, and applied all the same."""
    file = host.write(IDENTITY + QLIKVIEW + CLEARQUEST + "[[rule]]\nusers = ['CROP\\john']\npools = ['qlikview']\n")
    ended = host.run("pool", "apply", file, "--yes")
    assert 0 == ended.status
    assert f'farmlease: warning: {file}: line 14: rule[0].users[0]: the domain "crop" is none' in ended.err
    assert f"farmlease: warning: {file}: a session that names neither app nor pool gets no pool" in ended.err
    assert "changed who is who ([identity]): domains" in ended.out


def test_a_hosts_own_table_counts_until_the_policy_has_one(host: Host) -> None:
    """A farm that still has [identity] in farmlease.toml goes on as before, and no longer once the policy says it."""
    with host.config_file.open("a") as file:
        file.write('[identity]\ndomains = { CORP = "corp.example.com" }\n')
    host.apply(QLIKVIEW)
    host.lend("CORP\\john", ended=True)
    assert 0 == host.run("lease", "show", "john@corp.example.com").status
    host.apply(IDENTITY.replace("corp.example.com", "elsewhere.example") + QLIKVIEW)
    assert 1 == host.run("lease", "show", "john@corp.example.com").status
    assert 0 == host.run("lease", "show", "john@elsewhere.example").status


def test_a_policy_of_an_editor_on_windows(host: Host) -> None:
    """A byte order mark and carriage returns change nothing; what is in force has no mark."""
    text = QLIKVIEW.replace("\n", "\r\n")
    assert 0 == host.run("pool", "apply", host.write(b"\xef\xbb\xbf" + text.encode())).status
    assert 3 == json.loads(host.run("pool", "show", "qlikview", "-o", "json").out)["capacity"]
    assert "unchanged\n" == host.run("pool", "apply", host.write(text.encode())).out


def test_every_rule_is_kept_whatever_the_kind(host: Host) -> None:
    """All kinds, reservations, queue, holds and idle times may be asked for."""
    text = (
        QLIKVIEW
        + FLOATING
        + "reserve = [{ users = ['x'], seats = 1 }]\nqueue = '1m'\nmax_hold = '1m'\nidle_timeout = '1m'\n"
        + '[[pool]]\nname = "locked"\nkind = "node_locked"\nnodes = ["ctx-07"]\n'
    )
    assert 0 == host.run("pool", "apply", host.write(text)).status


def test_a_file_that_is_not_there_is_wrong_usage(host: Host) -> None:
    """The line names the file."""
    ended = host.run("pool", "apply", "nowhere.toml")
    assert (2, "", "farmlease: nowhere.toml: there is no such file\n") == (ended.status, ended.out, ended.err)


def test_a_pool_with_leases_is_removed_on_demand_only(host: Host) -> None:
    """Without a terminal a pool whose seats are held goes only with --yes."""
    host.apply(QLIKVIEW + CLEARQUEST)
    host.lend("john", "mary", ended=True)
    file = host.write(CLEARQUEST)
    ended = host.run("pool", "apply", file)
    told = "farmlease: this removes pools with leases: qlikview (2 held); nothing was changed; confirm with --yes\n"
    out = (
        "removed pool qlikview\naffected: 2 users with leases in the removed pool qlikview: john, mary\n"
        "the leases of pool qlikview stay listed until they end, and `farmlease lease return USER --pool qlikview` "
        "gives one back\n"
    )
    assert (1, out, told) == (ended.status, ended.out, ended.err)
    assert QLIKVIEW + CLEARQUEST == host.run("pool", "export").out
    assert 0 == host.run("pool", "apply", file, "--yes").status
    assert CLEARQUEST == host.run("pool", "export").out


def test_a_pool_without_leases_is_removed_without_a_word(host: Host) -> None:
    """Where nothing is lost nothing is asked."""
    host.apply(QLIKVIEW + CLEARQUEST)
    assert 0 == host.run("pool", "apply", host.write(CLEARQUEST)).status


@contextmanager
def at_a_terminal(*command: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a command whose stdin is a terminal; yields it and the terminal's other end."""
    if sys.platform == "win32":
        pytest.skip("no pseudo terminals")
    else:
        master, slave = os.openpty()
        with subprocess.Popen(
            command, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            os.close(slave)
            try:
                yield process, master
            finally:
                os.close(master)


@pytest.mark.parametrize(("answer", "status", "left"), [("y", 0, CLEARQUEST), ("n", 1, QLIKVIEW + CLEARQUEST)])
def test_a_terminal_is_asked(host: Host, answer: str, status: int, left: str) -> None:
    """On a terminal the administrator is asked, and the answer counts."""
    host.apply(QLIKVIEW + CLEARQUEST)
    host.lend("john")
    with at_a_terminal(*host.command("pool", "apply", host.write(CLEARQUEST))) as (process, terminal):
        os.write(terminal, f"{answer}\n".encode())
        out, err = process.communicate(timeout=within(30))
    assert status == process.returncode
    assert "qlikview (1 held). Go on?" in out + err
    assert left == host.run("pool", "export").out


def test_a_policy_that_changed_meanwhile_stays(host: Host) -> None:
    """What was shown is what is replaced: another administrator's policy, applied during the question, is not lost."""
    host.apply(QLIKVIEW + CLEARQUEST)
    host.lend("john")
    other = QLIKVIEW + CLEARQUEST + RULE
    with at_a_terminal(*host.command("pool", "apply", host.write(CLEARQUEST))) as (process, terminal):
        assert process.stdout is not None
        assert "removed pool qlikview\n" == process.stdout.readline()
        assert process.stdout.readline().startswith("affected: 1 user ")
        host.apply(other)
        os.write(terminal, b"y\n")
        _, err = process.communicate(timeout=within(30))
    assert 1 == process.returncode
    assert "another administrator applied a policy meanwhile" in err
    assert other == host.run("pool", "export").out


def test_export_is_byte_for_byte(host: Host) -> None:
    """Comments, line ends, letters and a missing last line end come back as they were."""
    text = (
        (
            "# Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}\N{LATIN SMALL LETTER SHARP S}e\r\n"
            + QLIKVIEW.replace("\n", "\r\n")
        )
        .rstrip()
        .encode()
    )
    assert 0 == host.run("pool", "apply", host.write(text)).status
    done = subprocess.run(host.command("pool", "export"), capture_output=True, check=True)
    assert text == done.stdout


def test_list_counts_the_seats_that_are_held(host: Host) -> None:
    """Active and idle leases hold a seat; each row has exactly the promised fields."""
    host.apply(QLIKVIEW + CLEARQUEST)
    host.lend("john")
    host.lend("mary", ended=True)
    rows = [
        {"name": "qlikview", "kind": "named", "capacity": 3, "used": 2, "free": 1} | NUMBERS,
        {"name": "clearquest", "kind": "named", "capacity": 1, "used": 0, "free": 1} | NUMBERS,
    ]
    listed = json.loads(host.run("pool", "list", "-o", "json").out)
    assert rows == listed
    assert [FIELDS, FIELDS] == [list(row) for row in listed]
    assert rows[0] == json.loads(host.run("pool", "show", "qlikview", "-o", "json").out)
    in_csv = csv.reader(io.StringIO(host.run("pool", "list", "-o", "csv").out))
    assert [FIELDS, *([str(row[field]) for field in FIELDS] for row in rows)] == list(in_csv)


def test_an_unknown_pool_is_told_with_the_known_ones(host: Host) -> None:
    """Who mistypes a pool is shown what there is."""
    host.apply(QLIKVIEW + CLEARQUEST)
    told = "farmlease: there is no pool of this name; the pools are clearquest, qlikview\n"
    for args in (
        ("pool", "show", "qlick"),
        ("lease", "list", "--pool", "qlick"),
        ("lease", "show", "j", "--pool", "q"),
    ):
        ended = host.run(*args)
        assert (1, "", told) == (ended.status, ended.out, ended.err)


@pytest.mark.parametrize("args", [("pool", "list"), ("pool", "export"), ("lease", "list"), ("lease", "check", "john")])
def test_without_a_policy_the_way_to_one_is_told(host: Host, args: tuple[str, ...]) -> None:
    """A farm that was given no policy has no pools to show."""
    ended = host.run(*args)
    assert (1, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert "farmlease pool apply" in ended.err


@pytest.mark.parametrize(
    "args", [("pool", "list"), ("pool", "apply", "FILE"), ("lease", "list"), ("lease", "check", "j")]
)
def test_a_store_that_is_away_is_status_4(host: Host, args: tuple[str, ...]) -> None:
    """Where nobody answers, one line says where was asked."""
    file = host.write(QLIKVIEW)
    host.store.process.kill()
    host.store.process.wait(within(10))
    ended = host.run(*(file if arg == "FILE" else arg for arg in args))
    assert (4, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert str(host.store.socket) in ended.err


def test_another_farms_keys_are_status_5(host: Host) -> None:
    """With the wrong ring nothing opens, nothing is replaced, and the line says which ring to take."""
    host.apply(QLIKVIEW)
    own = host.ring_file.rename(host.folder / "own.json")
    keyring_file.create(host.ring_file, KeyRing.generate(int(time.time() * 1000)))
    for args in (("pool", "list"), ("pool", "apply", host.write(CLEARQUEST), "--yes")):
        ended = host.run(*args)
        assert (5, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
        assert f"{host.ring_file}: the farm's policy does not open with this node's key ring" in ended.err
    own.replace(host.ring_file)
    assert QLIKVIEW == host.run("pool", "export").out
