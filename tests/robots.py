"""Robots whose events go through the real ingest, by a clock that tests move."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

from django.utils import timezone

from mailing import Clock
from soc.alerts.models import OPEN, Alert
from soc.events import shapes
from soc.events.ingest import Ingest
from soc.events.models import Bot, Site
from soc.logons import conditions as logons
from soc.mail_collector import collect
from soc.mail_collector import conditions as mail

STEP = timedelta(minutes=4)
"""Less than what the stream may be silent for."""

PHASES = {
    "Storefront Connection Time": 0.35,
    "Receiver Startup": 0.1,
    "Connection Time": 0.1,
    "Logon Time": 0.45,
}
"""The share of each phase in a response."""


class Stream:
    """The event stream, from Winlogbeat's documents to the alerts."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ingest = Ingest("tests")
        self.records = count(1)

    def place(self, site: str, *hosts: str) -> Site:
        """Register robots at a site."""
        place, _ = Site.objects.get_or_create(name=site)
        for host in hosts:
            Bot.objects.update_or_create(host=host, defaults={"site": place})
        return place

    def ship(self, host: str, provider: str, event_id: int, text: str, ago: timedelta) -> None:
        at = timezone.now() - ago
        document = {
            "@timestamp": at.isoformat().replace("+00:00", "Z"),
            "host": {"name": host},
            "source_name": provider,
            "log_name": "Application",
            "record_number": str(next(self.records)),
            "event_id": event_id,
            "level": "Information",
            "message": text,
            "event_data": {"param1": text},
        }
        taken = self.ingest.take([shapes.read(json.dumps(document))])
        assert (taken.counts.stored, taken.counts.problems) == (1, 0), taken

    def mail(
        self, host: str, kind: str = "connection", status: str = "PASS", *,
        ago: timedelta = timedelta(), **more: Any,
    ) -> None:  # fmt: skip
        """Ship a check of a mail robot."""
        check = {"type": kind, "status": status, "mailbox": mailbox(host), **more}
        self.ship(host, "SOC Mail Robot", 1, json.dumps(check), ago)

    def deliver(self, sender: str, recipient: str, number: str, **more: Any) -> None:
        """Ship both ends of a mail."""
        ends = {"wm_id": number, "message_id": f"<{number}@x>", "from": mailbox(sender)}
        self.mail(sender, "send", to=[mailbox(recipient)], **ends, **more)
        self.mail(recipient, "receive", **ends, **more)

    def logon(
        self, host: str, seconds: float = 5, event_id: int = 1000, ago: timedelta = timedelta()
    ) -> None:
        """Ship a logon; one with another event id than 1000 failed."""
        if event_id == 1000:
            lines = [f"{name}: 00:00:{seconds * part:010.7f}" for name, part in PHASES.items()]
            text = "\n".join(["Successful logon: to resource: Desktop", *lines])
        else:
            text = "Failed logon to resource: Desktop\nFailure reason: It took too long."
        self.ship(host, "ControlUp Logon Monitor", event_id, text, ago)

    def run(self, say: Callable[[], None], **length: float) -> None:
        """Let time pass: robots say something every four minutes, then the watch looks."""
        for _ in range(round(timedelta(**length) / STEP)):
            self.clock.now += STEP
            say()
            self.watch()

    def watch(self) -> None:
        """Do what the schedules do every minute; what robots say next is of a later second."""
        now = timezone.now()
        collect.take_new()
        mail.report(now)
        logons.report(now)
        self.clock.move(seconds=1)


def mailbox(host: str) -> str:
    """Return the address of a robot's mailbox; hosts of one name's first letter share a domain."""
    return f"mail1-db1-{host}@{host[0]}.internal"


def open_alerts() -> list[str]:
    """Return the open alerts that make themselves heard."""
    heard = Alert.objects.filter(OPEN, state=Alert.State.FIRING)
    return [str(alert) for alert in heard.select_related("rule", "subject").order_by("pk")]


def fired(rule: str) -> list[str]:
    """Return the subjects of all alerts of a rule, of those that were suppressed none."""
    application, _, name = rule.partition("/")
    alerts = Alert.objects.filter(rule__application=application, rule__name=name)
    loud = alerts.filter(events__kind="fired").order_by("pk").distinct()
    return [alert.subject.name for alert in loud.select_related("subject")]
