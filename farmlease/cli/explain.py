"""``farmlease explain``: what a session start would get and why, from this node's agent or, for any node, the store.

Takes nothing and writes nothing. A document is printed, the same from both: this module decides nothing.
"""

import http.client
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from farmlease.cli import example
from farmlease.cli.client.agent import error_of
from farmlease.cli.client.session import call_agent, format_instant
from farmlease.cli.output.format import print_folded, write_json
from farmlease.errors import EXIT_DENIED, EXIT_UNAVAILABLE, AgentUnavailable

__all__ = ["explain"]

#: Columns before the text of each line.
_INDENT = 12
#: What a grant would do, in words.
_HOW = {
    "new": "a seat is free, and a lease would begin",
    "joined": "the user holds a lease here, and a start goes on with it",
    "again": "the session has its seat already",
    "moved": "the session would move to this device",
    "receipt": "the store is away, and this node's receipt lets the user in",
}
#: Where the groups come from, in words.
_GROUPS = {
    "host": "as this host sees them",
    "given": "as given; those that the host would add are not known here",
    "not_asked": "nothing in the policy asks for groups",
    "unknown": "the host cannot be asked: a rule that denies by groups matches, no other",
}


@click.command(
    epilog=example(
        "farmlease explain 'CORP\\john' --app clearquest",
        "farmlease explain 'CORP\\john' --pool qlikview --group 'CORP\\Designers' --node ctx-02 -o json",
    )
)
@click.argument("user")
@click.option("--app", metavar="A", help="Application that would be started.")
@click.option("--pool", metavar="P", help="Pool that would be asked for (default: as the policy says).")
@click.option("--group", "groups", metavar="G", multiple=True, help="Group the user is in; may be repeated.")
@click.option("--device", metavar="D", help="Machine outside the farm (default: the farm).")
@click.option("--site", metavar="S", help="Site the session would come from.")
@click.option("--node", metavar="N", help="Node, asked about in the store (default: this one, by its agent).")
@click.option("-o", "--output", "fmt", type=click.Choice(["json"]), help="Print the whole explanation.")
def explain(
    *,
    user: str,
    app: str | None,
    pool: str | None,
    groups: tuple[str, ...],
    device: str | None,
    site: str | None,
    node: str | None,
    fmt: str | None,
) -> None:
    """Tell what a session start of USER would get and why. Takes nothing, and writes nothing.

    The decision is the one of a start itself: who the name is, the groups seen, the rule and its line, the limits and
    claims of each pool, the answer, and what would change it. This node's agent adds the groups that the host knows.
    With --node the store is asked, with the farm's keys and without any agent: only the groups given count.

    Exit status: as a start's: 0 it would get in or wait, 3 denied, 4 the agent or its store is unavailable.
    """
    given = {"app": app, "pool": pool, "groups": [*groups], "device": device, "site": site}
    body = {"user": user, "session": f"explain-{secrets.token_hex(8)}"} | {
        key: each for key, each in given.items() if each
    }
    document = _by_agent(body) if node is None else _by_store(body, node)
    if fmt == "json":
        write_json(document)
    else:
        for line in _lines(document):
            print_folded(line, _INDENT)
    answer = document["answer"]
    if answer["decision"] == "denied":
        click.get_current_context().exit(EXIT_UNAVAILABLE if answer["reason"] == "offline" else EXIT_DENIED)


def _by_agent(body: Mapping[str, object]) -> Mapping[str, Any]:
    """Return the explanation of this node's agent."""
    try:
        answer = call_agent("POST", "/v1/explain", body)
    except AgentUnavailable as error:
        raise AgentUnavailable(f"{error}; without an agent, name a node: --node N asks the store") from None
    if answer.status != http.client.OK:
        raise error_of(answer)
    return answer.fields()


def _by_store(body: Mapping[str, Any], node: str) -> Mapping[str, Any]:
    """Return the explanation of a start on a node, as far as the store knows."""
    from farmlease.admin.explaining import FarmExplanation  # the agent's answer needs neither redis nor keys
    from farmlease.cli.client.farm import opened_farm
    from farmlease.domain.json_documents import explanation_document
    from farmlease.domain.model import SessionRequest

    with opened_farm() as client:
        in_force = client.in_force()
        request = SessionRequest(
            user=in_force.identity.user(body["user"]),
            session=body["session"],
            given=body["user"],
            groups=tuple(body.get("groups", ())),
            **{key: body[key] for key in ("pool", "app", "site", "device") if key in body},
        )
        return explanation_document(client.wait(FarmExplanation(client.farm).explain(request, in_force, node)))


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the explanation in words, a line for each fact."""
    answer, rule = document["answer"], document["rule"]
    yield f"{document['user']} on {document['node']}: {_answer(answer)}"
    yield from _listed("name", [f"{each['why']}{_line(each['line'])}" for each in document["identity"]])
    groups = "; ".join(document["groups"] or ()) or "none"
    source = _GROUPS[document["groups_from"]]
    yield from _listed("groups", [source if document["groups"] is None else f"{groups} ({source})"])
    yield from _listed("rule", [_rule(rule)])
    for pool in document["pools"]:
        yield from _listed("pool", [f"{pool['pool']} ({pool['kind']}): {_answer(pool['answer'])}", *_claims(pool)])
    yield from _listed("changes", document["changes"])


def _answer(answer: Mapping[str, Any]) -> str:
    """Return an answer that was not given, in words."""
    match answer["decision"]:
        case "granted":
            overdraft = ", beyond the capacity" if answer["overdraft"] else ""
            until = format_instant(answer["lease"]["expires_at"])
            return f"granted pool {answer['pool']}{overdraft}, until {until}: {_HOW[answer['how']]}"
        case "restricted":
            return "restricted use, without a licence"
        case "waiting":
            return f"would wait in the queue, {answer['ahead']} before it"
        case _:
            return f"denied, {answer['reason']}: {answer['detail']}"


def _rule(rule: Mapping[str, Any] | None) -> str:
    if rule is None:
        return "none: no policy is known"
    number = "" if rule["number"] is None else f"rule {rule['number']}"
    return f"{number}{_line(rule['line'])}{': ' if number else ''}{rule['why']}"


def _line(line: int | None) -> str:
    return "" if line is None else f" (line {line})"


def _claims(pool: Mapping[str, Any]) -> Iterator[str]:
    """Yield the limits of a pool with what is claimed of them, and the user's lease."""
    counts = [
        f"{each['set']} {each['held']}" + ("" if each["most"] is None else f" of {each['most']}")
        for each in pool["sets"]
    ]
    if counts:
        yield ", ".join(counts)
    lease = pool["lease"]
    if lease is not None:
        until = (
            "while its sessions last" if lease["expires_at"] is None else f"until {format_instant(lease['expires_at'])}"
        )
        yield f"the user holds a lease since {format_instant(lease['issued_at'])}, {until}"
        for session in lease["sessions"]:
            yield f"with session {session['session']} on {session['node']}"
        for device in lease["devices"]:
            kept = "in use now" if device["until"] is None else f"until {format_instant(device['until'])}"
            yield f"on device {device['device']} ({kept})"


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines under a title, one below the other."""
    first, *others = lines or ["nothing"]
    return [f"  {title:<9} {first}", *(f"{'':12}{other}" for other in others)]
