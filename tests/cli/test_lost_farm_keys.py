"""A key of the farm itself that lost something: doctor advises `pool apply` of the present policy, and that mends it."""

import pytest

from farmlease.domain.node_view import Wish
from farmlease.store.answers.session import Claim
from farmlease.store.keys import farm_keys, kind_of
from farmlease.store.node_store import Report
from tests.cli.test_doctor_command import examine
from tests.store.test_seal_store import SAID
from tests.support.commands import CLEARQUEST, QLIKVIEW, Ended, Host

KEYS = farm_keys("citrix-a")
POLICY, AUDIT, COUNTS, NOTED, NAMES, POOLS, POLICIES, NODES, RINGS = KEYS
WRITTEN = (AUDIT, COUNTS, POOLS)
REPORT = Report(
    incarnation="1", version="1", sessions=0, owed=0, draining=False, stopping=False, health="pass", listen="h:1"
)


@pytest.fixture
def farm(host: Host) -> Host:
    """A host whose farm has each of its keys: a policy, two nodes that said what they are, and two users denied."""
    assert 0 == host.run("pool", "apply", host.write(QLIKVIEW)).status
    for number in ("1", "2"):
        claim = Claim(user=number * 22, node=f"ctx-0{number}#1", session=number)
        host.with_farm(lambda farm, claim=claim: farm.leases.note(claim, "denied", "no_rule", b"\1" * 40))
        host.with_farm(lambda farm, node=f"ctx-0{number}": farm.nodes.report(node, REPORT, Wish(), "", b""))
        host.with_farm(lambda farm, node=f"ctx-0{number}": farm.seals.tell(node, SAID))
    return host


def lose(host: Host, key: str, part: str) -> None:
    """Have a key lose one member, or all."""
    with host.store.client() as raw:
        if part == "the whole key":
            raw.delete(key)
        elif kind_of(key) == "hash":
            raw.hdel(key, raw.hkeys(key)[0])
        else:
            raw.zpopmin(key)


def told(host: Host, key: str) -> list[str]:
    """Return what doctor says of a key's loss."""
    return [text for _, text in examine(host).found["data"] if key in text and "farmlease pool apply" in text]


def apply(host: Host, *options: str, text: str = QLIKVIEW) -> Ended:
    """Run ``pool apply`` as a process of its own."""
    ended = host.run_process("pool", "apply", host.write(text), *options)
    assert (0, "") == (ended.status, ended.err)
    return ended


@pytest.mark.parametrize(
    ("key", "part"),
    [(key, "the whole key") for key in KEYS[1:]]
    + [(key, "a member") for key in (NOTED, NAMES, POLICIES, NODES, RINGS)],
)
def test_the_present_policy_applied_mends_a_loss(farm: Host, key: str, part: str) -> None:
    """What the policy's own script writes is there again; what nodes and users write counts as seen. Once."""
    before = farm.version()
    assert [] == told(farm, key)
    lose(farm, key, part)
    assert 1 == len(told(farm, key))
    does = ("would write again: ", "wrote again: ") if key in WRITTEN else (
        "would count as seen: what was lost of ", "counted as seen: what was lost of ")  # fmt: skip
    assert f"policy unchanged; {does[0]}{key}\ndry run: nothing was applied\n" == apply(farm, "--dry-run").out
    assert 1 == len(told(farm, key))
    assert f"policy unchanged; {does[1]}{key}\n" == apply(farm).out
    assert [] == told(farm, key)
    with farm.store.client() as raw:
        assert (key in WRITTEN) <= raw.exists(key)
    assert "unchanged\n" == apply(farm).out
    assert before == farm.version()


@pytest.mark.parametrize("stored", [None, b"{", b"7", b"12 x\njunk", b"{" * 1_000_000])
def test_a_policy_that_is_lost_or_does_not_decode_is_applied_again(farm: Host, stored: bytes | None) -> None:
    """It is as if none had been applied: what is applied is in force, of a later version, and nothing is told any more."""
    before = farm.version()
    with farm.store.client() as raw:
        raw.delete(POLICY)
        if stored is not None:
            raw.set(POLICY, stored)
    assert 1 == len(told(farm, POLICY))
    assert f"would write again: {POLICY}\ndry run: nothing was applied\n" in apply(farm, "--dry-run").out
    done = apply(farm).out
    assert done.endswith(f"applied policy {farm.version()}\nwrote again: {POLICY}\n")
    assert before < farm.version()
    assert [] == told(farm, POLICY)
    assert "unchanged\n" == apply(farm).out
    assert QLIKVIEW == farm.run("pool", "export").out
    farm.lend("CORP\\john")


def test_all_keys_at_once_and_another_policy(farm: Host) -> None:
    """A changed policy mends a loss, too, and says so; each key is named once."""
    for key in (POOLS, NAMES, RINGS):
        lose(farm, key, "the whole key")
    done = apply(farm, text=QLIKVIEW + CLEARQUEST + "[[rule]]\npools = ['qlikview', 'clearquest']\n")
    seen = f"counted as seen: what was lost of {NAMES}, {RINGS}"
    assert f"applied policy {farm.version()}\nwrote again: {POOLS}; {seen}\n" in done.out
    assert [] == [key for key in KEYS if told(farm, key)]
    with farm.store.client() as raw:
        assert {b"qlikview", b"clearquest"} == {*raw.hkeys(POOLS)}


def test_what_was_written_again_is_audited(farm: Host) -> None:
    """Not as a policy that was applied, as none was."""
    lose(farm, AUDIT, "the whole key")
    apply(farm)
    with farm.store.client() as raw:
        assert [b"policy_put_back"] == [entry[b"event"] for _, entry in raw.xrange(AUDIT)]
        assert b"1" == raw.hget(COUNTS, "policy_applied")
