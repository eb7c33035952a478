"""The lease document: what Python reads of it, and the claim that it hands back to a store that lost it."""

import json
from typing import Any

import pytest

from farmlease.domain.lease_document import LeaseDocument, SessionEntry

MEMBER = "ctx-01#a/7"


def document(**changes: Any) -> bytes:
    """Write a lease of one device and one session as the scripts do, but for ``changes``."""
    lease = {
        "id": "lease 1",
        "issued": 1_000,
        "contact": 2_000,
        "version": 3,
        "devices": {"citrix-a": {"seen": 2_000, "until": 9_000}},
        "sessions": {MEMBER: {"device": "citrix-a", "started": 2_000, "fence": 5}},
    }
    return json.dumps(lease | changes).encode()


def claim(lease: LeaseDocument, **changes: Any) -> dict[str, object]:
    """Return the claim of a session of the user ``abc``, but for ``changes``."""
    given: dict[str, Any] = {"user": "abc", "device": "citrix-a", "fence": 6, "hold_until": None, "over_at": None}
    return lease.claim(MEMBER, **given | changes)


def test_what_is_read_of_a_lease() -> None:
    """Every field that lists show stands in the document."""
    expected = LeaseDocument(
        id="lease 1",
        issued_at=1_000,
        contact_at=2_000,
        record_version=3,
        saved_at=None,
        devices={"citrix-a": 9_000},
        sessions={MEMBER: SessionEntry(device="citrix-a", started_at=2_000, fence=5)},
        returned=False,
        overdraft=False,
        fence=5,
    )
    assert expected == LeaseDocument.parse(document())
    lease = LeaseDocument.parse(document(back=True, charges={"abc": "+"}))
    assert (True, True) == (lease.returned, lease.overdraft)
    assert (7, 0) == (LeaseDocument.parse(document(fence=7)).fence, LeaseDocument.parse(document(sessions={})).fence)


@pytest.mark.parametrize("empty", [{}, []])
def test_an_empty_table_is_an_object_or_a_list(empty: object) -> None:
    """Lua has one empty table, so that JSON may show either."""
    lease = LeaseDocument.parse(document(devices=empty, sessions=empty, charges=empty))
    assert ({}, {}, False) == (lease.devices, lease.sessions, lease.overdraft)


def test_a_device_counts_while_a_session_uses_it_and_then_until_its_deadline() -> None:
    """A device in use has no deadline; any other counts until the last moment before its own."""
    assert {"citrix-a": None} == LeaseDocument.parse(document()).device_deadlines(9_000)
    unused = LeaseDocument.parse(document(sessions={}))
    assert ({"citrix-a": 9_000}, {}) == (unused.device_deadlines(8_999), unused.device_deadlines(9_000))


def test_the_claim_of_a_session_that_the_store_wrote_down() -> None:
    """Its start, seat and hold are the store's; a later fence and hold are the node's."""
    expected = {"device": "citrix-a", "fence": 6, "started": 2_000, "seat": "abc"}
    assert expected == claim(LeaseDocument.parse(document()))
    entry = {"device": "citrix-a", "started": 2_000, "fence": 5, "seat": "abc/citrix-a", "hold": 7_000}
    lease = LeaseDocument.parse(document(sessions={MEMBER: entry}))
    expected |= {"seat": "abc/citrix-a", "hold": 7_000}
    assert expected == claim(lease)
    assert expected | {"hold": 8_000} == claim(lease, hold_until=8_000)


def test_the_claim_of_a_session_that_a_receipt_let_in() -> None:
    """The store wrote nothing of it, so that the script chooses its seat; it began with the last contact."""
    lease = LeaseDocument.parse(document(sessions={}))
    expected = {"device": "citrix-a", "fence": 6, "started": 2_000}
    assert expected == claim(lease)
    assert expected | {"over": 2_000} == claim(lease, over_at=0)
    assert expected | {"over": 2_500} == claim(lease, over_at=2_500)
