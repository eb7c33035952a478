"""Hooks ``drained`` and ``undrained``: a broker is told once of each change, however it was asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from farmlease.admin.nodes import NodeAdmin
from farmlease.config.model import Config
from farmlease.node.sessions import hooks
from tests.support.nodes import Host, Site
from tests.support.patience import until, within

DRAINED, UNDRAINED = "drained ctx-01", "undrained ctx-01"


@dataclass(slots=True)
class Broker:
    """What the hosts of a site tell, line by line. ``programs``: their hooks."""

    file: Path
    programs: dict[str, list[str]]

    @property
    def told(self) -> list[str]:
        """All that was told so far."""
        return self.file.read_text().splitlines() if self.file.exists() else []


@pytest.fixture
def broker(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker whom each host tells by a shell's ``echo``."""
    file = site.folder / "told"
    script = ["/bin/sh", "-c", f'echo "$@" >> "{file}"', "hook"]
    made = Broker(file, {name: [*script, name, "{node}"] for name in ("drained", "undrained")})
    plain = Host.config

    def config(host: Host) -> Config:
        usual = plain.fget(host).model_dump(by_alias=True, exclude_unset=True)  # type: ignore[attr-defined]
        usual["agent"] = {"state_dir": host.folder / "state", "heartbeat": "60s"}
        return Config.model_validate({**usual, "hooks": made.programs})

    with monkeypatch.context() as patch:
        patch.setattr(Host, "config", property(config))
        yield made


async def looked(host: Host, times: int = 3) -> None:
    """Let the host look around, as it does each second, and wait for what it begins."""
    for _ in range(times):
        await host.node.loops.watch()
        await host.agent.settled()


async def test_a_node_that_never_drained_tells_nothing(site: Site, broker: Broker) -> None:
    """It takes users from its first moment, and a restart is no news."""
    host = site.host()
    await looked(host)
    await looked(host.restart())
    assert [] == broker.told


async def test_a_drain_on_the_node_is_told_once(site: Site, broker: Broker) -> None:
    """Asked twice and looked at often, it is one change; so is taking it back."""
    host = site.host()
    host.agent.drain(on=True)
    await looked(host)
    host.agent.drain(on=True)
    await looked(host)
    assert [DRAINED] == broker.told
    host.agent.drain(on=False)
    await looked(host)
    assert [DRAINED, UNDRAINED] == broker.told


async def test_a_drain_from_elsewhere_is_told_once(site: Site, broker: Broker) -> None:
    """An administrator's command on another host reaches the node by the store."""
    host, roster = site.host(), NodeAdmin(site.farm)
    await host.beat()
    for on, told in ((True, [DRAINED]), (False, [DRAINED, UNDRAINED])):
        await roster.drain("ctx-01", on=on)
        await host.node.loops.look()
        await looked(host)
        assert told == broker.told


async def test_after_a_restart_it_is_not_told_again(site: Site, broker: Broker) -> None:
    """What was told is in the journal; what changed while nobody looked is told then."""
    host = site.host()
    host.agent.drain(on=True)
    await looked(host)
    host = host.restart()
    await looked(host)
    assert [DRAINED] == broker.told
    host.agent.drain(on=False)
    host = host.restart()  # killed before it told anybody
    await looked(host)
    assert [DRAINED, UNDRAINED] == broker.told


async def test_a_store_that_lost_its_data_is_no_news(site: Site, broker: Broker) -> None:
    """The wish goes back into the store from the journal, and nobody is told anew."""
    host = site.host()
    host.agent.drain(on=True)
    await host.beat()
    await looked(host)
    site.timed.raw.flushall()
    host = host.restart()
    await host.beat()
    await looked(host)
    assert (True, [DRAINED]) == (host.agent.draining, broker.told)


async def test_a_slow_notice_is_not_overtaken(site: Site, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """While ``drained`` is under way, ``undrained`` waits; one that hangs is killed, logged, and holds up nothing more."""
    monkeypatch.setattr(hooks, "_LIMIT", within(1))
    broker.programs["drained"] = ["/bin/sh", "-c", f"echo begun >> {broker.file}; sleep 600"]
    host = site.host()
    host.agent.drain(on=True)
    with structlog.testing.capture_logs() as logs:
        await host.node.loops.watch()
        await until(lambda: broker.told == ["begun"])
        host.agent.drain(on=False)
        await host.node.loops.watch()
        assert ["begun"] == broker.told
        await looked(host)
    assert ["begun", UNDRAINED] == broker.told
    failed = [each for each in logs if each["event"] == "hook.failed"]
    assert [("drained", "ctx-01")] == [(each["hook"], each["node"]) for each in failed]


@pytest.mark.parametrize("program", [["/does/not/exist"], ["/bin/sh", "-c", "exit 3"]])
async def test_a_notice_that_fails_changes_nothing(site: Site, broker: Broker, program: list[str]) -> None:
    """The node drains all the same, the log has the failure, and it is not tried again."""
    broker.programs["drained"] = program
    host = site.host()
    host.agent.drain(on=True)
    with structlog.testing.capture_logs() as logs:
        await looked(host)
    assert host.agent.draining
    assert ["error"] == [each["log_level"] for each in logs if each["event"] in {"hook.failed", "hook.ran"}]


async def test_a_journal_that_cannot_be_written_waits(site: Site, broker: Broker) -> None:
    """Without a note of what was told nothing is told; with room again it is."""
    host = site.host()
    host.agent.drain(on=True)
    host.node.state.journal.works = False
    await looked(host)
    assert [] == broker.told
    host.node.state.journal.works = True
    await looked(host)
    assert [DRAINED] == broker.told


async def test_only_one_of_the_two_hooks_may_be_given(site: Site, broker: Broker) -> None:
    """A broker that asks to be told of drains alone hears each of them."""
    del broker.programs["undrained"]
    host = site.host()
    for on in (True, False, True):
        host.agent.drain(on=on)
        await looked(host)
    assert [DRAINED, DRAINED] == broker.told
