"""Both ends of a mail find each other in whatever order they are heard of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soc.mail_collector import pairing
from soc.mail_collector.models import MailEvent

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(kind: str, seconds: int = 0, **changes: Any) -> MailEvent:
    values = {
        "kind": kind,
        "passed": True,
        "wm_id": "1",
        "message_id": "m",
        "sender": "a@north",
        "recipients": ["b@south"],
        "at": START + timedelta(seconds=seconds),
        "stale": False,
    }
    return MailEvent(**values | changes)


def known(*events: MailEvent) -> dict[bytes, pairing.Leg]:
    return pairing.merged(leg for one in events for leg in pairing.legs(one))


def test_a_receipt_that_comes_before_its_sending_verifies_the_mail() -> None:
    (leg,) = known(event("receive", 5), event("send", 2)).values()
    assert (leg.sent_at, leg.received_at) == (START + timedelta(seconds=2),
                                              START + timedelta(seconds=5))  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"wm_id": "2"},
        {"message_id": "n"},
        {"message_id": ""},
        {"sender": "c@north"},
        {"recipients": ["c@south"]},
    ],
)
def test_what_differs_in_anything_is_another_mail(other: dict[str, Any]) -> None:
    assert len(known(event("send"), event("receive", **other))) == 2


def test_a_mail_to_two_is_two_and_each_is_received_by_itself() -> None:
    send = event("send", recipients=["b@south", "c@west"])
    legs = known(send, event("receive", 3, recipients=["c@west"]))
    assert {leg.recipient: leg.received_at is not None for leg in legs.values()} == {
        "b@south": False,
        "c@west": True,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": False},
        {"kind": "connection"},
        {"sender": ""},
        {"recipients": []},
        {"wm_id": "", "message_id": ""},
    ],
)
def test_a_check_that_tells_of_no_mail_pairs_with_nothing(changes: dict[str, Any]) -> None:
    assert known(event(**{"kind": "send"} | changes)) == {}


def test_a_receipt_heard_of_too_late_is_known_but_not_fresh() -> None:
    (leg,) = known(event("receive", stale=True), event("send")).values()
    assert (leg.received_at, leg.fresh_at) == (START, None)


_EVENTS = st.builds(
    event,
    st.sampled_from(["send", "receive"]),
    st.integers(0, 9),
    wm_id=st.sampled_from("12"),
    stale=st.booleans(),
    recipients=st.lists(st.sampled_from(["b@south", "c@west"]), max_size=2, unique=True),
)


@given(st.lists(_EVENTS, max_size=8), st.data())
def test_order_and_repetition_make_no_difference(events: list[MailEvent], data: Any) -> None:
    again = data.draw(st.permutations(events * 2))
    cut = data.draw(st.integers(0, len(again)))
    first, second = known(*again[:cut]), known(*again[cut:])
    parts = pairing.merged([*first.values(), *second.values()])
    assert parts == known(*events)
