"""What the logons report to the alerts, all by the time that the stream has reached."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django.urls import reverse

from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.alerts.models import OPEN, Alert, Rule
from soc.alerts.spans import in_words
from soc.core.severity import Severity
from soc.events import flow, silence
from soc.events.silence import Limits, Robot
from soc.logons import rules
from soc.logons.models import LogonEvent, LogonSettings
from soc.logons.reader import KIND
from soc.logons.rules import Logon

APPLICATION = "logons"
FAILURES = "failures"
SLOW = "slow"
CLUSTER = "cluster"
CLUSTERS = "failed logons"
"""The one subject of the rule ``cluster``."""

HOUR = timedelta(hours=1)
MOST_NAMED = 20
"""Robots that a cluster's alert names."""

logger = logging.getLogger(__name__)


def report(now: datetime) -> int:
    """Report how the logons are; return how many mails that makes.

    While the stream is silent nothing is known, and so nothing is reported.
    """
    settings = LogonSettings.current()
    flow.forget_the_future(now)
    stream = flow.read(now, silence.reach(settings.silent_after))
    robots = silence.watched(KIND, stream)
    _retire(robots)
    if stream.at is None or stream.is_silent:
        return 0
    limits = Limits(settings.silent_after)
    logons = _lately(stream.at, settings)
    clustered = _clustered(logons, settings)
    # Sites first: their robots are quiet while a site's silence explains theirs.
    mails = _report(*silence.of_sites(APPLICATION, robots, stream, limits))
    return mails + _report(
        *silence.of_robots(APPLICATION, robots, stream, limits),
        *_cluster(clustered, robots, stream.at, settings),
        *_of_robots(logons, clustered, robots, stream.at, settings),
    )


def _clustered(logons: Sequence[Logon], settings: LogonSettings) -> Sequence[Logon]:
    """Return the failures that lie in a cluster; where clusters are not reported there are none."""
    if Rule.objects.filter(application=APPLICATION, name=CLUSTER, enabled=False).exists():
        return ()
    return rules.clustered(
        logons, settings.event_ids_of_clusters, settings.cluster, settings.cluster_within
    )


def _report(*conditions: Condition) -> int:
    return sum(result.mails for result in engine.report(conditions))


def _retire(robots: Sequence[Robot]) -> None:
    hosts = [robot.host for robot in robots]
    for rule in (silence.BOT, FAILURES, SLOW):
        silence.retire(APPLICATION, rule, hosts)
    silence.retire(APPLICATION, silence.SITE, {robot.site for robot in robots})


def _lately(until: datetime, settings: LogonSettings) -> list[Logon]:
    """Return the logons that any rule looks at; stale ones say nothing about the present."""
    # Whether an old failure lay in a cluster depends on failures that are older still.
    reach = max(settings.failures_within, settings.slow_within) + settings.cluster_within
    events = LogonEvent.objects.filter(
        at__gt=until - reach, at__lte=until, stale=False, bot__enabled=True
    )
    columns = ("bot_id", "at", "state", "event_id", "response_ms", "broker", "reason")
    return [Logon(*row) for row in events.order_by("at").values_list(*columns)]


# --- One robot ----------------------------------------------------------------------------------


def _of_robots(
    logons: Sequence[Logon],
    clustered: Sequence[Logon],
    robots: Sequence[Robot],
    until: datetime,
    settings: LogonSettings,
) -> Iterator[Condition]:
    """Yield how the logons of each robot are; one that said nothing recently stays as it was."""
    told = set(clustered)
    by_bot: dict[int, list[Logon]] = {}
    for logon in logons:
        by_bot.setdefault(logon.bot, []).append(logon)
    for robot in robots:
        own = by_bot.get(robot.key, [])
        if own and own[-1].at > until - settings.failures_within:
            # What lies in a cluster is reported once, by the cluster.
            single = [logon for logon in own if logon not in told]
            yield _failures(robot, single, until, settings)
        response = rules.mean_response(own, until, settings.slow_within)
        if response is not None:
            yield _response(robot, response, until, settings)


def _failures(
    robot: Robot, logons: Sequence[Logon], until: datetime, settings: LogonSettings
) -> Condition:
    failed = rules.failures(logons, until, settings.failures_within)
    within = in_words(settings.failures_within)
    return Condition(
        application=APPLICATION,
        rule=FAILURES,
        subject=robot.host,
        severity=Severity.WARNING if len(failed) >= settings.failures else Severity.OK,
        observed_at=until,
        summary=f"{len(failed)} logons failed within {within}.",
        facts=_facts(failed),
        link=silence.page_of(robot.key),
        site=robot.site,
    )


def _response(
    robot: Robot, response: timedelta, until: datetime, settings: LogonSettings
) -> Condition:
    seconds = response.total_seconds()
    return Condition(
        application=APPLICATION,
        rule=SLOW,
        subject=robot.host,
        severity=Severity.WARNING if response > settings.slow_above else Severity.OK,
        observed_at=until,
        summary=f"A logon takes {seconds:.1f} s on average over {in_words(settings.slow_within)}.",
        link=silence.page_of(robot.key),
        site=robot.site,
    )


def _facts(failed: Sequence[Logon]) -> dict[str, str]:
    """Return what failures have in common, the most frequent first."""
    counted = {
        "Event ids": Counter(str(logon.event_id) for logon in failed),
        "Brokers": Counter(logon.broker for logon in failed if logon.broker),
        "Reasons": Counter(logon.reason for logon in failed if logon.reason),
    }
    return {
        name: ", ".join(f"{value} ({count})" for value, count in counts.most_common(5))
        for name, counts in counted.items()
        if counts
    }


# --- Clusters -----------------------------------------------------------------------------------


def _cluster(
    clustered: Sequence[Logon],
    robots: Sequence[Robot],
    until: datetime,
    settings: LogonSettings,
) -> list[Condition]:
    """Return whether logons fail in numbers; nothing if the brake keeps another alert down."""
    failed = rules.failures(clustered, until, settings.cluster_within)
    if failed and _is_braked(until, settings.clusters_an_hour):
        logger.warning("A cluster of %d failed logons is not reported: the brake", len(failed))
        return []
    by_key = {robot.key: robot for robot in robots}
    named = [by_key[logon.bot] for logon in failed if logon.bot in by_key]
    counts = Counter(robot.host for robot in named)
    sites = {robot.site for robot in named}
    hosts = ", ".join(f"{host} ({count})" for host, count in counts.most_common(MOST_NAMED))
    return [
        Condition(
            application=APPLICATION,
            rule=CLUSTER,
            subject=CLUSTERS,
            severity=Severity.CRITICAL if failed else Severity.OK,
            observed_at=until,
            summary=f"{len(failed)} logons of {len(counts)} robots failed close together.",
            facts=_facts(failed) | {"Robots": hosts},
            link=reverse("robots"),
            site=sites.pop() if len(sites) == 1 else "",
        )
    ]


def _is_braked(until: datetime, most: int) -> bool:
    """Return whether as many clusters were reported within an hour that another one is not."""
    alerts = Alert.objects.filter(rule__application=APPLICATION, rule__name=CLUSTER)
    if alerts.filter(OPEN).exists():
        return False
    return alerts.filter(opened_at__gt=until - HOUR).count() >= most
