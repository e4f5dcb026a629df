"""Webhooks of other alerting systems, as conditions: Alertmanager's and Grafana's.

Both post groups of alerts, again and again while they fire (prometheus.io/docs/alerting/latest/
configuration, "webhook_config", version 4; grafana.com/docs, "Configure the webhook notifier",
whose form is the same with more fields). Each alert of theirs is one target: all of its labels,
by which they know one alert from another.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from ninja import Field, Schema
from pydantic import BeforeValidator

from soc.alerts.conditions import LONGEST_SUBJECT, Condition, one_line
from soc.api.schemas import LONGEST_LINK, checked_link
from soc.core.severity import Severity

RULE = "alert"
"""The rule's name, under the application of the sender."""

MOST_ALERTS_AT_ONCE = 10_000
LONGEST_SITE = 64

_SEVERITIES = {
    **dict.fromkeys(("critical", "error", "page", "emergency", "fatal"), Severity.CRITICAL),
    **dict.fromkeys(("info", "information", "notice", "none", "debug"), Severity.INFO),
}
_SAID_ELSEWHERE = ("summary", "description")
_ADDRESSES = {
    "Source": "generatorURL",
    "Dashboard": "dashboardURL",
    "Panel": "panelURL",
    "Silence it there": "silenceURL",
}


class Sender(StrEnum):
    """Who posts, which is the rule's application."""

    ALERTMANAGER = "alertmanager"
    GRAFANA = "grafana"


class ForeignStatus(StrEnum):
    """What a sender says of an alert."""

    FIRING = "firing"
    RESOLVED = "resolved"


def _texts(values: object) -> object:
    """Return a mapping's values as text: Grafana may send null for none at all."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        return values
    return {str(name): "" if value is None else str(value) for name, value in values.items()}


Texts = Annotated[dict[str, str], BeforeValidator(_texts)]
Text = Annotated[
    str,
    BeforeValidator(
        lambda value: "" if value is None else value, json_schema_input_type=str | None
    ),
]


class ForeignAlert(Schema):
    """One alert of a group; fields that are not named here do no harm."""

    status: ForeignStatus
    labels: Texts = Field(default_factory=dict, examples=[{"alertname": "DiskFull"}])
    annotations: Texts = Field(default_factory=dict, examples=[{"summary": "90 % are used."}])
    startsAt: Text = ""  # noqa: N815 (their names)
    generatorURL: Text = ""  # noqa: N815
    dashboardURL: Text = Field("", description="Grafana's.")  # noqa: N815
    panelURL: Text = Field("", description="Grafana's.")  # noqa: N815
    silenceURL: Text = Field("", description="Grafana's.")  # noqa: N815
    valueString: Text = Field("", description="Grafana's.")  # noqa: N815

    @property
    def target(self) -> str:
        """The name that identifies it: the alert's name and all other labels."""
        labels = dict(self.labels)
        name = one_line(labels.pop("alertname", ""), LONGEST_SUBJECT) or "alert"
        others = ", ".join(f"{label}={labels[label]}" for label in sorted(labels))
        return f"{name}: {others}" if others else name

    @property
    def severity(self) -> Severity:
        """What its label ``severity`` means here; a word that is not known is a warning."""
        if self.status == ForeignStatus.RESOLVED:
            return Severity.OK
        return _SEVERITIES.get(self.labels.get("severity", "").lower(), Severity.WARNING)

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield what is known of it, the labels first."""
        yield from sorted(self.labels.items())
        for name, text in sorted(self.annotations.items()):
            if name not in _SAID_ELSEWHERE:
                yield name, text
        if self.valueString:
            yield "Values", self.valueString
        if self.startsAt:
            yield "Since, there", self.startsAt
        for name, field in _ADDRESSES.items():
            if address := getattr(self, field):
                yield name, address


class ForeignAlerts(Schema):
    """A group of alerts as they are now."""

    alerts: list[ForeignAlert] = Field(max_length=MOST_ALERTS_AT_ONCE)
    externalURL: Text = ""  # noqa: N815


def conditions(sender: Sender, group: ForeignAlerts, now: datetime) -> list[Condition]:
    """Return a group's alerts as conditions.

    They are so as of now: a sender repeats what still fires, and says no time at which it looked.
    """
    return [
        Condition(
            application=sender.value,
            rule=RULE,
            subject=alert.target,
            severity=alert.severity,
            observed_at=now,
            summary=_summary(alert),
            facts=dict(alert.facts()),
            link=_link(alert.dashboardURL or alert.generatorURL or group.externalURL),
            site=alert.labels.get("site", "")[:LONGEST_SITE],
        )
        for alert in group.alerts
    ]


def _summary(alert: ForeignAlert) -> str:
    said = [alert.annotations.get(name, "").strip() for name in _SAID_ELSEWHERE]
    return "\n".join(filter(None, said)) or alert.labels.get("alertname", "")


def _link(address: str) -> str:
    """Return an address, or nothing if it is none that a page may link to."""
    try:
        return checked_link(address) if len(address) <= LONGEST_LINK else ""
    except ValueError:
        return ""
