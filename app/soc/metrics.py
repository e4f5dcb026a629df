"""What the stack knows about itself, for Prometheus: a fixed number of queries, no broker.

A series that comes and goes cannot be alerted on, so each one is always there: what there is none
of is 0, what is unknown is NaN. No label is named ``job`` or ``instance``: Prometheus sets those
and renames ours to ``exported_instance`` (its documentation, "scrape_config", honor_labels).

Format: Prometheus documentation, "Exposition formats"; names: its "Metric and label naming".
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.db.models import Count, Max, Min
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.exposition import choose_encoder

from soc.alerts.models import OPEN, Alert, Rule
from soc.api.auth import VIEW, token_required
from soc.core import beats
from soc.core.models import ALIVE_FOR, Heartbeat, QueueSample, TaskFailure
from soc.core.severity import Severity
from soc.events import refused
from soc.ldap_probe.diagnostics import Outcome
from soc.ldap_probe.models import DirectoryServer, ProbeResult
from soc.ldap_probe.models import State as ServerState
from soc.notify import channels, health
from soc.notify.models import OutboundMail, Relay
from soc.runtime.queues import QUEUES
from soc.ssl_certs.models import Endpoint, Group

SAMPLES_COUNT_FOR = timedelta(minutes=5)
"""An older sample of a queue says nothing about now."""

MAILS_COUNT_FOR = timedelta(days=1)
PROBES_COUNT_FOR = timedelta(hours=1)
FAILURES_COUNT_FOR = timedelta(hours=1)

MOST_HOSTS = 50
"""Hosts whose refused messages have a series each: their names come from outside."""


class _Collector:
    """Reads everything at the moment it is asked for."""

    def collect(self) -> Iterator[Gauge]:
        """Yield every metric."""
        now = timezone.now()
        yield _alerts()
        yield from _queues(now)
        yield _dead_events()
        yield _workers(now)
        yield from _beats(now)
        yield from _mails(now)
        yield from _channels(now)
        yield _relay()
        yield from _certificates(now)
        yield from _directories(now)
        yield _failures(now)


def _alerts() -> Gauge:
    gauge = Gauge("soc_alerts_open", "Open alerts.", labels=("application", "severity", "state"))
    kinds = (
        Alert.objects.filter(OPEN).order_by().values_list("rule__application", "severity", "state")
    )
    counts = {tuple(kind): n for *kind, n in kinds.annotate(n=Count("pk"))}
    applications = Rule.objects.order_by("application").values_list("application", flat=True)
    for application in applications.distinct():
        for severity in Severity:
            for state in Alert.State:
                if severity != Severity.OK and state != Alert.State.RESOLVED:
                    count = counts.get((application, severity.value, state.value), 0)
                    gauge.add_metric((application, str(severity.label), state.value), count)
    return gauge


def _queues(now: datetime) -> Iterator[Gauge]:
    fresh = QueueSample.objects.filter(at__gt=now - SAMPLES_COUNT_FOR).order_by("at")
    last = {sample.queue: sample for sample in fresh}
    newest = QueueSample.objects.order_by().values_list("queue").annotate(at=Max("at"))
    ages = {queue.name: math.inf for queue in QUEUES}
    ages |= {queue: (now - at).total_seconds() for queue, at in newest}
    for name, text in (
        ("depth", "Messages that wait or are in a worker's hands, when last sampled."),
        ("consumers", "Workers that consume the queue, when last sampled."),
        ("dead", "Messages in the queue's dead-letter queue, when last sampled."),
    ):
        values = ((queue, getattr(last.get(queue), name, math.nan)) for queue in ages)
        yield _gauge(f"soc_queue_{name}", text, "queue", values)
    text = "Messages that the queue may hold; the broker refuses more."
    yield _gauge("soc_queue_limit", text, "queue", ((q.name, q.max_length) for q in QUEUES))
    text = "Age of the queue's last sample, +Inf without one."
    yield _gauge("soc_queue_sample_age_seconds", text, "queue", ages.items())


def _dead_events() -> Gauge:
    """Return the dead letters of the hosts with the most, and of all others as one."""
    text = "Messages of the event stream that are no events and wait for a person."
    gauge = Gauge("soc_event_dead_letters", text, labels=("host", "reason"))
    found = refused.hosts()[:MOST_HOSTS]
    for one in found:
        # What stands behind the colon differs from message to message.
        gauge.add_metric((one.host, one.reason.partition(":")[0]), one.messages)
    others = refused.messages() - sum(one.messages for one in found)
    gauge.add_metric(("", "other hosts"), max(0, others))
    return gauge


def _workers(now: datetime) -> Gauge:
    alive = Heartbeat.objects.filter(seen_at__gt=now - ALIVE_FOR).order_by()
    counts = dict(alive.values_list("service").annotate(n=Count("pk")))
    services = (*(queue.service for queue in QUEUES), "beat")
    values = ((service, counts.get(service, 0)) for service in services)
    return _gauge("soc_workers_alive", "Processes with a recent sign of life.", "service", values)


def _beats(now: datetime) -> Iterator[Gauge]:
    leader = beats.leader(now)
    text = "Whether a beat is active: 1, or 0 without one."
    yield Gauge("soc_beat_leader", text, value=leader is not None)
    text = "Age of the oldest run that is due, or 0, as the active beat reports; NaN without one."
    yield Gauge("soc_beat_lag_seconds", text, value=leader.lag if leader else math.nan)
    text = "Whether the broker takes no messages, as the active beat reports; NaN without one."
    blocked = leader.blocked_since is not None if leader else math.nan
    yield Gauge("soc_broker_blocked", text, value=blocked)


def _mails(now: datetime) -> Iterator[Gauge]:
    recently = OutboundMail.objects.filter(created_at__gt=now - MAILS_COUNT_FOR).order_by()
    counts = dict(recently.values_list("state").annotate(n=Count("pk")))
    values = ((state.value, counts.get(state.value, 0)) for state in OutboundMail.State)
    yield _gauge("soc_mails", "Mails of the last 24 h.", "state", values)
    # What quiet hours or a digest hold is meant to wait.
    waiting = OutboundMail.objects.filter(next_try_at__isnull=False, gathered=False)
    oldest = waiting.aggregate(oldest=Min("created_at"), n=Count("pk"))
    yield Gauge("soc_mails_waiting", "Mails that ought to be out.", value=oldest["n"])
    age = (now - oldest["oldest"]).total_seconds() if oldest["oldest"] else 0
    yield Gauge("soc_mail_oldest_waiting_seconds", "Age of the oldest of them, or 0.", value=age)


def _channels(now: datetime) -> Iterator[Gauge]:
    text = "Messages of the last 24 h by channel."
    gauge = Gauge("soc_channel_messages", text, labels=("channel", "state"))
    recently = OutboundMail.objects.filter(created_at__gt=now - MAILS_COUNT_FOR).order_by()
    kinds = recently.values_list("channel", "state").annotate(n=Count("pk"))
    counts = {(channel, state): n for channel, state, n in kinds}
    for kind in channels.KINDS:
        for state in OutboundMail.State:
            key = (kind.name, state.value)
            gauge.add_metric(key, counts.get(key, 0))
    yield gauge
    down = Counter(one.channel for one, row in health.destinations() if row)
    values = ((kind.name, down[kind.name]) for kind in channels.KINDS if kind.name != "email")
    text = "Subscriptions whose own destination is down."
    yield _gauge("soc_channels_down", text, "channel", values)


def _certificates(now: datetime) -> Iterator[Gauge]:
    """Yield what is left by expiry policy; endpoints without one follow the default policy."""
    watched = Endpoint.objects.filter(enabled=True).order_by()
    ends = dict(watched.values_list("group").annotate(ends=Min("certificate__not_after")))
    text = "Days until the first certificate of an expiry policy ends, NaN without one."
    gauge = Gauge("soc_certificate_days_left", text, labels=("policy",))
    for policy in Group.objects.order_by("name"):
        keys = (policy.pk, None) if policy.is_default else (policy.pk,)
        found = [end for key in keys if (end := ends.get(key))]
        left = (min(found) - now).total_seconds() / 86_400 if found else math.nan
        gauge.add_metric((policy.name,), left)
    yield gauge
    counts = dict(watched.values_list("status").annotate(n=Count("pk")))
    values = ((status.value, counts.get(status.value, 0)) for status in Endpoint.Status)
    yield _gauge("soc_endpoints", "Watched endpoints.", "status", values)


def _directories(now: datetime) -> Iterator[Gauge]:
    recently = ProbeResult.objects.filter(at__gt=now - PROBES_COUNT_FOR).order_by()
    counts = dict(recently.values_list("outcome").annotate(n=Count("pk")))
    values = ((outcome.value, counts.get(outcome.value, 0)) for outcome in Outcome)
    text = "Probes of directory servers within the last hour."
    yield _gauge("soc_directory_probes", text, "outcome", values)
    watched = DirectoryServer.objects.filter(enabled=True).order_by()
    states = dict(watched.values_list("state").annotate(n=Count("pk")))
    values = ((state.value, states.get(state.value, 0)) for state in ServerState)
    yield _gauge("soc_directory_servers", "Watched directory servers.", "state", values)


def _relay() -> Gauge:
    down = Relay.objects.filter(down_since__isnull=False).exists()
    return Gauge("soc_mail_relay_up", "Whether the mail relay answers.", value=not down)


def _failures(now: datetime) -> Gauge:
    recently = TaskFailure.objects.filter(at__gt=now - FAILURES_COUNT_FOR).order_by()
    counts = dict(recently.values_list("kind").annotate(n=Count("pk")))
    values = ((kind.value, counts.get(kind.value, 0)) for kind in TaskFailure.Kind)
    return _gauge("soc_task_failures", "Tasks that failed within the last hour.", "kind", values)


def _gauge(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Gauge:
    gauge = Gauge(name, text, labels=(label,))
    for key, value in values:
        gauge.add_metric((key,), value)
    return gauge


@never_cache
@token_required(VIEW)
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with every metric, in the format that the asker prefers."""
    registry = CollectorRegistry()
    registry.register(_Collector())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type)
