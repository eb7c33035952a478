"""One person, one canonical name (law L2), and no name that could be something else on a host."""

import sys
import unicodedata
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farmlease.domain.identity import Identities, User, check_token, fold
from farmlease.errors import ConfigError, InvalidName

DOMAINS = {"CORP": "corp.example.com", "Lab": "lab.example.com"}
ALIASES = {
    r"CORP\adm-alice": r"CORP\alice",
    "S-1-5-21-1004336348-1177238915-682003330-512": "john@corp.example.com",
}
KNOWN = Identities(DOMAINS, ALIASES)
NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters='/\\:*?"<>|@.'), min_size=1, max_size=20
)
FULL_WIDTH = {code: code + 0xFEE0 for code in range(ord("0"), ord("z") + 1) if chr(code).isalnum()}


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        (r"CORP\john", r"corp\john"),
        (r"corp\JOHN", r"corp\john"),
        ("John@Corp.Example.COM", r"corp\john"),
        (r"corp.example.com\john", r"corp\john"),
        ("john@CORP", r"corp\john"),
        ("\uff4a\uff4f\uff48\uff4e@corp.example.com", r"corp\john"),
        ("s-1-5-21-1004336348-1177238915-682003330-512", r"corp\john"),
        (r"corp\ADM-Alice", r"corp\alice"),
        ("adm-alice@corp.example.com", r"corp\alice"),
        ("john@other.example", "john@other.example"),
        (r"OTHER\john", r"other\john"),
        ("john", "john"),
        ("Jose\u0301", "josé"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("john doe", "john doe"),
        ("john.doe", "john.doe"),
    ],
)
def test_every_spelling_has_one_canonical_name(spelling: str, canonical: str) -> None:
    """L2: domain and name, DNS form, SID, case, width and composition of characters make no difference."""
    assert User(canonical) == KNOWN.user(spelling)


@pytest.mark.parametrize(
    ("canonical", "name"), [(r"corp\john", "john"), ("john@other.example", "john"), ("john", "john")]
)
def test_name_is_without_domain(canonical: str, name: str) -> None:
    """File templates get the name without its domain."""
    assert name == User(canonical).name


@given(
    st.one_of(st.text(max_size=40), st.builds("{}\\{}".format, NAMES, NAMES), st.builds("{}@{}".format, NAMES, NAMES))
)
def test_canonical_is_a_fixed_point(spelling: str) -> None:
    """L2: whatever is accepted at all, its canonical name means the same user."""
    try:
        user = KNOWN.user(spelling)
    except InvalidName:
        assume(False)  # noqa: FBT003 -- hypothesis's own signature
    assert user == KNOWN.user(user.canonical)


@given(NAMES, st.sampled_from(["CORP\\{}", "{}@corp.example.com", "{}@else.example", "{}"]))
def test_case_and_width_are_the_same_person(name: str, form: str) -> None:
    """L2: capitals and full-width letters make no second user."""
    try:
        user = KNOWN.user(form.format(name))
    except InvalidName:
        assume(False)  # noqa: FBT003 -- hypothesis's own signature
    assert user == KNOWN.user(form.format(name.casefold()))
    assert user == KNOWN.user(form.format(name.translate(FULL_WIDTH)))
    assert user == KNOWN.user(form.format(unicodedata.normalize("NFD", name)))


