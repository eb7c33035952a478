"""Nothing from outside is obeyed by a terminal or run by a spreadsheet: every command, over a store full of hostile text.

Names in the store come from hosts, directories, vendors and administrators, and whoever may write to Redis writes
anything. Here all of them hold escape sequences, controls, and characters that turn the direction of a line.
"""

import csv
import io
import json
import re
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import click
import pytest
from typing_extensions import override

from farmlease.admin.leases import LeaseAdmin
from farmlease.cli import farmlease
from farmlease.crypto.seal import RecordBinding
from farmlease.domain.identity import User
from farmlease.domain.model import Withdrawal
from farmlease.domain.node_view import Wish
from farmlease.domain.record import BorrowedRecord, encode
from farmlease.farm import Farm
from farmlease.store.answers.session import Claim, Taken, Taking
from farmlease.store.connection import server_life
from farmlease.store.connection.server_life import parse_info
from farmlease.store.inspect import server_facts
from farmlease.store.node_store import Report
from tests.cli.test_command_tree import leaves
from tests.support.commands import CLEARQUEST, QLIKVIEW, Ended, Host, host_of
from tests.support.servers import RedisServer, redis_server
from tests.support.stand_in import Answer, Asked, answering

#: What a terminal obeys, and what turns, hides or breaks a line; a line's end apart.
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
#: One of each kind.
SIGNS = "\x1b[31m\x1b]0;own\x07\x08\r\n\t\x7f\x9b2J\u200b\u200e\u200f\u061c\u202e\u202d\u2066\u2069\u2028\u2029\ufeff\u00ad\U000e0041"
EVE = f"=corp\\eve{SIGNS}"
PC = f"@pc{SIGNS}"
WHY = f"-why{SIGNS}"
NODE = f"+ctx{SIGNS}"
SESSION = f"=HYPERLINK{SIGNS}"


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """One server for all."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, store: RedisServer) -> Host:
    """A host whose farm is full of hostile names."""
    host = host_of(tmp_path_factory.mktemp("hostile"), store)
    comment = re.sub(r"[\x00-\x1f\x7f]", "", EVE)  # which no TOML may hold
    host.apply(f"# {comment}\n{QLIKVIEW}{CLEARQUEST}")
    host.with_farm(fill)
    return host


async def fill(farm: Farm) -> None:
    """Write hostile leases, nodes, notes and audit entries."""
    found = await farm.policy()
    eves = Farm(farm.name, farm.leases, farm.sealer, by=EVE)
    for number, pool in enumerate(found.pools):
        await farm.leases.heartbeat(pool, found.version, f"{NODE}#1", None)
        for user in (EVE, f"{EVE}-2"):
            index = farm.sealer.user_index(User(user))
            record = BorrowedRecord(user=user, pool=pool.name, seat=index, device=PC, borrowed_at=0, files=())
            binding = RecordBinding(pool=pool.name, user_index=index, lease_id="l", version=1)
            taking = Taking(
                device=PC, lease_id="l", record=farm.sealer.seal_record(binding, encode(record)),
                name=farm.sealer.seal_name(index, user),
            )  # fmt: skip
            claim = Claim(user=index, node=f"{NODE}#1", session=SESSION)
            answer = await farm.leases.acquire(pool, found.version, claim, taking)
            assert isinstance(answer, Taken) or number, answer
        await farm.leases.note(Claim(user=index, node=f"{NODE}#1", session=SESSION), "restricted", WHY, taking.name)
        await LeaseAdmin(eves).withdraw(pool, User(f"{EVE}-2"), Withdrawal.REVOKED, WHY)
    report = Report(
        incarnation=WHY, version=WHY, sessions=1, owed=0, draining=False, stopping=False, health=WHY, listen=WHY
    )
    for node in (NODE, "ctx-01"):
        await farm.nodes.report(node, report, Wish(), "drain", eves.signature())
    await farm.nodes.report("ctx-02", replace(report, incarnation="1"), Wish(), "", b"")
    await farm.seals.tell(NODE, {"every": 1000, "primary": WHY, "opens": [WHY], "holds": {WHY: 1}})


#: What each command is asked, behind its name.
TYPED: dict[str, list[list[str]]] = {
    "config check": [[]],
    "config show": [[]],
    "init": [["--yes", "--farm", EVE], ["--yes", "--farm", "f", "--pool", PC], ["--from", WHY], ["--export", WHY]],
    "version": [[]],
    "explain": [
        [EVE, "--node", NODE, "--pool", "qlikview"],
        [f"{EVE}-2", "--node", "ctx-02", "--device", PC, "--group", WHY],
        [EVE, "--node", PC],
    ],
    "lease check": [[EVE, "--pool", "qlikview"], [f"{EVE}-3"]],
    "lease files": [[EVE, "--pool", "qlikview"]],
    "lease list": [[], ["--user", EVE], ["--pool", PC]],
    "lease repair": [["--pool", "qlikview", "--yes"], ["--pool", PC, "--yes"]],
    "lease rename": [
        [EVE, f"{EVE}-4", "--pool", "qlikview", "--dry-run"],
        [EVE, "mary", "--pool", "qlikview", "--dry-run"],
    ],
    "lease restore-file": [[EVE, WHY, "--pool", "qlikview", "--yes"]],
    "lease show": [[EVE], [EVE, "--pool", "qlikview"], [PC]],
    "lease import": [["FILE", "--pool", "qlikview"], [f"/no{SIGNS}", "--pool", "qlikview"]],
    "device list": [[EVE]],
    "device release": [[EVE, PC, "--pool", "qlikview"], [EVE, f"{PC}-2", "--pool", "qlikview"]],
    "device replace": [[EVE, PC, f"{PC}-3", "--reason", WHY, "--yes"], [EVE, PC, "nb-7", "--reason", "lost", "--yes"]],
    "identity check": [[]],
    "pool apply": [["POLICY"], [f"/no{SIGNS}"]],
    "pool history": [[]],
    "pool list": [[]],
    "pool rollback": [["7"], [WHY]],
    "pool show": [["qlikview"], [PC]],
    "node drain": [[NODE], [PC]],
    "node list": [[], ["--state", "draining"]],
    "node undrain": [[NODE], [PC]],
    "usage": [[], ["--pool", PC]],
    "audit": [[], ["--user", EVE], ["--since", WHY]],
    "key generate": [[]],
    "key list": [[]],
    "key reseal": [[]],
    "key retire": [[WHY, "--yes"]],
    "key rotate": [[], ["--activate"]],
    "health": [[f"http://127.0.0.1:1/{SIGNS}"], [PC]],
    "doctor": [[]],
    "status": [[]],
    "bench": [["--users", WHY]],
    "lease return": [[EVE, "--pool", "qlikview", "--yes"]],
    "lease revoke": [
        [EVE, "--pool", "qlikview", "--reason", "left", "--yes"],
        [EVE, "--pool", "qlikview", "--reason", WHY],
    ],
    "lease readmit": [
        [EVE, "--pool", "qlikview"],
        [f"{EVE}-9", "--pool", PC],
        [EVE, "--pool", "qlikview", "--reason", WHY],
    ],
    "lease forget": [[EVE, "--yes"], [f"{EVE}-2", "--yes"]],
    "session end": [[SESSION]],
    "session hold": [[SESSION, "--for", "4h"], [SESSION, "--for", WHY]],
    "session list": [[]],
    "session save": [[SESSION]],
    "session show": [[SESSION]],
    "session start": [[EVE, "--session", SESSION], [EVE, "--session", SESSION, "--wait", WHY]],
    "session touch": [[SESSION]],
    "run": [["--user", EVE, "--", "true"]],
}
#: The first two print nothing of a store. A policy is a document, printed as it was applied where no terminal is.
APART = {"agent", "demo", "pool export"}


def commands() -> dict[str, click.Command]:
    """Return every command, by the words behind ``farmlease``."""
    root = click.Context(farmlease, info_name="")
    return {ctx.command_path.strip(): ctx.command for ctx in leaves(farmlease, root)}


def formats(command: click.Command) -> list[list[str]]:
    """Return how a command can be asked for each format that it has."""
    option = next((each for each in command.params if "--output" in each.opts), None)
    choices: Sequence[str] = option.type.choices if option and isinstance(option.type, click.Choice) else ()
    return [["-o", each] for each in choices] or [[]]


def check(ended: Ended, typed: Sequence[str]) -> None:
    """Nothing that was printed is obeyed, and no fault of the program's own was shown."""
    for said in (ended.out, ended.err):
        found = OBEYED.search(said)
        assert found is None, (typed, said[max(0, (found.start() if found else 0) - 60) :][:120])
    assert "Traceback" not in ended.err, typed
    assert not re.search(r"farmlease: \w+Error: ", ended.err), ended.err


