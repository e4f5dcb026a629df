"""The link that acknowledges, in what each channel posts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from soc.notify import channels
from soc.notify.channels.http import HttpChannel, HttpTarget
from soc.notify.models import OutboundMail

TARGET = HttpTarget("https://chat.example/topic", "secret")


def posted(channel: str, **values: Any) -> Any:
    kind = channels.of(channel)
    assert isinstance(kind, HttpChannel)
    mail = OutboundMail(subject="CRITICAL: bot-1", text="It fails.", recipients=[], **values)
    return json.loads(kind.post(mail, TARGET).body)


PLACES = {
    "webhook": lambda body, link: body["acknowledge"] == link,
    "slack": lambda body, link: f"<{link}|Acknowledge>" in body["text"],
    "teams": lambda body, link: (
        body["attachments"][0]["content"]["actions"]
        == [{"type": "Action.OpenUrl", "title": "Acknowledge", "url": link}]
    ),
    "pagerduty": lambda body, link: body["links"] == [{"href": link, "text": "Acknowledge here"}],
    "alertmanager": lambda body, link: (
        {alert["annotations"]["acknowledge"] for alert in body} == {link}
    ),
    "ntfy": lambda body, link: (
        body["actions"] == [{"action": "view", "label": "Acknowledge", "url": link}]
    ),
}


@pytest.mark.parametrize("channel", [kind.name for kind in channels.KINDS if kind.name != "email"])
def test_each_channel_has_the_link_in_its_place(channel: str) -> None:
    mail = OutboundMail(ticket="t" * 43)
    body = posted(channel, id=mail.pk, ticket=mail.ticket)
    assert PLACES[channel](body, mail.acknowledge)


@pytest.mark.parametrize("channel", list(PLACES))
def test_a_message_without_a_link_has_no_button(channel: str) -> None:
    body = json.dumps(posted(channel))
    assert "/acknowledge/" not in body
    assert "|Acknowledge" not in body
    assert '"Acknowledge' not in body
