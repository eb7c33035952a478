"""``farmlease lease import``: the leases of the vendor's own books, taken over row by row."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from farmlease.cli.lease.import_csv import Importer
from farmlease.domain.vendor_csv import LicenceRow, RejectedRow
from farmlease.errors import StoreUnavailable
from tests.support.commands import QLIKVIEW, ClockedHost, Host
from tests.support.patience import within
from tests.support.stores import DAY, HOUR, NINE

HEADER = "UserName,MachineId,UtcBorrowTime\n"
BOOKS = HEADER + (
    "CORP\\john,M1,2026-01-05 08:00:00\n"
    "john@corp.example.com,M2,1/4/2026 9:00:00 AM\n"
    "CORP\\mary,M3,2026-01-02T12:00:00Z\n"
    "CORP\\zoe,M4,\n"
)


def book(host: Host, text: str) -> str:
    """Write a CSV file; returns its path."""
    file = host.folder / "books.csv"
    file.write_text(text, encoding="utf-8")
    return str(file)


def leases(host: Host) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return who holds what until when, device by device."""
    rows: list[dict[str, Any]] = json.loads(host.run("lease", "list", "-o", "json").out)
    return sorted(
        (row["user"], row["expires_at"][:16], [(each["device"], each["until"][:16]) for each in row["devices"]])
        for row in rows
    )


def load(host: Host, text: str) -> tuple[int, str, str]:
    """Import a text; returns status, summary and what was said of bad rows, without the file's name."""
    file = book(host, text)
    ended = host.run("lease", "import", file, "--pool", "qlikview")
    return ended.status, ended.out, ended.err.replace(f"farmlease: {file}: ", "")


def test_users_of_domains_that_are_refused_are_not_imported(clocked: ClockedHost) -> None:
    """Whom the farm would refuse gets no lease from the books either; the row is told, without the name."""
    clocked.apply(QLIKVIEW.replace("[identity]\n", '[identity]\nunknown_domains = "refuse"\n'))
    status, out, err = load(clocked, HEADER + "CORP\\john,M1,\njohn@other.example,M2,\n")
    assert (1, "imported 1, known before 0, bad 1\n") == (status, out)
    assert "line 3: the user's domain is none that [identity] lists, and unknown ones are refused\n" == err


def test_leases_are_taken_over_as_they_are(clocked: ClockedHost) -> None:
    """Borrowed at 08:00 for 30 days: the lease ends when the vendor's does; one never used counts from now."""
    clocked.apply(QLIKVIEW)
    assert (0, "imported 4, known before 0, bad 0\n", "") == load(clocked, BOOKS)
    assert [
        ("corp\\john", "2026-02-04T08:00", [("m1", "2026-02-04T08:00"), ("m2", "2026-02-03T09:00")]),
        ("corp\\mary", "2026-02-01T12:00", [("m3", "2026-02-01T12:00")]),
        ("corp\\zoe", "2026-02-04T09:00", [("m4", "2026-02-04T09:00")]),
    ] == leases(clocked)
    assert "VALID\n" == clocked.run("lease", "check", "CORP\\john", "--device", "M2").out
    clocked.lend("CORP\\mary")
    with pytest.raises(AssertionError, match="device_limit"):
        clocked.lend("CORP\\john")


def test_importing_twice_changes_nothing(clocked: ClockedHost) -> None:
    """The same file an hour later: every row is known, and every deadline as it was."""
    clocked.apply(QLIKVIEW)
    load(clocked, BOOKS)
    before = leases(clocked)
    clocked.clock.advance(HOUR)
    assert (0, "imported 0, known before 4, bad 0\n", "") == load(clocked, BOOKS)
    assert before == leases(clocked)


def test_a_newer_book_prolongs_and_an_older_one_does_not_shorten(clocked: ClockedHost) -> None:
    """John borrowed again at 08:30; the old export that says 08:00 comes too late to matter."""
    clocked.apply(QLIKVIEW)
    load(clocked, HEADER + "john,M1,2026-01-05 08:00:00\n")
    assert (0, "imported 1, known before 0, bad 0\n", "") == load(clocked, HEADER + "john,M1,2026-01-05 08:30:00\n")
    assert (0, "imported 0, known before 1, bad 0\n", "") == load(clocked, HEADER + "john,M1,2026-01-05 08:00:00\n")
    assert [("john", "2026-02-04T08:30", [("m1", "2026-02-04T08:30")])] == leases(clocked)