def test_every_command_is_asked() -> None:
    """A new command has to be added here."""
    assert set(commands()) == set(TYPED) | APART


STORED = [name for name in TYPED if name.split()[0] not in {"session", "run"}]


@pytest.mark.parametrize("name", STORED)
def test_nothing_in_the_store_is_obeyed(host: Host, name: str) -> None:
    """Tables, JSON, CSV, single lines, denials and errors of every command that reads the store, and with --debug."""
    policy = host.folder / "hostile.toml"
    policy.write_text(QLIKVIEW.replace("named", "na\u202emed"))
    rows = host.folder / "rows.csv"
    rows.write_bytes(f'UserName,MachineId,UtcBorrowTime\n"{EVE}","{PC}",{WHY}\n'.encode())
    places = {"FILE": str(rows), "POLICY": str(policy)}
    for given in TYPED[name]:
        for form in formats(commands()[name]):
            typed = [*name.split(), *form, *(places.get(each, each) for each in given)]
            check(host.run(*typed), typed)
            debug = host.run("--debug", *typed)
            assert None is OBEYED.search(debug.out + debug.err), typed


def test_lists_show_who_it_is(host: Host) -> None:
    """An escaped name is still a name: a table and CSV have its letters, and JSON has it to the letter."""
    assert r"eve\x1b[31m\x1b]0;own\x07" in host.run("lease", "list").out
    assert r"\u202e" in host.run("node", "list").out
    said = host.run("audit", "-o", "json").out
    assert any(EVE in str(json.loads(line).values()) or json.loads(line)["user"] == EVE for line in said.splitlines())


