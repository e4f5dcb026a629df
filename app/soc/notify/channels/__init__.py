"""The channels by which subscriptions are notified; each registers in one line of ``KINDS``."""

from dataclasses import dataclass
from functools import cache

from django.utils.module_loading import import_string

from soc.notify.channels.base import Channel

EMAIL = "email"


@dataclass(frozen=True)
class Kind:
    """A channel as forms and rows name it, and the class that does its work."""

    name: str
    label: str
    path: str


KINDS = (
    Kind(EMAIL, "E-mail", "soc.notify.channels.email.Email"),
    Kind("webhook", "Webhook (signed JSON)", "soc.notify.channels.webhook.Webhook"),
    Kind("slack", "Slack", "soc.notify.channels.slack.Slack"),
    Kind("teams", "Microsoft Teams (Workflows)", "soc.notify.channels.teams.Teams"),
    Kind("pagerduty", "PagerDuty", "soc.notify.channels.pagerduty.PagerDuty"),
    Kind("alertmanager", "Alertmanager", "soc.notify.channels.alertmanager.Alertmanager"),
    Kind("ntfy", "ntfy", "soc.notify.channels.ntfy.Ntfy"),
)


def choices() -> list[tuple[str, str]]:
    """Return the channels as a form offers them."""
    return [(kind.name, kind.label) for kind in KINDS]


@cache
def of(name: str) -> Channel:
    """Return a channel by its name. Its module is loaded then: it may use models.

    Raises:
        LookupError: there is no such channel.
    """
    for kind in KINDS:
        if kind.name == name:
            channel: Channel = import_string(kind.path)()
            return channel
    raise LookupError(f"There is no channel {name!r}: use one of {[k.name for k in KINDS]}")