def test_a_seat_never_used_is_free_at_once_when_returned(clocked: ClockedHost) -> None:
    """Assigned and never used: no quarantine of the seat, nor of the device."""
    clocked.apply(QLIKVIEW)
    load(clocked, HEADER + "zoe,M4,\nzoe,M5,\n")
    assert "released device m5; its slot is free now\n" == clocked.run("device", "release", "zoe", "M5").out
    ended = clocked.run("lease", "return", "zoe", "--pool", "qlikview", "--yes")
    assert ended.out.endswith("it is free for others now\n")
    assert [] == leases(clocked)


def test_the_quarantine_counts_from_the_last_use_in_the_books(clocked: ClockedHost) -> None:
    """Whatever the order of rows: last borrowed on 4 January 12:00, returned now, free on 5 January 12:00."""
    clocked.apply(QLIKVIEW)
    load(clocked, HEADER + "john,M1,\njohn,M2,2026-01-04 12:00:00\n")
    ended = clocked.run("lease", "return", "john", "--pool", "qlikview", "--yes")
    assert ended.out.endswith("it is quarantined until 2026-01-05 12:00 UTC\n")


def test_bad_rows_are_listed_and_the_rest_imported(clocked: ClockedHost) -> None:
    """Each with its line and its reason; the exit status says that there were some."""
    clocked.apply(QLIKVIEW)
    text = HEADER + (
        "john,M1,2026-01-05 08:00:00\n"
        ",M1,\n"
        "mary,,\n"
        "mary,M\x1b3,\n"
        "../mary,M3,\n"
        "mary,M3,5.1.2026\n"
        "mary,M3,2026-01-05 09:00:01\n"
        "mary,M3,2025-12-06 09:00:00\n"
        "mary,M3,2025-12-06 09:00:01\n"
    )
    status, out, err = load(clocked, text)
    assert (1, "imported 2, known before 0, bad 7\n") == (status, out)
    assert [
        "line 3: the UserName is empty",
        "line 4: the MachineId is empty",
        "line 5: the machine id holds a control character, or is no text; leave it out",
        'line 6: the name or the domain of a user has one of / \\ : * ? " < > | @; leave it out',
        "line 7: the time is in no known form; write 2026-01-31 09:00:00, or 1/31/2026 9:00:00 AM",
        "line 8: the time is in the future by the store's clock; is it in UTC?",
        "line 9: the lease would have ended at 2026-01-05 09:00 UTC",
    ] == err.splitlines()
    assert ["john", "mary"] == [user for user, *_ in leases(clocked)]


def test_a_row_beyond_a_limit_is_bad(clocked: ClockedHost) -> None:
    """The pool's seats and a user's devices are limited for the books as for everybody."""
    clocked.apply(QLIKVIEW)
    rows = "john,M1,\njohn,M2,\njohn,M3,\nmary,M4,\nzoe,M5,\npaul,M6,\n"
    status, out, err = load(clocked, HEADER + rows)
    assert (1, "imported 4, known before 0, bad 2\n") == (status, out)
    assert [
        "line 4: the user is on as many devices as the pool allows: 2",
        "line 7: all seats of pool qlikview are taken, 3 of 3",
    ] == err.splitlines()


def test_reserved_seats_are_kept_from_the_books(clocked: ClockedHost) -> None:
    """Two of three seats are kept for the directors: of two others one gets in, and a director does."""
    clocked.apply(QLIKVIEW + "reserve = [{ users = ['dir-*'], seats = 2 }]\n")
    status, out, err = load(clocked, HEADER + "john,M1,\nmary,M2,\ndir-ann,M3,\n")
    assert (1, "imported 2, known before 0, bad 1\n") == (status, out)
    assert "line 3: the free seats of pool qlikview are reserved for others\n" == err
    use = json.loads(clocked.run("pool", "show", "qlikview", "-o", "json").out)
    assert (2, 1, 1) == (use["used"], use["free"], use["reserved"])