def test_folding_settles_for_every_character() -> None:
    """Folding twice is folding once, for each character that exists."""
    unsettled = [code for code in range(sys.maxunicode + 1) if fold(fold(chr(code))) != fold(chr(code))]
    assert [] == unsettled


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        "a" * 257,
        "\ufdfa" * 20,  # 18 characters each, once normalised
        " john",
        "john ",
        "\u00a0john",
        "john\u3000",
        "\u00b4john",  # a space and an accent, once normalised
        "corp\\ john",
        "corp \\john",
        "jo\x00hn",
        "jo\u2028hn",
        "jo\u1680hn",
        "jo\nhn",
        "jo\u202ehn",
        "jo\u200dhn",
        "jo\ud800hn",
        "jo\U000e0001hn",
        ".",
        "..",
        "...",
        "john.",
        r"corp\..",
        r"..\john",
        r".\john",
        "..@corp.example.com",
        "\u2024\u2024",
        "\u2025",
        "\uff0e\uff0e",
        "../john",
        "john/x",
        "john\uff0fx",
        "\u2100",  # a/c
        "c:john",
        "john\uff0a",
        "john*",
        "john?",
        'john"',
        "<john>",
        "john|x",
        "a\\b\\c",
        "a@b@c",
        "corp\\john@corp.example.com",
        "corp\\",
        "\\john",
        "@corp.example.com",
        "john@",
        "corp\uff3cjohn",
        "john\uff20corp.example.com",
        "john\ufe68x",
        "-john",
        "--help",
        r"corp\-john",
        r"-corp\john",
        "-john@corp.example.com",
        "\uff0djohn",  # a hyphen, once normalised
    ],
)
def test_no_name_is_a_path_or_a_trick(spelling: str) -> None:
    """A name that is empty, over-long, invisible or path-like is refused, before and after normalisation, unechoed."""
    with pytest.raises(InvalidName) as refused:
        KNOWN.user(spelling)
    assert "john" not in str(refused.value)


@given(st.text(max_size=300))
def test_what_is_accepted_is_safe(spelling: str) -> None:
    """Whatever text comes in: refused, or a printable name with at most one separator that no path can be made of."""
    try:
        user = Identities().user(spelling)
    except InvalidName:
        return
    assert user.canonical.isprintable()
    assert 1 >= user.canonical.count("\\") + user.canonical.count("@")
    assert not user.canonical.startswith("-")
    assert not set(user.name) & set('/\\:*?"<>|\0')
    assert user.name.strip(". ")


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        ({"a": "b", "b": "c"}, "itself an alias"),
        ({"a": "b", "b": "a"}, "itself an alias"),
        ({"a": "A"}, "itself an alias"),
        ({r"CORP\a": "b", "a@corp.example.com": "c"}, "two users"),
        ({"a/b": "c"}, "has one of"),
        ({"a": ""}, "is empty"),
    ],
)
def test_ambiguous_aliases_are_refused(aliases: Mapping[str, str], told: str) -> None:
    """L2: an alias leads to one user in one step, or the configuration is refused."""
    with pytest.raises(ConfigError, match=told):
        Identities(DOMAINS, aliases)


def test_two_spellings_of_one_alias_may_agree() -> None:
    """The same alias written twice is no contradiction."""
    identities = Identities(DOMAINS, {r"CORP\a": "b", "a@corp.example.com": "B"})
    assert User("b") == identities.user("A@corp.example.com")


@pytest.mark.parametrize(
    ("domains", "told"),
    [
        ({"A": "same.example", "B": "same.example"}, "two domains"),
        ({"A": "b", "B": "c"}, "two domains"),
        ({"A": ""}, "is empty"),
        ({"A\\B": "c"}, "has one of"),
        ({"A": "x@y"}, "has one of"),
    ],
)
def test_ambiguous_domains_are_refused(domains: Mapping[str, str], told: str) -> None:
    """L2: a spelling of a domain means one domain, or the configuration is refused."""
    with pytest.raises(ConfigError, match=told):
        Identities(domains)


def test_a_domain_may_have_several_dns_names() -> None:
    """Several user name suffixes of one domain are one domain."""
    identities = Identities({"CORP": "corp.example.com", "corp": "corp.example.net"})
    assert identities.user("x@corp.example.com") == identities.user("x@corp.example.net")


@pytest.mark.parametrize("text", ["7", "ctx-01", "{6F9619FF-8B86-D011}", "a b", "rdp-tcp:3", "x" * 128])
def test_tokens(text: str) -> None:
    """Hosts choose the names of sessions and devices; what can be told apart is taken as it is."""
    assert text == check_token("session", text)


@pytest.mark.parametrize(
    "text", ["", " 7", "7 ", "a/b", "a#b", "a\nb", "a\x00", "\x7f", "\ud800", "a\u202eb", "x" * 129, "-7", "--yes"]
)
def test_tokens_that_could_pass_for_others_are_refused(text: str) -> None:
    """A token with a separator of the store, or one nobody can read, is refused by its kind alone."""
    with pytest.raises(InvalidName, match="the session") as refused:
        check_token("session", text)
    assert not text.strip() or text not in str(refused.value)
