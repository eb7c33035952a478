"""The header of a Lua script is its contract: it takes what the store passes and answers what the store understands."""

import ast
import math
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from redis.exceptions import NoScriptError

from farmlease.errors import PolicyChanged, RightsLacking
from farmlease.store import script as script_module
from farmlease.store.answers.recovery import CLOCK_LEAP_MS, FENCE_AHEAD_MS, Restoring
from farmlease.store.answers.session import NOTHING, Taken
from farmlease.store.connection.connection import Connection
from farmlease.store.keys import Shard
from farmlease.store.lease_store import Answer, LeaseStore
from farmlease.store.script import Argument, Script, script_names
from tests.support.seats import NODE, OTHER, Desk, claim, desk
from tests.support.stores import HOUR, TimedStore

Asked = Callable[[], Awaitable[object]]

STORE = Path(script_module.__file__).parent
LUA = STORE / "lua"
NAMES = script_names()
#: The last arguments of a script in which a node sends what it knows of the store.
KNOWN = tuple(NOTHING.arguments())
#: Verbs whose every answer occurs in tests/store/test_rules_*.py, test_slots.py, test_nodes.py, test_recovery.py, test_vault.py, test_trail.py and test_damage.py;
#: the story here is of the others.
ELSEWHERE = {
    "aside", "bar", "barred", "damaged", "drain", "explain", "extent", "foreign", "forget", "forget_name", "guests", "hold", "import", "limits", "missing", "name", "nodes", "note", "notes",
    "peek", "policies", "pools", "put_back", "put_back_record", "readmit", "rebuild", "recover", "release_device", "rename", "rename_node", "replace_device", "report", "reseal",
    "reseal_policy", "reseal_wish", "restore", "restored", "rings", "roster", "sealed", "seals", "sessions", "settle_names", "tell_keys", "tombstones",
    "trail", "usage", "withdraw",
}  # fmt: skip
#: Answers of the queue and of a store that lost its data, likewise.
WAITED_FOR = {"waiting", "strange"}
#: What else stands in an answer: fields of the audit, and what was erased.
FIELDS = {"1", "by", "note", "name", "words", "both"}
#: Arguments that a value gives as a whole.
SPREAD = {
    "known.arguments()": NOTHING.arguments().keys(),
    "_claimed(claim)": {"user", "node", "session"},
    "_asked(claim, taking)": set(Script.load("acquire").arguments) - {"policy", *NOTHING.arguments()},
    "restoring.arguments()": Restoring(
        user="", document=b"", sessions={}, version=1, record=b"", name=b""
    ).arguments().keys(),
    "arguments": set[str](),
}  # fmt: skip
#: Every module of the store that calls scripts.
TREES = [
    ast.parse(text)
    for path in sorted(STORE.rglob("*.py"))
    if "= Script.load(" in (text := path.read_text(encoding="utf-8"))
]


def loaded() -> dict[str, str]:
    """Return which constant of the store is which script: ``ACQUIRE = Script.load("acquire")``."""
    found = {}
    for node in (statement for tree in TREES for statement in tree.body):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            (target,) = node.targets
            if ast.unparse(node.value.func) == "Script.load":
                assert isinstance(target, ast.Name)
                (name,) = node.value.args
                found[target.id] = str(ast.literal_eval(name))
    return found


