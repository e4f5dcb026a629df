"""Alerts from the command line: list, acknowledge, resolve, and try out a rule."""

import json
import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet
from django.utils import timezone

from soc.alerts import actions, simulation
from soc.alerts.models import Alert, Rule
from soc.alerts.selection import ANY_STATE, select
from soc.alerts.spans import in_words
from soc.core.severity import Severity

NOBODY = "command line"
LONGEST_INTERVAL = 7 * 24 * 3600
MOST_MINUTES = actions.LONGEST_ACKNOWLEDGEMENT // timedelta(minutes=1)

_FILTERS = ("application", "rule", "site", "severity", "state", "subject")


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
            raise ArgumentTypeError(f"{text!r} is no number from {least:,} to {most:,}")
        return int(text)

    return read


class Command(BaseCommand):
    """What an operator does without a browser."""

    help = "Lists, acknowledges and resolves alerts, and tries out rules."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the four actions."""
        does = parser.add_subparsers(dest="action", required=True)
        _declare_list(does.add_parser("list", help="show open alerts, the worst first"))
        for name, text in (("ack", "acknowledge alerts"), ("resolve", "end open alerts by hand")):
            action = does.add_parser(name, help=text)
            action.add_argument("ids", nargs="+", type=_number(1, 2**63 - 1), metavar="ID")
            action.add_argument("--note", default="", help="why; it stands in the timeline")
            action.add_argument("--by", default=NOBODY, help="who; it stands in the timeline")
            if name == "ack":
                action.add_argument(
                    "--minutes", type=_number(1, MOST_MINUTES), help="when it expires; else never"
                )
        simulate = does.add_parser("simulate", help="what a rule makes of reports; writes nothing")
        simulate.add_argument("rule", metavar="APPLICATION/RULE")
        simulate.add_argument(
            "reports", nargs="+", metavar="REPORT", help="ok, info, warning, critical; ok*3: three"
        )
        simulate.add_argument(
            "--every", type=_number(1, LONGEST_INTERVAL), default=60, metavar="SECONDS",
            help="the time between two reports",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one of the actions.

        Raises:
            CommandError: what is asked for does not exist or cannot be done.
        """
        match options["action"]:
            case "list":
                self._list(options)
            case "ack":
                minutes = options["minutes"]
                lasting = timedelta(minutes=minutes) if minutes else None
                act = partial(actions.acknowledge, lasting=lasting)
                self._operate(options, act, "acknowledged")
            case "resolve":
                self._operate(options, actions.resolve, "resolved")
            case "simulate":
                self._simulate(options)

    def _list(self, options: dict[str, Any]) -> None:
        alerts = select(**{name: options[name] for name in _FILTERS})
        shown = alerts.order_by("-severity", "opened_at", "pk")[: options["limit"]]
        if options["json"]:
            rows = [_values(alert) for alert in shown]
            text = json.dumps(rows, cls=DjangoJSONEncoder, indent=1, ensure_ascii=False)
            self.stdout.write(text)
            return
        self._table(("id", "severity", "state", "age", "rule", "subject", "site"), map(_row, shown))
        count = alerts.count()
        if count > options["limit"]:
            self.stderr.write(f"These are {options['limit']} of {count:,}; --limit shows more.")

    def _operate(
        self, options: dict[str, Any], act: Callable[[QuerySet[Alert], str, str], int], done: str
    ) -> None:
        wanted = Alert.objects.in_bulk(options["ids"])
        if missing := [str(key) for key in options["ids"] if key not in wanted]:
            raise CommandError(f"Nothing was done: there is no alert {', '.join(missing)}.")
        refused = []
        for key in dict.fromkeys(options["ids"]):
            if act(Alert.objects.filter(pk=key), options["by"], options["note"]):
                self.stdout.write(f"{key} {done}")
            else:
                refused.append(f"{key} ({Alert.objects.get(pk=key).state})")
        if refused:
            raise CommandError(f"In their state these cannot be {done}: {', '.join(refused)}.")

    def _simulate(self, options: dict[str, Any]) -> None:
        application, _, name = options["rule"].partition("/")
        rule = Rule.objects.filter(application=application, name=name).first()
        if rule is None:
            known = ", ".join(map(str, Rule.objects.all())) or "none"
            raise CommandError(f"There is no rule {options['rule']!r}; there are: {known}.")
        words = [word for argument in options["reports"] for word in argument.split()]
        try:
            reports = simulation.read_reports(words)
        except ValueError as error:
            raise CommandError(str(error)) from None
        steps = list(simulation.run(rule, reports, timedelta(seconds=options["every"])))
        self._table(
            ("report", "after", "reported", "state", "severity", "event", "mail"),
            (_step(number, step) for number, step in enumerate(steps, 1)),
        )
        self.stdout.write(f"\n{simulation.strip(steps)}\n({simulation.LEGEND})")

    def _table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        lines = [head, *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())


def _declare_list(parser: ArgumentParser) -> None:
    states = [*Alert.State.values, ANY_STATE]
    severities = [severity.label for severity in Severity if severity]
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--application", default="")
    parser.add_argument("--rule", default="", help="the rule's name, without its application")
    parser.add_argument("--site", default="")
    parser.add_argument("--severity", choices=severities, default="")
    parser.add_argument("--state", choices=states, default="", help="without: every open alert")
    parser.add_argument("--subject", default="", help="a part of the subject's name")
    parser.add_argument("--limit", type=_number(1, 100_000), default=100)


def _row(alert: Alert) -> tuple[str, ...]:
    age = in_words((alert.resolved_at or timezone.now()) - alert.opened_at)
    severity = str(Severity(alert.severity).label)
    return (
        str(alert.pk),
        severity,
        alert.state,
        age,
        str(alert.rule),
        str(alert.subject),
        alert.site,
    )


def _values(alert: Alert) -> dict[str, object]:
    names = (
        *("site", "state", "summary", "facts", "link", "opened_at", "last_seen_at", "count"),
        *("acknowledged_at", "acknowledged_by", "note", "suppressed_by", "resolved_at"),
    )
    return {
        "id": alert.pk,
        "application": alert.rule.application,
        "rule": alert.rule.name,
        "subject": alert.subject.name,
        "severity": Severity(alert.severity).label,
        **{name: getattr(alert, name) for name in names},
    }


def _step(number: int, step: simulation.Step) -> tuple[str, ...]:
    severity = str(step.severity.label) if step.state else "-"
    mail = "yes" if step.mails else "-"
    return (
        *(str(number), str(step.after), str(step.reported.label), step.state or "-", severity),
        *(step.event or "-", mail),
    )
