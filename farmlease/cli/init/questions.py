"""The questions of a first set-up. What an option answers is not asked; each answer is judged, and asked for again."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from farmlease.admin.first_host import FirstHost, FirstPool, checked_text, toml_value
from farmlease.domain.identity import check_token
from farmlease.errors import ConfigError, InvalidInput

__all__ = ["KINDS", "Options", "answered", "domain_of"]


KINDS = ("named", "floating")
_STORE = "redis://127.0.0.1:6379/0"
_MOST_SEATS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says. None, or nothing: it does not."""

    farm: str | None
    node: str | None
    store: str | None
    store_user: str | None
    store_password_file: Path | None
    ca_file: Path | None
    listen: str | None
    health: str | None
    state_dir: Path | None
    pool: str | None
    kind: str | None
    seats: int | None
    domain: tuple[str, ...]
    files: tuple[str, ...]


def answered(options: Options, *, asks: bool) -> FirstHost:
    """Return what options and answers say; InvalidInput names the option that is missing where nobody can be asked."""
    ask = _Questions(asks=asks)
    farm = ask.text("Name of the farm, the same on all its hosts", "--farm", options.farm, check=_farm)
    node = ask.text("Name of this host", "--node", options.node, socket.gethostname(), check=_node)
    store = ask.text("Where Redis is (embedded: keeps all on this host)", "--store", options.store, _STORE, check=_url)
    user = password = None
    if store.partition(":")[0] != "embedded":
        user = ask.text("User in Redis (empty: none)", "--store-user", options.store_user, "", check=str)
        password = None if options.store_password_file else ask.password("Password in Redis (empty: none)")
    return FirstHost(
        farm=farm,
        node=node,
        store=store,
        username=user or None,
        password=password or None,
        password_file=_absolute(options.store_password_file),
        ca_file=_absolute(options.ca_file),
        listen=options.listen,
        health=options.health,
        state_dir=_absolute(options.state_dir),
        pool=_pool(options, ask),
    )


def domain_of(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the short name of a domain and its suffixes, of CORP=corp.example.com,example.com. InvalidInput if not."""
    name, _, suffixes = text.partition("=")
    listed = tuple(each.strip() for each in suffixes.split(",") if each.strip())
    if not name.strip() or not listed:
        raise InvalidInput("a domain is written CORP=corp.example.com, with a comma between two suffixes")
    return name.strip(), listed


def _pool(options: Options, ask: "_Questions") -> FirstPool | None:
    name = ask.text("First pool: name of the product (empty: none yet)", "--pool", options.pool, "", check=_pool_name)
    if not name:
        return None
    kind = ask.text("Its kind, named or floating", "--kind", options.kind, KINDS[0], check=_kind)
    seats = ask.text(
        "How many seats you bought", "--seats", None if options.seats is None else str(options.seats), check=_seats
    )
    given = list(options.files)
    if not given and kind == "named":
        answer = ask.text(
            "Licence file that travels, as {home}/.app/licence (empty: none)", "--file", None, "", check=str
        )
        given = [answer] if answer else []
    domains = [domain_of(each) for each in options.domain]
    if not domains:
        answer = ask.text("Domain, as CORP=corp.example.com (empty: none)", "--domain", None, "", check=_domain)
        domains = [domain_of(answer)] if answer else []
    return FirstPool(name=name, kind=kind, seats=int(seats), files=given, domains=dict(domains))


class _Questions:
    """Asks on a terminal; elsewhere takes the default, or refuses to guess."""

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks

    def text(
        self,
        question: str,
        option: str,
        given: str | None,
        default: str | None = None,
        *,
        check: Callable[[str], object],
    ) -> str:
        """Return what the option says, else the answer, else the default; InvalidInput if there is none of them."""
        if given is not None:
            return _judged(option, given, check)
        if self._asks:
            return str(
                click.prompt(question, default=default, show_default=bool(default), err=True, value_proc=_again(check))
            )
        if default is None:
            raise InvalidInput(f"nobody can be asked here: give {option}")
        return _judged(option, default, check)

    def password(self, question: str) -> str:
        """Return a password that is not shown; empty where nobody can be asked."""
        if not self._asks:
            return ""
        return str(click.prompt(question, default="", hide_input=True, show_default=False, err=True))


def _judged(option: str, text: str, check: Callable[[str], object]) -> str:
    """Return what an option says, or its default; InvalidInput names the option."""
    try:
        check(text)
    except InvalidInput as error:
        raise InvalidInput(f"{option}: {error}") from None
    return text


def _again(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return what has click ask again for an answer that is not valid."""

    def judged(text: str) -> str:
        text = text.strip()
        try:
            check(text)
        except InvalidInput as error:
            raise click.BadParameter(str(error)) from None
        return text

    return judged


def _farm(text: str) -> None:
    _in_configuration("farm", text)


def _node(text: str) -> None:
    check_token("node", text)


def _url(text: str) -> None:
    """Refuse what is no URL of a store, and one with a password: the configuration is read by all users of the host."""
    if "@" in text and ":" in text.partition("://")[2].rpartition("@")[0]:
        raise InvalidInput("the configuration is no place for a password: leave it out of the URL")
    _in_configuration("store", text)


def _in_configuration(key: str, text: str) -> None:
    """Judge one value by the rules of the configuration."""
    written = toml_value(text)
    whole = {
        "farm": f'farm = {written}\nnode = "n"\n',
        "store": f'farm = "f"\nnode = "n"\n[store]\nurl = {written}\n',
    }
    try:
        checked_text(whole[key], "answer")
    except ConfigError as error:
        raise InvalidInput(str(error).rpartition(f"{'url' if key == 'store' else key}: ")[2]) from None


def _pool_name(text: str) -> None:
    if text:
        check_token("pool", text)


def _kind(text: str) -> None:
    if text not in KINDS:
        raise InvalidInput(f"it is one of {', '.join(KINDS)}")


def _seats(text: str) -> None:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_SEATS):
        raise InvalidInput("write a number from 1 on")


def _domain(text: str) -> None:
    if text:
        domain_of(text)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