def test_a_terminal_obeys_nothing_of_a_list(host: Host) -> None:
    """On a terminal too: only the bold headings and the colours of states, which are known words, are its own."""
    for typed in (["lease", "list"], ["node", "list"], ["audit"], ["key", "list"], ["usage"], ["status"]):
        fails = int(typed == ["status"])  # no agent runs on this host
        shown = host.run_on_terminal(*typed, columns=200, status=fails)
        shown = re.sub(r"\x1b\[(?:31|32|33|90)m((?:[a-z]+,? ?)+)\x1b\[0m", r"\1", shown)
        assert None is OBEYED.search(re.sub(r"\x1b\[[01]?m", "", shown)), typed


def test_no_cell_of_csv_is_run(host: Host) -> None:
    """Whatever a spreadsheet would run begins with an apostrophe; numbers are numbers."""
    found = set[str]()
    for typed in (
        ["lease", "list"],
        ["device", "list", EVE],
        ["node", "list"],
        ["audit"],
        ["key", "list"],
        ["usage"],
        ["doctor"],
    ):
        said = host.run(*typed, "-o", "csv").out
        cells = [cell for row in csv.reader(io.StringIO(said)) for cell in row]
        assert [] == [cell for cell in cells if re.match(r"[=+\-@\t\r\n]", cell)], typed
        found |= {cell[:2] for cell in cells if cell.startswith("'")}
    assert {"'=", "'@", "'-", "'+"} == found


def test_a_terminal_is_shown_the_policy_as_text(host: Host) -> None:
    """In a pipe the policy is what was applied, byte for byte; on a terminal nothing of it is obeyed."""
    assert "\u202e" in host.run("pool", "export").out
    shown = host.run_on_terminal("pool", "export")
    assert r"\u202e" in shown
    assert None is OBEYED.search(shown)


HOSTILE_GRANT = {
    "decision": "granted", "user": EVE, "pool": PC, "kind": "named", "device": PC, "node": NODE, "session": SESSION,
    "fence": 1, "lease": {"id": WHY, "issued_at": WHY, "expires_at": WHY}, "source": "store", "overdraft": False,
}  # fmt: skip
USE = HOSTILE_GRANT | {"state": "lost", "reason": WHY, "hold_until": WHY, "detail": WHY}
DENIAL = {
    "status": 409,
    "detail": f"no{SIGNS}",
    "decision": "denied",
    "reason": WHY,
    "pool": PC,
    "retry_at": WHY,
    "blocking": [],
}
ANSWERS: list[tuple[int, object]] = [
    (200, HOSTILE_GRANT | {"uses": [USE]}), (200, [USE]), (409, DENIAL), (503, DENIAL), (404, {"detail": WHY}),
    (422, {"detail": WHY, "field": WHY}), (500, {"detail": WHY}), (200, WHY), (200, {"decision": "restricted", "user": EVE, "node": NODE}),
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS, ids=[str(number) for number in range(len(ANSWERS))])
def test_nothing_that_an_agent_says_is_obeyed(tmp_path: Path, store: RedisServer, answer: tuple[int, object]) -> None:
    """Grants, denials and errors of an agent, by every command that asks it; also the answers of a probe."""
    status, document = answer
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def say(_: Asked) -> Answer:
        return status, body

    host = host_of(tmp_path, store)
    socket = tmp_path / "a.sock"
    host.config_file.write_text(host.config_file.read_text() + f'listen = "unix:{socket}"\n')
    with answering(f"unix:{socket}", say), answering("127.0.0.1:0", say) as port:
        for name in (each for each in TYPED if each.split()[0] in {"session", "run"}):
            for given in TYPED[name]:
                for form in formats(commands()[name]):
                    typed = [*name.split(), *form, *given]
                    # ``run`` becomes the program that it starts.
                    ended = host.run_process(*typed) if name == "run" else host.run(*typed)
                    assert None is OBEYED.search(ended.out + ended.err), (typed, ended)
        check(host.run("health", f"http://127.0.0.1:{port}"), ["health"])


