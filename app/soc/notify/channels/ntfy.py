"""ntfy, published as JSON (docs.ntfy.sh, "Publish as JSON")."""

import re
from urllib.parse import urlsplit, urlunsplit

from soc.core.severity import Severity
from soc.notify.channels.http import HttpChannel, HttpTarget, Post, as_json
from soc.notify.models import OutboundMail
from soc.notify.templates import cut

LONGEST = 1_000
"""Characters of a text: beyond 4,096 octets ntfy makes an attachment of it."""

_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
"""What the server takes for one: ``topicRegex`` of its server.go."""

_PRIORITIES = {Severity.CRITICAL: 5, Severity.WARNING: 4}


class Ntfy(HttpChannel):
    """The address is the topic's, such as https://ntfy.sh/soc; a secret is an access token."""

    def validate(self, url: str, secret: str) -> dict[str, str]:
        """Check the address as every other, and that it ends in a topic's name."""
        wrong = super().validate(url, secret)
        topic = urlsplit(url).path.rstrip("/").rpartition("/")[2]
        if not wrong and not _TOPIC.fullmatch(topic):
            wrong["url"] = (
                "Invalid address: it ends in the topic, as in https://ntfy.sh/soc; a topic is 1 to "
                "64 letters, digits, hyphens and underscores."
            )
        return wrong

    def post(self, mail: OutboundMail, target: HttpTarget) -> Post:
        """Return the request, which goes to the server's root with the topic inside."""
        parts = urlsplit(target.url)
        root, _, topic = parts.path.strip("/").rpartition("/")
        news = Severity.OK if mail.status == "resolved" else Severity(mail.severity)
        message: dict[str, object] = {
            "topic": topic,
            "title": mail.subject,
            "message": cut(mail.text, LONGEST),
            "priority": _PRIORITIES.get(news, 3),
        }
        if mail.link:
            message["click"] = mail.link
        if mail.acknowledge:
            action = {"action": "view", "label": "Acknowledge", "url": mail.acknowledge}
            message["actions"] = [action]
        headers = {"Authorization": f"Bearer {target.secret}"} if target.secret else {}
        url = urlunsplit((parts.scheme, parts.netloc, f"/{root}", "", ""))
        return Post(url, as_json(message), headers)
