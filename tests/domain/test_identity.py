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


# --- the farm's table: default domain, several suffixes, local users, unknown domains ---------------------------------

SID = "S-1-5-21-1004336348-1177238915-682003330-512"
FARM = Identities(
    {"CORP": ["corp.example.com", "example.com"], "Lab": "lab.example.com"},
    {r"CORP\adm-alice": r"CORP\alice", SID: "john@corp.example.com"},
    default_domain="CORP",
    local_users=["root", "Administrator", r"NT AUTHORITY\SYSTEM", "S-1-5-18"],
)


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("alice", r"corp\alice"),
        ("ALICE", r"corp\alice"),
        (r"CORP\alice", r"corp\alice"),
        ("alice@example.com", r"corp\alice"),
        ("alice@CORP.EXAMPLE.COM", r"corp\alice"),  # a Kerberos realm
        (r"AzureAD\alice@example.com", r"corp\alice"),
        (r"AZUREAD\alice@corp.example.com", r"corp\alice"),
        (r"MicrosoftAccount\alice@example.com", r"corp\alice"),
        (r"AzureAD\alice@elsewhere.example", "alice@elsewhere.example"),
        ("adm-alice", r"corp\alice"),
        (SID, r"corp\john"),
        ("S-1-5-21-1-2-3-1001", "s-1-5-21-1-2-3-1001"),  # never a name of the default domain
        ("root", "root"),
        ("ROOT", "root"),
        (r"CORP\root", r"corp\root"),
        ("administrator@example.com", r"corp\administrator"),
        (r"nt authority\system", r"nt authority\system"),
        ("system", r"corp\system"),
        (r"LAB\alice", r"lab\alice"),
        (r"OTHER\alice", r"other\alice"),
    ],
)
def test_a_plain_name_and_its_domain_form_are_one_person(spelling: str, canonical: str) -> None:
    """L2: with a default domain a name as PAM, SSSD and winbind give it is the person of the domain; local ones apart."""
    assert User(canonical) == FARM.user(spelling)


@given(NAMES)
def test_every_form_of_one_name_is_one_person(name: str) -> None:
    """L2: plain, with the short domain, each suffix, as realm and as Entra ID writes it: one person."""
    forms = ["{}", r"CORP\{}", r"corp.example.com\{}", "{}@corp", "{}@example.com", r"AzureAD\{}@corp.example.com"]
    try:
        persons = {FARM.user(form.format(name)) for form in forms}
    except InvalidName:
        assume(False)  # noqa: FBT003 -- hypothesis's own signature
    assume(fold(name) not in {"root", "administrator"})
    assert 1 == len(persons)


@given(st.builds("{}{}".format, st.sampled_from(["", "CORP\\", "LAB\\", "OTHER\\"]), NAMES), NAMES)
def test_two_persons_never_become_one(first: str, second: str) -> None:
    """L2: names that differ beyond case and width stay two persons in every domain, but by an alias."""
    table = Identities(FARM.domains, default_domain="CORP", local_users=FARM.local_users)
    try:
        one = table.user(first)
        others = [table.user(form.format(second)) for form in ("{}", r"LAB\{}", "{}@example.com", r"OTHER\{}")]
    except InvalidName:
        assume(False)  # noqa: FBT003 -- hypothesis's own signature
    for other in others:
        assert (one == other) == ((one.domain, one.name) == (other.domain, other.name))
        assert one.name == other.name or one != other


@given(
    st.one_of(st.text(max_size=40), st.builds("{}\\{}".format, NAMES, NAMES), st.builds("{}@{}".format, NAMES, NAMES))
)
def test_canonical_is_a_fixed_point_of_the_farms_table(spelling: str) -> None:
    """L2: a name as any list prints it means the same person again, whatever the table has."""
    try:
        user = FARM.user(spelling)
    except InvalidName:
        assume(False)  # noqa: FBT003 -- hypothesis's own signature
    assert user == FARM.user(user.canonical)


def test_without_a_table_names_are_as_given() -> None:
    """Before any policy exists nobody is unknown."""
    assert Identities().knows(User(r"other\alice"))


@pytest.mark.parametrize(
    ("spelling", "known"),
    [
        ("alice", True),
        (r"LAB\alice", True),
        ("root", True),
        (r"NT AUTHORITY\SYSTEM", True),
        (r"NT AUTHORITY\LOCAL SERVICE", False),
        (r"OTHER\alice", False),
        ("alice@elsewhere.example", False),
        (SID, True),
        ("S-1-5-18", True),
        ("S-1-5-21-1-2-3-1001", False),
    ],
)
def test_users_of_domains_that_are_not_listed_are_unknown(spelling: str, known: bool) -> None:  # noqa: FBT001 - a column
    """A domain, or a SID, that leads nowhere is told, and its users refused where the farm wants that."""
    assert known == FARM.knows(FARM.user(spelling))
    assert not FARM.refuses(FARM.user(spelling))
    strict = Identities(FARM.domains, FARM.aliases, "CORP", FARM.local_users, refuse_unknown=True)
    assert known != strict.refuses(strict.user(spelling))


@pytest.mark.parametrize(
    ("group", "canonical"),
    [
        (r"CORP\Students", r"corp\students"),
        ("students@corp.example.com", r"corp\students"),
        ("Students@EXAMPLE.COM", r"corp\students"),
        ("students", r"corp\students"),
        ("[Sales] Users", r"corp\[sales] users"),
        (r"BUILTIN\Users", r"builtin\users"),
        (r"CORP\adm-alice", r"corp\adm-alice"),  # aliases are of users
        ("a@b@example.com", r"corp\a@b"),
    ],
)
def test_groups_are_read_by_the_same_domains(group: str, canonical: str) -> None:
    """A group has the spellings of its domain too, and any characters that a directory allows."""
    assert canonical == FARM.group(group) == FARM.group(canonical)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"default_domain": "a@b"}, "default_domain = 'a@b'"),
        ({"default_domain": ""}, "is empty"),
        ({"local_users": [r"CORP\root"], "domains": {"CORP": []}}, "write the name alone"),
        ({"local_users": ["a/b"]}, "local_users, 'a/b'"),
        ({"refuse_unknown": True}, "refuses every domain"),
        ({"domains": {"CORP": []}, "refuse_unknown": True, "aliases": {"a": "b@c"}}, "not among the domains"),
        ({"domains": {"CORP": ["x"], "LAB": ["y", "X"]}}, "two domains"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(table: Mapping[str, object], told: str) -> None:
    """What contradicts itself is refused with the administrator's own entry."""
    with pytest.raises(ConfigError, match=told):
        Identities(**table)  # type: ignore[arg-type]  # a test's tables


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