def test_what_an_administrator_took_back_is_not_imported(clocked: ClockedHost) -> None:
    """An old book does not undo a return or a revocation."""
    clocked.apply(QLIKVIEW)
    load(clocked, HEADER + "john,M1,2026-01-05 08:00:00\nmary,M2,2026-01-05 08:00:00\nzoe,M3,\n")
    for verb in (("return", "john"), ("revoke", "mary", "--reason", "x"), ("revoke", "zoe", "--reason", "x")):
        assert 0 == clocked.run("lease", *verb, "--pool", "qlikview", "--yes").status
    status, out, err = load(clocked, HEADER + "john,M9,2026-01-05 08:30:00\nmary,M2,2026-01-05 08:30:00\nzoe,M3,\n")
    assert (1, "imported 0, known before 0, bad 3\n") == (status, out)
    revoked = "the user's seat was revoked, and the user is kept out for now"
    assert [
        "line 2: the user's seat was given back and is quarantined", f"line 3: {revoked}", f"line 4: {revoked}",
    ] == err.splitlines()  # fmt: skip


def test_a_lapsed_lease_is_imported_anew(clocked: ClockedHost) -> None:
    """L1: what has ended has no claim left: it needs a free seat like everybody."""
    clocked.apply(QLIKVIEW.replace("3", "1"))
    load(clocked, HEADER + "john,M1,2026-01-05 08:00:00\n")
    clocked.clock.set(NINE + 30 * DAY - HOUR)
    assert (0, "imported 1, known before 0, bad 0\n", "") == load(clocked, HEADER + "mary,M2,2026-02-01 08:00:00\n")
    status, _, err = load(clocked, HEADER + "john,M1,2026-02-01 08:00:00\n")
    assert (1, "line 2: all seats of pool qlikview are taken, 1 of 1\n") == (status, err)


def test_a_store_that_goes_away_meanwhile_is_told_with_how_far_it_was(
    clocked: ClockedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 4, and what was imported is counted: the same again takes the rest."""
    clocked.apply(QLIKVIEW)
    real = Importer.import_row

    def cut(importer: Importer, row: LicenceRow | RejectedRow) -> tuple[str, str]:
        if row.line > 3:
            raise StoreUnavailable("the store is away")
        return real(importer, row)

    monkeypatch.setattr(Importer, "import_row", cut)
    text = HEADER + "john,M1,\nmary,M2,\nzoe,M3,\n"
    status, out, err = load(clocked, text)
    assert (4, "") == (status, out)
    assert [
        "stopped: imported 2, known before 0, bad 0; run it again to go on", "farmlease: the store is away",
    ] == err.splitlines()  # fmt: skip
    monkeypatch.undo()
    assert (0, "imported 1, known before 2, bad 0\n", "") == load(clocked, text)


def test_a_bar_on_the_terminal_says_how_far_it_is(host: Host) -> None:
    """Bad rows stand above it, each whole; the summary goes to stdout alone."""
    host.apply(QLIKVIEW)
    file = book(host, HEADER + "john,M1,\n,M2,\nmary,M3,\n")
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))
    done = subprocess.run(
        host.command("lease", "import", file, "--pool", "qlikview"), stderr=terminal, stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL, check=False, timeout=within(60), env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    shown = os.read(main, 100_000).decode()
    os.close(main)
    os.close(terminal)
    assert (1, b"imported 2, known before 0, bad 1\n") == (done.returncode, done.stdout)
    assert f"farmlease: {file}: line 3: the UserName is empty\r\n" in shown
    assert "3/3" in shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("john,M1,\n", "the first line must name the columns UserName, MachineId, UtcBorrowTime, each once"),
        ("", "the first line must name the columns UserName, MachineId, UtcBorrowTime, each once"),
    ],
)
def test_a_file_without_the_columns_is_wrong_usage(host: Host, text: str, told: str) -> None:
    """Nothing is imported where the columns are not named."""
    host.apply(QLIKVIEW)
    assert (2, "", f"{told}\n") == load(host, text)


def test_a_file_that_is_not_there_is_wrong_usage(host: Host, tmp_path: Path) -> None:
    """The line names the file."""
    host.apply(QLIKVIEW)
    ended = host.run("lease", "import", str(tmp_path / "nowhere.csv"), "--pool", "qlikview")
    assert (2, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert "nowhere.csv: cannot be read: No such file" in ended.err


def test_only_a_named_pool_has_leases_to_import(host: Host) -> None:
    """A floating seat without a session is nobody's."""
    host.apply(QLIKVIEW.replace('"named"', '"floating"'))
    status, out, err = load(host, BOOKS)
    assert (2, "") == (status, out)
    assert "pool qlikview is floating: only a named pool has leases to import" in err
