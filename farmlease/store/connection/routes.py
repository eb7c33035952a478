"""The route to a store, made of its address: to one server, to the master of the Sentinels, or into a Cluster.

This module must never show a Sentinel the store's name and password unless it asked for some.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, unquote

from redis import asyncio as driver

from farmlease.store.connection.address import (
    StoreAddress,
    credentials,
    database,
    hosts,
    is_encrypted,
    master_name,
)
from farmlease.store.connection.credential_files import FilePassword, TlsFiles
from farmlease.store.connection.multiplexer import OneServer
from farmlease.store.connection.renewals import Renewals
from farmlease.store.connection.routing import Cluster, Route
from farmlease.store.connection.sentinel import SentinelMaster
from farmlease.store.connection.socket import (
    ConnectionPool,
    Handshake,
    SentinelTlsConnection,
    TlsConnection,
    driver_options,
)

__all__ = ["one_server", "route_to"]


def route_to(address: StoreAddress, url: SplitResult, renewals: Renewals) -> tuple[Route, str]:
    """Return the route to a store that others run, and its address as texts show it."""
    handshake, number, exclusive = Handshake(renewals), database(url), address.wait_replicas > 0
    who = _identity(address, url, renewals)
    given = driver_options(address, db=number, **who)
    if url.scheme == "unix":
        path = unquote(url.path)
        route = one_server(handshake, given, driver.UnixDomainSocketConnection, exclusive=exclusive, path=path)
        return route, f"unix://{path}?db={number}"
    tls: dict[str, Any] = (
        {"connection_class": TlsConnection, "files": TlsFiles(address, renewals)} if is_encrypted(address, url) else {}
    )
    named_hosts = hosts(url)
    named = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in named_hosts)
    if url.scheme == "redis+cluster":
        return Cluster(
            named_hosts, handshake, address.timeout_ms / 1000, exclusive=exclusive, **given | tls
        ), f"{url.scheme}://{named}"
    if url.scheme == "redis+sentinel":
        master, kind = master_name(url), {"connection_class": SentinelTlsConnection} if tls else {}
        sentinels, patience = _sentinels(address, named_hosts, who, tls, renewals)
        how = {"redis_connect_func": handshake.perform, **given, **tls, **kind}
        sentinel_master = SentinelMaster(master, sentinels, handshake, patience=patience, exclusive=exclusive, **how)
        return sentinel_master, f"{url.scheme}://{named}/{master}/{number}"
    host, port = named_hosts[0]
    return one_server(
        handshake, given | tls, exclusive=exclusive, host=host, port=port
    ), f"{url.scheme}://{named}/{number}"


def _identity(address: StoreAddress, url: SplitResult, renewals: Renewals) -> dict[str, Any]:
    """Return the driver's options by which we say who we are; empty where nobody is to be told."""
    user, password = credentials(address, url)
    if address.password_file is not None:
        return {"credential_provider": FilePassword("password_file", user, address.password_file, renewals)}
    return {"username": user, "password": password} if user or password else {}


def _sentinels(
    address: StoreAddress,
    hosts: Sequence[tuple[str, int]],
    who: dict[str, Any],
    tls: dict[str, Any],
    renewals: Renewals,
) -> tuple[list[list[ConnectionPool]], float]:
    """Return the connection pools for each Sentinel, and the seconds that each has to answer.

    Each is asked with the Sentinels' own name and password if there is one; else without any, then, in case it wants
    one, with the store's.
    """
    has_password = "credential_provider" in who or who.get("password")
    identities: list[dict[str, Any]] = [{}, who] if has_password else [{}]
    if address.sentinel_password_file is not None:
        own = FilePassword(
            "sentinel_password_file", address.sentinel_username, address.sentinel_password_file, renewals
        )
        identities = [{"credential_provider": own}, {}]
    # A dead Sentinel leaves time to ask the others within one attempt: all of them at once, then one after the other.
    share = address.timeout_ms / 1000 / ((1 + len(hosts)) * len(identities) + 1)
    given = driver_options(address) | tls | {"socket_connect_timeout": share}
    pools = [
        [driver.ConnectionPool(host=host, port=port, **given, **who) for who in identities] for host, port in hosts
    ]
    return pools, share


def one_server(
    handshake: Handshake,
    given: dict[str, Any],
    kind: type[driver.Connection | driver.UnixDomainSocketConnection] = driver.Connection,
    *,
    exclusive: bool = False,
    **place: Any,  # noqa: ANN401 - the driver's own options
) -> OneServer:
    """Return the route to one server, at a ``place`` that the driver's connections of a ``kind`` know."""
    pool = driver.ConnectionPool(redis_connect_func=handshake.perform, **{"connection_class": kind} | given | place)
    return OneServer(pool, handshake, exclusive=exclusive)