def passed() -> dict[str, list[set[str]]]:
    """Return the names of the arguments of each call of each script."""
    scripts, found = loaded(), defaultdict[str, list[set[str]]](list)
    for node in (each for tree in TREES for each in ast.walk(tree)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        given = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
        for keyword in node.keywords:
            given |= SPREAD[ast.unparse(keyword.value)] if keyword.arg is None else set()
        match node.func.attr, [ast.unparse(argument) for argument in node.args]:
            case "_run" | "_settled" | "_ask", [script, *_] if script in scripts:
                found[scripts[script]].append(given)
            case "_decide", [script, *_] if script in scripts:
                found[scripts[script]].append(given | {"policy"})
            case "ordered", [_] if ast.unparse(node.func.value) in scripts:
                (values,) = node.args
                assert isinstance(values, ast.Dict)
                names = {str(ast.literal_eval(key)) for key in values.keys if key is not None}
                for key, value in zip(values.keys, values.values, strict=True):
                    names |= SPREAD[ast.unparse(value)] if key is None else set()
                found[scripts[ast.unparse(node.func.value)]].append(names)
            case "call", [script, _, "[]"] if script in scripts:
                found[scripts[script]].append(set())
    return found


def own_text(name: str) -> str:
    """Return the script without what is shared."""
    return (LUA / f"{name}.lua").read_text(encoding="utf-8")


def run_text(name: str) -> str:
    """Return the script, and after it those that it runs."""
    runs = re.findall(r"(\w+)\.lua", "".join(re.findall(r"^-- Runs .*$", own_text(name), re.MULTILINE)))
    return "\n".join(map(own_text, [name, *runs]))


def answers(name: str) -> dict[str, int | None]:
    """Return the words a header names, each with how many fields its answer has (None: it varies)."""
    header = own_text(name).partition("-- Answers\n")[2]
    found: dict[str, int | None] = {}
    for line in header.splitlines():
        if not line.startswith("--"):
            break
        entry = re.match(r"^--   (\w.*)$", line)
        if entry is None:
            continue
        said = re.split(r"  +", entry[1])[0]
        fields = [field.strip() for field in re.sub(r"\(.*?\)", "", said).rstrip(",").split(",")]
        if "as acquire's" in line:
            found |= dict.fromkeys(fields, 1)
        elif re.fullmatch(r"[a-z]+", fields[0]):
            found[fields[0]] = None if "then" in line or entry[1].rstrip().endswith(",") else len(fields)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_store_passes_what_the_header_names(name: str) -> None:
    """Each call of a script gives exactly the arguments of the header, by name."""
    calls = passed()[name]
    assert calls
    assert [set(Script.load(name).arguments)] * len(calls) == calls


def test_every_script_is_a_verb_of_the_store() -> None:
    """No Lua file is left over, and none is missing."""
    assert set(NAMES) == set(loaded().values()) == passed().keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_script_uses_every_argument_and_no_other(name: str) -> None:
    """ARGV is read as far as the header goes; a shard's script leaves KEYS to lib/shard.lua."""
    text, script = own_text(name), Script.load(name)
    code = re.sub(r"--.*", "", run_text(name))
    own = script.arguments[: -len(KNOWN)] if script.arguments[-len(KNOWN) :] == KNOWN else script.arguments
    assert set(range(1, len(own) + 1)) == {int(number) for number in re.findall(r"ARGV\[(\d+)\]", code)}
    keys = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", re.sub(r"--.*", "", script.text))}
    assert set(range(1, len(script.keys) + 1)) == keys
    assert ("KEYS[" in code) == script.text.endswith(text)  # with what it uses of lib/ before it


def test_the_keys_of_a_shard_are_those_of_its_header() -> None:
    """Shard.keys gives them in the order in which lib/shard.lua names them, and documents them with the same types."""
    shared = own_text("lib/shard").partition("-- ARGV")[0]
    entries = re.findall(r"^-- (?:KEYS|    ) +(\d+) (\w+) +(\w+)", shared, re.MULTILINE)
    names = [name for _, name, _ in entries]
    assert names == [key.rpartition(":")[2] for key in Shard("farm", "pool").keys()]  # noqa: SIM118 - not a dict
    documented = re.findall(r"^ +(\w+)  +(hash|zset|stream)  ", Shard.keys.__doc__ or "", re.MULTILINE)
    assert documented == [(name, kind) for _, name, kind in entries]
    bound = re.findall(r"KEYS\[(\d+)\]", re.sub(r"--.*", "", own_text("lib/shard")))
    assert [number for number, _, _ in entries] == bound


def test_what_the_node_knows_is_read_in_the_order_of_the_header() -> None:
    """The last five arguments are named and read in one place, in one order."""
    read = re.findall(r"(\w+) = (?:tonumber\()?ARGV\[#ARGV(?: - (\d))?\]", own_text("lib/shard"))
    assert [(name, str(4 - at) if at < 4 else "") for at, name in enumerate(KNOWN)] == read


@pytest.mark.parametrize("name", NAMES)
def test_a_script_takes_what_the_node_knows_if_it_looks_at_it(name: str) -> None:
    """Whether the header ends in what the node knows, and whether the script compares it with the store, agree."""
    compares = r"\bcaller\.|\b(is_other_store|refuse_other_store|time_ahead|confirms_time|correct_time)\("
    code = re.sub(r"--.*", "", run_text(name))
    assert (re.search(compares, code) is not None) == (Script.load(name).arguments[-len(KNOWN) :] == KNOWN)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_says_only_what_its_header_names(name: str) -> None:
    """Every word a script can answer with is in its header, and every word of the header is in the script."""
    own, whole = re.sub(r"--.*", "", own_text(name)), Script.load(name).text
    said = set(re.findall(r"\{ '([a-z]+)'(?=,| \})", own))
    assert said <= answers(name).keys()
    for word in answers(name):
        assert f"'{word}'" in re.sub(r"--.*", "", whole)


def test_scripts_and_nodes_agree_on_a_jump_of_the_clock() -> None:
    """A node takes the store's clock to have jumped where lib/epoch.lua does."""
    assert [str(CLOCK_LEAP_MS)] == re.findall(r"^local LEAP = (\d+)", own_text("lib/epoch"), re.MULTILINE)


def test_scripts_and_nodes_agree_on_a_fence_that_cannot_be() -> None:
    """A node drops a fence from which on the scripts take it for damage."""
    (product,) = re.findall(r"^local FENCE_AHEAD = ([\d *]+)", own_text("lib/shard"), re.MULTILINE)
    assert FENCE_AHEAD_MS == math.prod(map(int, product.split("*")))


def test_the_store_knows_only_words_of_the_headers() -> None:
    """What the store compares an answer with is a word of some header."""
    known = {
        node.value.decode()
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes)
    }
    words = {word for name in NAMES for word in answers(name)}
    assert known - {"0", ""} - FIELDS <= words


