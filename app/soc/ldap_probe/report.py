"""The report of a period: how often each server answered, and how fast."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter

from django.db.models import Avg, Count, F, Max, Value
from django.db.models.functions import Coalesce

from soc.common.tables import as_csv
from soc.common.times import local
from soc.core.links import absolute
from soc.core.severity import Severity
from soc.ldap_probe.conditions import APPLICATION
from soc.ldap_probe.diagnostics import ANSWERED, Phase
from soc.ldap_probe.models import DirectoryServer, ProbeResult, State
from soc.notify.models import Subscription
from soc.notify.reports import Period, Section
from soc.notify.templates import Notice

MOST_NAMED = 20
COLUMNS = (
    *("site", "server", "state", "since", "probes", "answered_percent", "mean_ms", "worst_ms"),
    *("behind_s", "failures_by_class", "detail"),
)

_TOTAL = sum(
    # A phase that a server does not have, such as the bind of an anonymous probe, is empty.
    (Coalesce(F(f"{phase.value}_ms"), 0.0) for phase in Phase),
    start=Value(0.0),
)


@dataclass(frozen=True)
class ServerLine:
    """One server in a report; the milliseconds are of probes that searched."""

    server: DirectoryServer
    probes: int
    answered: int
    mean: float | None
    worst: float | None
    errors: Counter[str]

    @property
    def percent(self) -> float:
        """How many of the probes it answered, in percent."""
        return 100 * self.answered / self.probes if self.probes else 0.0


def sections(subscription: Subscription, period: Period) -> Iterator[Section]:
    """Yield the report on a period, if the subscription is about directory servers."""
    if subscription.is_about(APPLICATION) and (notice := of_period(period.since, period.until)):
        yield Section(APPLICATION, notice)


def of_period(since: datetime, until: datetime) -> Notice | None:
    """Return the report of a period, or None if no server was probed in it."""
    lines = read(since, until)
    if not any(line.probes for line in lines):
        return None
    bad = [line for line in lines if line.server.state not in (State.OK, State.UNKNOWN)]
    probes = sum(line.probes for line in lines)
    answered = sum(line.answered for line in lines)
    return Notice(
        title=f"Directory servers: {len(lines)} watched, {len(bad)} failing now",
        severity=Severity.WARNING if bad else Severity.INFO,
        summary=(
            f"From {local(since)} to {local(until)} they answered "
            f"{100 * answered / probes:.2f} % of {probes:,} probes."
        ),
        facts=_facts(lines, bad),
        link=absolute("directories"),
        application=APPLICATION,
        status="report",
        csv=_table(lines),
    )


def read(since: datetime, until: datetime) -> list[ServerLine]:
    """Return a line for each watched server, in three queries."""
    results = ProbeResult.objects.filter(at__gte=since, at__lt=until).order_by()
    outcomes: dict[int, Counter[str]] = defaultdict(Counter)
    errors: dict[int, Counter[str]] = defaultdict(Counter)
    for row in results.values("server", "outcome", "error").annotate(n=Count("pk")):
        outcomes[row["server"]][row["outcome"]] += row["n"]
        if row["error"]:
            errors[row["server"]][row["error"]] += row["n"]
    timed = results.filter(outcome="ok").values("server")
    speeds = {row["server"]: row for row in timed.annotate(mean=Avg(_TOTAL), worst=Max(_TOTAL))}
    lines = []
    for server in DirectoryServer.objects.filter(enabled=True).order_by("site", "host", "port"):
        counts, speed = outcomes[server.pk], speeds.get(server.pk)
        lines.append(
            ServerLine(
                server=server,
                probes=sum(counts.values()),
                answered=sum(counts[outcome] for outcome in ANSWERED),
                mean=speed["mean"] if speed else None,
                worst=speed["worst"] if speed else None,
                errors=errors[server.pk],
            )
        )
    return lines


def _facts(lines: Sequence[ServerLine], bad: Sequence[ServerLine]) -> dict[str, str]:
    facts = {
        f"{line.server}: {line.server.get_state_display()}": (
            f"since {local(line.server.state_since)}. {line.server.detail}"
        )
        for line in bad[:MOST_NAMED]
    }
    if len(bad) > MOST_NAMED:
        facts["and"] = f"{len(bad) - MOST_NAMED} more failing"
    missed = sorted((line for line in lines if line.probes), key=lambda line: line.percent)
    if worst := [
        f"{line.server} {line.percent:.1f} %" for line in missed[:5] if line.percent < 100
    ]:
        facts["Answered least"] = ", ".join(worst)
    timed = [(line.mean, str(line.server)) for line in lines if line.mean]
    timed.sort(key=itemgetter(0), reverse=True)
    if timed:
        facts["Slowest on average"] = ", ".join(f"{name} {mean:.0f} ms" for mean, name in timed[:5])
    return facts


def _table(lines: Sequence[ServerLine]) -> str:
    return as_csv(
        COLUMNS,
        (
            (
                line.server.site,
                str(line.server),
                line.server.state,
                local(line.server.state_since),
                line.probes,
                f"{line.percent:.2f}",
                "" if line.mean is None else f"{line.mean:.1f}",
                "" if line.worst is None else f"{line.worst:.1f}",
                line.server.lag,
                ", ".join(f"{name} {count}" for name, count in line.errors.most_common()),
                line.server.detail,
            )
            for line in lines
        ),
    )
