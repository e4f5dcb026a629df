"""Slack's incoming webhooks (docs.slack.dev, "Sending messages using incoming webhooks")."""

from soc.notify.channels.http import HttpChannel, HttpTarget, Post, as_json
from soc.notify.models import OutboundMail
from soc.notify.templates import cut

LONGEST = 3_000
"""Characters of a text: Slack cuts at 40,000, which nobody reads in a chat."""

_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class Slack(HttpChannel):
    """The address is the credential: Slack signs nothing and asks for nothing else."""

    def post(self, mail: OutboundMail, target: HttpTarget) -> Post:
        """Return a message in which nothing of the alert counts as a mention or a link."""
        title, text = (part.translate(_MARKUP) for part in (mail.subject, cut(mail.text, LONGEST)))
        link = f"\n<{mail.link}>" if mail.link else ""
        if mail.acknowledge:
            link += f"\n<{mail.acknowledge}|Acknowledge>"
        return Post(target.url, as_json({"text": f"{title}\n{text}{link}"}))
