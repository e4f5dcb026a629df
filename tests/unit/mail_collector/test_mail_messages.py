"""What mail robots write, and what the names of mailboxes tell."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from soc.mail_collector import mailboxes, messages
from soc.mail_collector.mailboxes import Place
from soc.mail_collector.messages import Check, Kind

SEND = {
    "type": "send",
    "status": "PASS",
    "wm_id": "000123",
    "message_id": "<1F3c@North.internal>",
    "mailbox": "Mail1-DB2-robot07@North.internal",
    "to": ["mail1-db1-robot02@south.internal", "MAIL1-db1-robot02@south.internal", "nobody"],
    "text": "Taken\nafter 0.4 s.",
}


def read(**changes: Any) -> Check:
    return messages.read("", {"param1": json.dumps(SEND | changes)})


def test_a_send_knows_its_sender_by_its_mailbox() -> None:
    assert read() == Check(
        kind=Kind.SEND,
        passed=True,
        mailbox="mail1-db2-robot07@north.internal",
        wm_id="000123",
        message_id="1F3c@North.internal",
        sender="mail1-db2-robot07@north.internal",
        recipients=("mail1-db1-robot02@south.internal",),
        text="Taken after 0.4 s.",
    )


def test_a_receipt_is_its_mailboxes_own_whoever_else_the_mail_was_meant_for() -> None:
    check = read(type="receive", **{"from": "a@x.internal", "to": ["b@y.internal"]})
    assert check.sender == "a@x.internal"
    assert check.recipients == ("mail1-db2-robot07@north.internal",)


def test_the_message_is_read_where_there_are_no_values() -> None:
    assert messages.read(json.dumps(SEND), {}).kind == Kind.SEND


@pytest.mark.parametrize(
    "values",
    [
        {"Binary": "0D0A", "param1": json.dumps(SEND)},
        {"param1": json.dumps(SEND), "param2": json.dumps(SEND | {"wm_id": "another"})},
        {"Param1": json.dumps(SEND), "Data": json.dumps(SEND | {"wm_id": "another"})},
        {"param1": "Robot 7", "param2": json.dumps(SEND), "param3": json.dumps({"wm_id": "third"})},
        {"Binary": "", "param1": "17", "Text": json.dumps(SEND)},
    ],
)
def test_a_check_is_found_by_name_in_whatever_order_the_values_come(values: dict[str, str]) -> None:
    for order in itertools.permutations(values.items()):
        assert messages.read("not JSON", dict(order)).wm_id == SEND["wm_id"]


def test_the_message_is_read_where_no_value_is_an_object() -> None:
    assert messages.read(json.dumps(SEND), {"Binary": "0D0A", "param1": "17"}).kind == Kind.SEND


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "sing"}, "'sing' is none of configuration, connection, create, send, receive"),
        ({"type": None}, "is none of"),
        ({"status": "maybe"}, "'maybe' is neither PASS nor FAIL"),
        ({"status": True}, "is neither PASS nor FAIL"),
    ],
)
def test_what_is_no_check_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(**changes)


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", '"text"', "{" * 5000, "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="A check of a mail robot is"):
        messages.read(text, {})


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"wm_id": 123}, "wm_id", "123"),
        ({"wm_id": True}, "wm_id", ""),
        ({"wm_id": "x" * 1000}, "wm_id", "x" * 100),
        ({"status": "fail"}, "passed", False),
        ({"mailbox": "no address"}, "mailbox", ""),
        ({"mailbox": f"{'x' * 250}@y.internal"}, "mailbox", ""),
        ({"to": "one@y.internal"}, "recipients", ("one@y.internal",)),
        ({"to": {"a": 1}}, "recipients", ()),
        ({"from": "alias@north.internal"}, "sender", "alias@north.internal"),
        ({"text": ["no", "text"]}, "text", ""),
    ],
)
def test_odd_values_are_made_fit(changes: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(read(**changes), field) == expected


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*SEND, "from", "x"]), inner, max_size=9),
    max_leaves=12,
))  # fmt: skip
def test_no_json_breaks_the_reader(value: object) -> None:
    if isinstance(value, dict):
        value = {"type": "receive", "status": "PASS"} | value
    try:
        check = messages.read("", {"param1": json.dumps(value)})
    except ValueError:
        return
    texts = (check.mailbox, check.wm_id, check.message_id, check.sender, check.text)
    assert all(text.isprintable() and len(text) <= 300 for text in (*texts, *check.recipients))


# --- Mailboxes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "pattern", "expected"),
    [
        ("mail1-db2-robot07@north.internal", mailboxes.DEFAULT, Place("mail1", "db2")),
        ("mail1-db2-robot-07@north.internal", mailboxes.DEFAULT, Place("mail1", "db2")),
        ("robot07@north.internal", mailboxes.DEFAULT, Place()),
        ("-db2-robot07@north.internal", mailboxes.DEFAULT, Place()),
        ("a.b@c.internal", "{server}.{database}@{domain}", Place("a", "b")),
        ("bot_db-1.mx-2@x", "Bot_{database}.{server}@{domain}", Place("mx-2", "db-1")),
        ("bot_db1+mx^2@x", "bot_{database}+{server}^2@{domain}", Place("mx", "db1")),
    ],
)
def test_a_mailbox_tells_its_server_and_its_database(
    address: str, pattern: str, expected: Place
) -> None:
    mailboxes.validate(pattern)
    assert mailboxes.place(address, pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{server}-{name}@{domain}", "{database} is missing"),
        ("{host}-{database}@{domain}", "{host} is unknown"),
        ("{server}{database}@{domain}", "Two placeholders touch"),
        ("{server}-{database}-{server}@{domain}", "A placeholder stands twice"),
        ("{server-{database}@{domain}", "A brace stands alone"),
        ("{server}-{database}", "There is no @"),
        ("", "{server} is missing"),
    ],
)
def test_a_pattern_that_could_tell_nothing_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        mailboxes.validate(pattern)


_NAME = st.text(st.characters(categories=["Ll", "Nd"]), min_size=1, max_size=10)


@given(_NAME, _NAME, st.text("ab-.", min_size=1, max_size=30), _NAME)
def test_what_is_put_together_by_the_pattern_is_taken_apart(
    server: str, database: str, name: str, domain: str
) -> None:
    address = f"{server}-{database}-{name}@{domain}"
    assert mailboxes.place(address, mailboxes.DEFAULT) == Place(server, database)