class _Errors(socketserver.StreamRequestHandler):
    """A server of Redis's protocol that has an error for everything."""

    @override
    def handle(self) -> None:
        with suppress(OSError):  # whoever asks may hang up at any moment
            while self.rfile.readline():
                self.wfile.write(("-ERR " + SIGNS.replace("\r", "").replace("\n", "") + "\r\n").encode())


@contextmanager
def hostile_server() -> Iterator[int]:
    """Run it; yields the port."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Errors)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("name", ["lease list", "doctor", "node list", "audit", "usage", "key list", "pool list"])
def test_nothing_that_a_server_says_is_obeyed(tmp_path: Path, store: RedisServer, name: str) -> None:
    """An error text of the server's is told, as text."""
    host = host_of(tmp_path, store)
    with hostile_server() as port:
        host.config_file.write_text(host.config_file.read_text().replace(store.url, f"redis://127.0.0.1:{port}/0"))
        for form in formats(commands()[name]):
            check(host.run(*name.split(), *form), [name, *form])


def test_who_has_a_name_that_is_refused_by_now_can_be_addressed(tmp_path: Path, store: RedisServer) -> None:
    """0.1.0 let such names in: their leases are found by the name to the letter, and as a list prints it."""
    host = host_of(tmp_path, store)
    name = "corp\\j\u3164ohn"

    async def lend(farm: Farm) -> None:
        found = await farm.policy()
        pool, index = found.pools[0], farm.sealer.user_index(User(name))
        await farm.leases.heartbeat(pool, found.version, "ctx-09#1", None)
        record = BorrowedRecord(user=name, pool=pool.name, seat=index, device="nb-1", borrowed_at=0, files=())
        binding = RecordBinding(pool=pool.name, user_index=index, lease_id="l", version=1)
        taking = Taking(
            device="nb-1", lease_id="l", record=farm.sealer.seal_record(binding, encode(record)),
            name=farm.sealer.seal_name(index, name),
        )  # fmt: skip
        answer = await farm.leases.acquire(pool, found.version, Claim(user=index, node="ctx-09#1", session="1"), taking)
        assert isinstance(answer, Taken), answer

    with store.client() as client:
        client.flushall()
    host.apply(QLIKVIEW)
    host.with_farm(lend)
    assert r"corp\j\u3164ohn" in host.run("lease", "list").out
    for typed in (name, r"corp\j\u3164ohn"):
        assert (0, [name]) == (
            (ended := host.run("lease", "show", typed, "-o", "json")).status,
            [each["user"] for each in json.loads(ended.out)],
        )
    assert 0 == host.run("lease", "return", r"corp\j\u3164ohn", "--pool", "qlikview", "--yes").status
    assert "holds no lease" in host.run("lease", "show", "nobody\u200b").err


def test_nothing_that_a_server_reports_of_itself_is_obeyed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor tells versions, policies and roles as the server's INFO has them."""
    told = set[str]()

    def hostile(answer: bytes) -> dict[str, str]:
        found = parse_info(answer)
        told.update(found)
        return {
            name: value if re.fullmatch(r"[\d.]+", value) or name == "role" else f"{value}{SIGNS}"
            for name, value in found.items()
        }

    for module in (server_life, server_facts):
        monkeypatch.setattr(module, "parse_info", hostile)
    for form in formats(commands()["doctor"]):
        ended = host.run("doctor", *form)
        check(ended, form)
    assert {"redis_version", "maxmemory_policy"} <= told
    assert r"\x1b[31m" in host.run("doctor").out