class Recording:
    """A connection that notes every answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.heard = defaultdict[str, list[Answer]](list)

    async def call(self, script: Script, keys: tuple[str, ...], args: list[Argument]) -> Answer:
        """Ask, and note the answer."""
        answer = await self._connection.call(script, keys, args)
        self.heard[script.name].append(answer)
        return answer


class ReadOnly:
    """The same for a user who may not write: the script that counts is refused as soon as it would."""

    def __init__(self, connection: Recording) -> None:
        self._connection = connection

    async def call(self, script: Script, keys: tuple[str, ...], args: list[Argument]) -> Answer:
        """Ask what reads."""
        if script.name == "count":
            raise RightsLacking("denied")
        return await self._connection.call(script, keys, args)


async def nothing_is_there(pool: Desk) -> None:
    """Ask everything of an empty store."""
    store = pool.timed.store
    assert None is await store.count(pool.pool.name)
    assert None is await pool.lease("john")
    await store.release(pool.pool.name, claim("john"), 1)
    assert None is await store.save(pool.pool.name, claim("john"), "x", 2, b"x")
    assert [] == [lease async for lease in store.list(pool.pool)]
    assert 0 == (await store.read_policy()).version


async def sessions_come_and_go(pool: Desk) -> Taken:
    """Start, meet a limit, save twice and end, under a policy; return the first grant."""
    store = pool.timed.store
    await store.apply_policy(0, 1, b"\1one")
    assert b"\1one" == (await store.read_policy()).sealed
    with pytest.raises(PolicyChanged):
        await store.apply_policy(0, 2, b"\1two")
    await pool.ask("john")
    await pool.beat(NODE, OTHER)
    taken = await pool.start("john")
    assert (await pool.start("john")).again
    await pool.start("john", "2", device="nb-1")
    await pool.refused("john", "3", device="nb-2")
    await pool.start("john", "2")
    await pool.start("john", "2", device="nb-1")
    await store.save(pool.pool.name, claim("john"), taken.lease.id, 2, b"new")
    await store.save(pool.pool.name, claim("john"), taken.lease.id, 2, b"other")
    await store.replace_record(pool.pool.name, claim("john").user, taken.lease.id, 3, b"third", b"root")
    await store.release(pool.pool.name, claim("john"), 0)
    await pool.end("john", taken)
    assert None is not await pool.lease("john")
    assert [] != [lease async for lease in store.list(pool.pool)]
    return taken


async def node_dies_again_and_again(pool: Desk, taken: Taken) -> None:
    """Let every verb that writes find as many dead sessions as a call ends."""
    store, name = pool.timed.store, pool.pool.name
    verbs_that_write: dict[str, Asked] = {
        "acquire": lambda: pool.start("mary", node=OTHER),
        "heartbeat": lambda: pool.beat(NODE),
        "release": lambda: store.release(name, claim("john"), 0),
        "save": lambda: store.save(name, claim("john"), taken.lease.id, 3, b"newer"),
        "count": pool.held,
        "configure": lambda: store.configure(pool.pool, 2),
    }
    for verb, asked in verbs_that_write.items():
        await pool.beat(NODE)
        for number in range(64):
            await pool.start(f"user{number}", f"{verb} {number}")
        pool.timed.clock.advance(HOUR)
        await pool.beat(OTHER)
        pool.timed.clock.advance(HOUR)
        await asked()


async def a_device_has_another_spelling(pool: Desk) -> None:
    """Ask for a user whose lease has a device that may be the same under another name."""
    await pool.start("jane", device="NB-1")
    await pool.start("jane", "2", device="nb-1")


async def policies_differ(pool: Desk) -> None:
    """Go by a policy that is behind, then by one the pool did not hear of yet."""
    for asked, beaten in ((1, 1), (3, 4)):
        pool.version = asked
        await pool.ask("zoe", node=OTHER)
        await pool.timed.store.heartbeat(pool.pool, beaten, OTHER, None)


async def test_answers_have_the_fields_their_headers_name(timed: TimedStore) -> None:
    """In a story in which every script gives every answer of its header, each has as many fields as the header says."""
    recording = Recording(timed.connection)
    pool = desk(replace(timed, store=LeaseStore(recording, "citrix-a")), capacity=80)
    viewer = LeaseStore(ReadOnly(recording), "citrix-a")
    await nothing_is_there(pool)
    assert None is await viewer.count(pool.pool.name)
    taken = await sessions_come_and_go(pool)
    await a_device_has_another_spelling(pool)
    await node_dies_again_and_again(pool, taken)
    assert await pool.timed.store.count(pool.pool.name) == await viewer.count(pool.pool.name)
    await policies_differ(pool)
    for name in set(NAMES) - ELSEWHERE:
        expected = {word: count for word, count in answers(name).items() if word not in WAITED_FOR}
        heard = {answer[0].decode(): len(answer) for answer in recording.heard[name]}
        assert expected.keys() == heard.keys(), name
        expected |= dict.fromkeys(("again", "moved"), expected["granted"]) if name == "acquire" else {}
        assert {word: count or heard[word] for word, count in expected.items()} == heard, name


def test_arguments_that_are_not_the_headers_are_refused() -> None:
    """A header that lies cannot work: what is missing or unknown is an error before anything is sent."""
    script = Script.load("look_up")
    with pytest.raises(TypeError, match=r"look_up\.lua takes \('user',\), not \('usr',\)"):
        script.ordered({"usr": "x"})
    with pytest.raises(TypeError):
        script.ordered({})


async def test_a_server_that_forgot_a_script_is_told_it_again(timed: TimedStore) -> None:
    """EVALSHA first; the script itself only after NOSCRIPT, as after a restart."""
    await desk(timed).beat()
    timed.raw.script_flush()
    with pytest.raises(NoScriptError):
        timed.raw.evalsha(Script.load("look_up").sha, 0)
    await desk(timed).beat()
