"""The system's own account database, as the C library has it: real files, real sizes, and one that hangs."""

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from farmlease.node.accounts.database import Account
from farmlease.node.accounts.posix import PosixDatabase
from tests.support.account_files import AccountFiles
from tests.support.servers import require

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the accounts of Linux")

SHOW = """
import json, sys
from farmlease.node.accounts.posix import PosixDatabase
found = PosixDatabase().account(sys.argv[1])
print(json.dumps(found and [found.name, found.uid, str(found.home), found.groups]))
"""
#: A look-up in a thread, while the program counts on.
COUNT = """
import sys, threading, time
from farmlease.node.accounts.posix import PosixDatabase
answers = []
threading.Thread(target=lambda: answers.append(PosixDatabase().account("john")), daemon=True).start()
for number in range(5):
    time.sleep(0.1)
    print(number, answers, flush=True)
"""
ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\njohn:x:1001:1001:John:/home/john:/bin/sh\n"


@pytest.fixture
def host(tmp_path: Path) -> AccountFiles:
    """A host with an account for john."""
    files = AccountFiles(tmp_path)
    files.write(passwd=ACCOUNTS, group="root:x:0:\njohn:x:1001:\n")
    return files


def shown(host: AccountFiles, name: str) -> object:
    """Return what a program on this host finds."""
    done = host.run(SHOW, name)
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["root", "daemon", "nobody"])
def test_an_account_of_this_machine(name: str) -> None:
    """Name, number, home and groups are those of the system."""
    entry = pwd.getpwnam(name)
    numbers = os.getgrouplist(name, entry.pw_gid)
    groups = tuple(grp.getgrgid(number).gr_name for number in numbers)
    expected = Account(name=name, uid=str(entry.pw_uid), home=PurePosixPath(entry.pw_dir), groups=groups)
    database = PosixDatabase()
    assert expected == database.account(name)
    assert name == database.name_of(entry.pw_uid)


def test_what_the_system_does_not_know() -> None:
    """No account is an answer and no error."""
    database = PosixDatabase()
    assert (None, None) == (database.account(r"CORP\nobody here"), database.name_of(54_321))


def test_two_thousand_groups_of_256_characters(host: AccountFiles) -> None:
    r"""All of them, with blanks, \, @ and umlauts, spelt as the system has them."""
    names = [f"CORP\\{number:04} " + "Größe @ x" * 40 for number in range(2_000)]
    names = [name[:256] for name in names]
    lines = [f"{name}:x:{20_000 + number}:mary,john\n" for number, name in enumerate(names)]
    host.write(group="root:x:0:\njohn:x:1001:\nothers:x:1002:mary\n" + "".join(lines))
    assert ["john", "1001", "/home/john", ["john", *names]] == shown(host, "john")


def test_a_group_without_a_name_is_none(host: AccountFiles) -> None:
    """A primary group that nobody has named does not stand among the names."""
    host.write(group="root:x:0:\ntesters:x:1002:john\n")
    assert ["john", "1001", "/home/john", ["testers"]] == shown(host, "john")


def test_a_winbind_name_with_its_domain(host: AccountFiles) -> None:
    r"""An account may be called ``CORP\john smith``, and its home be anywhere."""
    account = "CORP\\john smith:x:1001:1001::/home/CORP/jöhn:/bin/sh\n"
    host.write(passwd=account)
    assert ["CORP\\john smith", "1001", "/home/CORP/jöhn", ["john"]] == shown(host, r"CORP\john smith")


def test_a_look_up_that_hangs_leaves_python_alone(host: AccountFiles) -> None:
    """The C library waits for its groups, and every other thread goes on; ``os.getgrouplist`` would stop them all."""
    host.hang()
    done = host.run(COUNT)
    assert [f"{number} []" for number in range(5)] == done.stdout.splitlines(), done.stderr


#: A name service that answers every question with an error: the C library loads it by its name.
BROKEN = r"""
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <grp.h>
#define FAILS { *e = ECONNREFUSED; return NSS_STATUS_UNAVAIL; }
enum nss_status _nss_fltest_getpwnam_r(const char *n, struct passwd *p, char *b, size_t s, int *e) FAILS
enum nss_status _nss_fltest_getpwuid_r(uid_t u, struct passwd *p, char *b, size_t s, int *e) FAILS
enum nss_status _nss_fltest_getgrgid_r(gid_t g, struct group *p, char *b, size_t s, int *e) FAILS
"""


@pytest.fixture
def broken(host: AccountFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AccountFiles:
    """A host with a directory beside its files that cannot be reached, as SSSD when it has ended."""
    require("cc")
    (tmp_path / "broken.c").write_text(BROKEN)
    library = tmp_path / "libnss_fltest.so.2"
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", library, tmp_path / "broken.c"], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    host.write(nsswitch="passwd: files fltest\ngroup: files fltest\n")
    return host


@pytest.mark.parametrize(("name", "group"), [("mary", "john:x:1001:\n"), ("john", "others:x:1002:\n")])
def test_what_cannot_be_asked_is_no_answer(broken: AccountFiles, name: str, group: str) -> None:
    """A user whom only the directory may know, or a group that only it can name: an error, not "there is none"."""
    broken.write(group=f"root:x:0:\n{group}")
    done = broken.run(SHOW, name)
    assert 1 == done.returncode
    assert "ConnectionRefusedError: [Errno 111] Connection refused" in done.stderr


def test_what_the_files_know_needs_no_directory(broken: AccountFiles) -> None:
    """A local account is found all the same."""
    assert ["john", "1001", "/home/john", ["john"]] == shown(broken, "john")
