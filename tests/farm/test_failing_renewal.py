"""A password or a certificate that will not do tomorrow: health and doctor say so while the connection still serves."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.authority import Authority
from tests.support.commands import typed
from tests.support.ports import quiet_ports
from tests.support.servers import RedisServer, redis_server

POLICY = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 9\nshare = "session"\n'


def secrets_check(agent: RunningAgent) -> str:
    """What health says of what lets the node in: its status, and why."""
    (check,) = agent.health("/healthz").document["checks"]["secrets"]
    return f"{check['status']} {check['output']}"


def doctor_says(agent: RunningAgent) -> str:
    """What doctor finds about the agent's health."""
    found = json.loads(typed(agent.config, "doctor", "-o", "json").out)
    return "\n".join(f"{row['verdict']} {row['finding']}" for row in found)


@contextmanager
def entitled(server: RedisServer, url: str, *lines: str) -> Iterator[RunningAgent]:
    """An agent whose configuration has these lines in [store], started anew with them."""
    with agents_on(server.url, nodes=("ctx-01",), policy=POLICY) as agents:
        agent = agents["ctx-01"]
        agent.terminate()
        text = agent.config.read_text()
        agent.config.write_text(text.replace(f'url = "{server.url}"', "\n".join([f'url = "{url}"', *lines])))
        agent.launch()
        agent.wait_ready()
        yield agent


def allow(server: RedisServer, password: str) -> None:
    """Give the agent's user this password alone."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "reset", "on", "~*", "+@all", f">{password}")


def test_a_password_that_was_not_changed_everywhere(tmp_path: Path) -> None:
    """The file has the new one and the server does not: nothing fails yet, and health and doctor say what will."""
    secret = tmp_path / "password"
    secret.write_text("first")
    secret.chmod(0o600)
    with redis_server() as server:
        allow(server, "first")
        with entitled(server, server.url, 'username = "agent"', f'password_file = "{secret}"') as agent:
            assert "pass good for the store" == secrets_check(agent)
            secret.write_text("second")
            soon(lambda: secrets_check(agent).startswith("warn"), "health says nothing", 90)
            assert "user name and password" in secrets_check(agent)
            assert "what was there before still serves" in secrets_check(agent)
            assert 201 == agent.start("john", "7").status
            assert 200 == agent.health().status
            assert "still serves" in doctor_says(agent)
            allow(server, "second")
            with server.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            soon(lambda: secrets_check(agent).startswith("pass"), "health goes on warning", 60)


@contextmanager
def serving(authority: Authority, certificate: Path, key: Path) -> Iterator[tuple[int, RunningAgent]]:
    """Run a store with this certificate, and an agent that trusts its authority; yields the store's port too."""
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.file))
    with (
        quiet_ports(1) as (port,),
        redis_server("--tls-port", str(port), *files, "--tls-auth-clients", "no") as server,
        entitled(server, f"rediss://127.0.0.1:{port}/0", f'ca_file = "{authority.file}"') as agent,
    ):
        yield port, agent


def test_a_certificate_that_ends_soon(tmp_path: Path) -> None:
    """The server's own, an authority's or ours: it is said while it is good."""
    authority = Authority(tmp_path, "ours", days=0.2)
    with serving(authority, *authority.issue("store")) as (_, agent):
        soon(lambda: secrets_check(agent).startswith("warn"), "health says nothing")
        assert f"ca_file {authority.file} ends in 0 days; renew it in time" in secrets_check(agent)
        assert "the certificate of 127.0.0.1:" in secrets_check(agent)
        assert 200 == agent.health().status


def test_a_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    """OpenSSL serves and verifies it, and nobody can say when it ends: health and doctor say so, and the agent lives."""
    authority = Authority(tmp_path, "ours", days=100)
    with serving(authority, *authority.issue("store", version=4)) as (port, agent):
        soon(lambda: secrets_check(agent).startswith("warn"), "health says nothing")
        told = f"the certificate of 127.0.0.1:{port} cannot be read, so nobody is told before it ends; renew it"
        assert f"warn {told}" == secrets_check(agent)
        assert f"warn {told}" in doctor_says(agent).splitlines()
        assert 201 == agent.start("john", "7").status
        assert 200 == agent.health().status
