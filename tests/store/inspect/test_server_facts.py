"""What the doctor hears of a store: every right that is lacking by its name, and nothing is changed by asking."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmlease.domain.diagnosis.store import ServerFacts
from farmlease.store.connection.connection import StoreAddress, open_connection
from farmlease.store.inspect.server_facts import SAMPLES, ServerInspection
from farmlease.store.keys import policy_key
from farmlease.store.script import Script, script_names
from tests.support.servers import RedisServer, redis_server, require_valkey

ALL = ("~fl:*", "+@all")


@pytest.fixture(scope="module", params=["redis-server", "valkey-server"])
def store(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A store with ACL users, by Redis and by Valkey, whose words differ."""
    program = require_valkey() if request.param == "valkey-server" else request.param
    with redis_server("--appendonly", "yes", program=program) as running:
        yield running


async def asked(store: RedisServer, folder: Path, *rights: str) -> ServerFacts:
    """Examine a server as a user of these rights."""
    with store.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "reset", "on", ">secret", *rights)
        before = client.dbsize()
        password = folder / "password"
        password.write_text("secret")
        address = StoreAddress(url=store.url, username="agent", password_file=password)
        async with await open_connection(address) as connection:
            examination = ServerInspection(connection, "citrix-a", user="agent", wait_replicas=0)
            facts = await examination.server(policy_key("citrix-a"), cluster=False, watched=False)
        assert before == client.dbsize()
        return facts


def test_there_is_an_example_of_every_command_that_scripts_use() -> None:
    """A script with a new command needs a line here, or the doctor would not ask for it; TIME is asked for by itself."""
    texts = [Script.load(name).text for name in script_names()]
    commands = {command for text in texts for command in re.findall(r"call\(\s*'(\w+)'", text)}
    assert commands - {"TIME"} == SAMPLES.keys()


async def test_a_user_with_all_rights_lacks_none(store: RedisServer, tmp_path: Path) -> None:
    """And may more than is good."""
    rights = (await asked(store, tmp_path, *ALL)).rights
    assert ("agent", "", (), ("FLUSHALL", "CONFIG SET", "KEYS")) == (
        rights.user, rights.unknown, rights.denied, rights.beyond,
    )  # fmt: skip


@pytest.mark.parametrize("command", sorted({*SAMPLES, "TIME", "WAIT", "EVAL", "EVALSHA"}))
async def test_a_command_that_is_lacking_is_named(store: RedisServer, tmp_path: Path, command: str) -> None:
    """Exactly that one."""
    facts = await asked(store, tmp_path, *ALL, f"-{command.lower()}")
    assert (command,) == facts.rights.denied
    assert (facts.ahead_ms is None) == (command == "TIME")


async def test_keys_that_are_lacking_are_named(store: RedisServer, tmp_path: Path) -> None:
    """By one key of each kind that the user may not write."""
    facts = await asked(store, tmp_path, "+@all", "~fl:{citrix-a/*")
    names = ("policy", "audit", "counts", "noted", "names", "pools", "policies", "nodes", "rings")
    assert tuple(f"key fl:{{citrix-a}}:{name}" for name in names) == facts.rights.denied


async def test_a_user_who_may_only_ask_is_named_as_configured(store: RedisServer, tmp_path: Path) -> None:
    """Without ACL WHOAMI the configuration says who we are."""
    facts = await asked(store, tmp_path, *ALL, "-acl|whoami", "-hset")
    assert ("agent", ("HSET",)) == (facts.rights.user, facts.rights.denied)
    assert facts.saves == ""
