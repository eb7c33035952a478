"""When a key may be used and when it may go, from what the nodes say."""

from farmlease.domain.key_rotation import KeyReport, KeyUses, cannot_open, in_the_way, keys_elsewhere

OLD, NEW = "aaaaaaaa", "bbbbbbbb"
MINUTE = 60_000


def told(node: str = "ctx-01", **more: object) -> KeyReport:
    """A node that is well and has done with the old key, but for ``more``."""
    usual = {"silent_ms": 0, "every_ms": MINUTE, "primary": NEW, "opens": (OLD, NEW), "holds": {}}
    return KeyReport(node=node, **(usual | more))  # type: ignore[arg-type] - the test's own words


def test_a_key_may_be_used_when_every_living_node_opens_with_it() -> None:
    """Who lacks it is named; a node that is off does not count, as it takes nobody with a ring that is too old."""
    lacking = told("ctx-02", opens=(OLD,))
    off = told("ctx-03", opens=(OLD,), silent_ms=4 * MINUTE)
    assert [] == cannot_open([told(), off], ["ctx-01"], NEW)
    assert ["ctx-02"] == cannot_open([told(), lacking, off], ["ctx-01"], NEW)


def test_a_node_that_says_nothing_is_in_the_way() -> None:
    """An agent of an older version counts sessions and does not report its keys: it cannot be taken to have them."""
    (line,) = cannot_open([told()], ["ctx-01", "ctx-09"], NEW)
    assert line.startswith("ctx-09 (does not report")
    (line,) = in_the_way([told()], ["ctx-01", "ctx-09"], OLD, KeyUses())
    assert line.startswith("ctx-09: does not report")


def test_a_living_node_that_knows_more_keys_is_named() -> None:
    """The ring here is not the newest then; what a node that is off knew does not matter."""
    ahead = told("ctx-02", opens=(OLD, NEW, "cccccccc"))
    assert ["ctx-02"] == keys_elsewhere([told(), ahead], [OLD, NEW])
    assert [] == keys_elsewhere([told(), told("ctx-02", opens=("cccccccc",), silent_ms=4 * MINUTE)], [OLD, NEW])


def test_a_key_goes_when_nothing_needs_it() -> None:
    """Neither the store nor a node; administrators' words in the audit do not keep it."""
    assert [] == in_the_way([told(), told("ctx-02")], ["ctx-01"], OLD, KeyUses(notes=3))


def test_what_needs_a_key_is_told_with_numbers() -> None:
    """The store's seals, nodes that seal with it, and journals that lie on nodes which are off too."""
    nodes = [
        told("ctx-01", primary=OLD),
        told("ctx-02", holds={OLD: 7}),
        told("ctx-03", holds={OLD: 1}, silent_ms=50 * 60 * MINUTE),
    ]
    assert [
        "the store: 2 records, 1 name, 1 policy",
        "ctx-01: it seals with it, as its key ring is an older one",
        "ctx-02: 7 entries of its journal",
        "ctx-03, silent for 50 h: 1 entries of its journal",
    ] == in_the_way(nodes, [], OLD, KeyUses(records=2, names=1, policy=1))
