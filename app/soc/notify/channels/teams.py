"""Microsoft Teams, by a workflow "When a Teams webhook request is received" (learn.microsoft.com,
"Create incoming webhooks with Workflows"; adaptivecards.io, version 1.4)."""

from typing import Any

from soc.notify.channels.http import HttpChannel, HttpTarget, Post, as_json
from soc.notify.models import OutboundMail
from soc.notify.templates import cut

LONGEST = 6_000
"""Characters of a text, of up to three octets each: a message has 28 KB at most."""


class Teams(HttpChannel):
    """The address is the credential."""

    def post(self, mail: OutboundMail, target: HttpTarget) -> Post:
        """Return a message with one card."""
        attachment = {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": None,
            "content": _card(mail),
        }
        return Post(target.url, as_json({"type": "message", "attachments": [attachment]}))


def _card(mail: OutboundMail) -> dict[str, Any]:
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {"type": "TextBlock", "text": mail.subject, "weight": "Bolder", "wrap": True},
            {"type": "TextBlock", "text": cut(mail.text, LONGEST), "wrap": True},
        ],
    }
    buttons = {"Open": mail.link, "Acknowledge": mail.acknowledge}
    if any(buttons.values()):
        card["actions"] = [
            {"type": "Action.OpenUrl", "title": title, "url": url}
            for title, url in buttons.items()
            if url
        ]
    return card
