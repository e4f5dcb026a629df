"""What the board shows, read in a fixed number of queries however many rows there are.

Each function takes the moment of the refresh and answers one part of the board; templates only
lay the answers out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

from django.conf import settings
from django.db.models import Case, Count, F, Q, QuerySet, Value, When
from django.urls import reverse
from django_celery_beat.models import PeriodicTask

from soc.alerts import lists, strips
from soc.alerts.models import OPEN, Alert
from soc.beat.models import Instance, LagSample
from soc.core.models import ALIVE_FOR, Heartbeat, QueueSample, TaskFailure
from soc.core.severity import Severity
from soc.events import flow, silence
from soc.events.models import Bot
from soc.notify import health
from soc.notify.models import OutboundMail
from soc.runtime import queues
from soc.schedules.schedules import REQUEST_PREFIX, next_run
from soc.ssl_certs.models import Endpoint
from soc.ssl_certs.strips import TONES

HISTORY = timedelta(hours=1)
SAMPLE_IS_OLD = timedelta(seconds=60)
SILENT_SHOWN_FOR = timedelta(minutes=10)
"""Silent workers older than this are containers that were replaced, not workers to worry about."""

MOST_ALERTS = 10
MOST_ENDPOINTS = 50
MOST_SCHEDULES = 200
NEXT_RUNS = 8
MOST_FAILURES = 10
SENT_SHOWN = 5
MAIL_SHOWN_FOR = timedelta(days=7)
"""Keeps the few mails that failed from being searched for among all that were sent."""

LONGEST_BAR = 90
"""Days left that fill the bar of a certificate."""

UNSENT = (OutboundMail.State.FAILED, OutboundMail.State.EXPIRED)
MAIL_COUNTED_FOR = timedelta(days=1)
"""How long a mail that did not get out is a trouble of the headline."""

_WIDTH, _HEIGHT = 120, 32
_LEAST_DEPTH = 10
"""The depth that fills a sparkline at least: one waiting message must not look like a storm."""
_LEAST_LAG = 5
"""The same in seconds of beat's lag."""

Status = Endpoint.Status


@dataclass(frozen=True)
class Worker:
    """One process and its last sign of life."""

    instance: str
    seen_at: datetime
    alive: bool


@dataclass(frozen=True)
class QueueState:
    """One queue with its worker; the numbers are None without a fresh sample."""

    queue: queues.Queue
    sampled_at: datetime | None
    depth: int | None
    consumers: int | None
    dead: int | None
    highest: int
    line: str
    workers: Sequence[Worker]

    @property
    def alive(self) -> int:
        """How many workers of the queue are alive."""
        return sum(worker.alive for worker in self.workers)

    @property
    def backs_up(self) -> bool:
        """Whether half of the messages that the queue may hold are waiting."""
        return self.depth is not None and self.depth * 2 >= self.queue.max_length

    @property
    def tone(self) -> str:
        """How the queue looks."""
        if not self.alive or self.consumers == 0 or self.backs_up:
            return "bad"
        return "warn" if self.depth is None or self.dead else "ok"


@dataclass(frozen=True)
class SeverityCount:
    """How many open alerts have a severity, and how many of them wait for a person."""

    label: str
    tone: str
    count: int
    waiting: int


@dataclass(frozen=True)
class Alerts:
    """The open alerts: their numbers, the worst of them, and the changes of the last 24 hours."""

    counts: Sequence[SeverityCount]
    rows: Sequence[lists.Row]
    hushed: int
    changes: strips.Changes

    @property
    def total(self) -> int:
        """How many are open and make themselves heard."""
        return sum(count.count for count in self.counts)

    def waiting(self, severity: Severity) -> int:
        """Return how many of a severity wait for a person."""
        return sum(count.waiting for count in self.counts if count.label == severity.label)


@dataclass(frozen=True)
class Run:
    """The next run of one schedule."""

    name: str
    at: datetime
    link: str


@dataclass(frozen=True)
class Beats:
    """What the running beats tell about themselves, the leader first, and their lag in an hour."""

    instances: Sequence[Instance]
    highest: float
    line: str

    @property
    def leader(self) -> Instance | None:
        """The active beat, if there is one."""
        return next((instance for instance in self.instances if instance.leader), None)


@dataclass(frozen=True)
class Beat:
    """The scheduler's last tick and what it will start next."""

    workers: Sequence[Worker]
    beats: Beats
    runs: Sequence[Run]
    schedules: int
    incomplete: bool

    @property
    def alive(self) -> bool:
        """Whether any beat ticks."""
        return any(worker.alive for worker in self.workers)


@dataclass(frozen=True)
class StatusCount:
    """How many enabled endpoints have a status."""

    status: str
    label: str
    tone: str
    count: int


@dataclass(frozen=True)
class EndpointRow:
    """One endpoint of the list."""

    key: int
    name: str
    link: str
    label: str
    tone: str
    days: int | None
    bar: int
    expires: datetime | None
    issuer: str
    reason: str
    scanned_at: datetime | None


@dataclass(frozen=True)
class Certificates:
    """The enabled endpoints, the worst first."""

    counts: Sequence[StatusCount]
    rows: Sequence[EndpointRow]
    rest: int

    @property
    def total(self) -> int:
        """How many endpoints are watched."""
        return sum(count.count for count in self.counts)


@dataclass(frozen=True)
class Mail:
    """The relay, how many mails wait or did not get out, some of these, and the last that did."""

    relay: health.RelayState
    counts: health.Counts
    unsent: Sequence[OutboundMail]
    sent: Sequence[OutboundMail]


@dataclass(frozen=True)
class Robots:
    """How many robots are watched, how many of them are silent, and whether the stream is."""

    total: int
    silent: int
    stream_is_silent: bool


@dataclass(frozen=True)
class Board:
    """Everything the board shows."""

    now: datetime
    alerts: Alerts
    queues: Sequence[QueueState]
    sampled_at: datetime | None
    beat: Beat
    certificates: Certificates
    robots: Robots
    failures: Sequence[TaskFailure]
    mail: Mail


def read(now: datetime) -> Board:
    """Read the whole board."""
    workers = _workers(now)
    states = read_queues(now, workers)
    return Board(
        now=now,
        alerts=read_alerts(now),
        queues=states,
        sampled_at=max((state.sampled_at for state in states if state.sampled_at), default=None),
        beat=read_beat(now, workers.get("beat", [])),
        certificates=read_certificates(now),
        robots=read_robots(),
        failures=list(TaskFailure.objects.defer("traceback", "arguments")[:MOST_FAILURES]),
        mail=read_mail(now),
    )


# --- Alerts -------------------------------------------------------------------------------------


def read_alerts(now: datetime) -> Alerts:
    """Return the numbers of open alerts, the worst, and the changes of the last 24 hours."""
    cells = lists.Filter().cells(now)
    # Pending and suppressed ones make no noise here either.
    heard = [cell for cell in cells if cell.state not in strips.QUIET]
    acknowledged = Case(When(lists.ATTENTION, then=Value(0)), default=Value(1))
    alerts = Alert.objects.filter(OPEN).exclude(state__in=strips.QUIET)
    worst = lists.listed(alerts).order_by(acknowledged, "-severity", "opened_at", "pk")
    return Alerts(
        counts=[
            SeverityCount(
                str(severity.label),
                tone,
                count=sum(cell.count for cell in heard if cell.severity == severity),
                waiting=sum(cell.waiting for cell in heard if cell.severity == severity),
            )
            for severity, tone in lists.TONES.items()
            if severity != Severity.OK
        ],
        rows=lists.rows(worst[:MOST_ALERTS], now),
        hushed=sum(cell.count for cell in cells) - sum(cell.count for cell in heard),
        changes=strips.of_site(now),
    )


# --- Queues and workers -------------------------------------------------------------------------


def _workers(now: datetime) -> dict[str, list[Worker]]:
    """Return the processes of each service, the ones heard of last first."""
    found: dict[str, list[Worker]] = {}
    for beat in Heartbeat.objects.order_by("-seen_at"):
        worker = Worker(beat.instance, beat.seen_at, now - beat.seen_at < ALIVE_FOR)
        known = found.setdefault(beat.service, [])
        if not known or worker.alive or now - worker.seen_at < SILENT_SHOWN_FOR:
            known.append(worker)
    return found


def read_queues(now: datetime, workers: dict[str, list[Worker]]) -> list[QueueState]:
    """Return the state of every queue of the catalogue."""
    samples = QueueSample.objects.filter(at__gt=now - HISTORY).order_by("queue", "at")
    history = {name: list(group) for name, group in groupby(samples, key=attrgetter("queue"))}
    return [
        _queue_state(now, queue, history.get(queue.name, []), workers.get(queue.service, []))
        for queue in queues.QUEUES
    ]


def _queue_state(
    now: datetime,
    queue: queues.Queue,
    samples: Sequence[QueueSample],
    workers: Sequence[Worker],
) -> QueueState:
    last = samples[-1] if samples else None
    fresh = last if last and now - last.at < SAMPLE_IS_OLD else None
    alive = sum(worker.alive for worker in workers)
    # The embedded stack's file broker cannot count consumers.
    counted = fresh.consumers if fresh else None
    highest = max((sample.depth for sample in samples), default=0)
    return QueueState(
        queue=queue,
        sampled_at=last.at if last else None,
        depth=fresh.depth if fresh else None,
        consumers=alive if settings.EMBEDDED else counted,
        dead=fresh.dead if fresh else None,
        highest=highest,
        line=sparkline(now, ((s.at, s.depth) for s in samples), max(highest, _LEAST_DEPTH)),
        workers=workers,
    )


def sparkline(now: datetime, points: Iterable[tuple[datetime, float]], scale: float) -> str:
    """Return the SVG path of values over the last hour: the highest of each minute.

    The line is broken where there is no value; one of ``scale`` reaches the top.
    """
    minutes: dict[int, float] = {}
    for at, value in points:
        minute = 60 - min(60, max(0, round((now - at) / timedelta(minutes=1))))
        minutes[minute] = max(minutes.get(minute, 0), value)
    parts = []
    for minute, value in sorted(minutes.items()):
        x = minute * _WIDTH / 60
        y = _HEIGHT - 1 - value / scale * (_HEIGHT - 2)
        # A line of no length is a dot: a minute without neighbours shows too.
        parts.append(f"L{x:g} {y:.1f}" if minute - 1 in minutes else f"M{x:g} {y:.1f}h0")
    return " ".join(parts)


# --- Beat ---------------------------------------------------------------------------------------


def read_beat(now: datetime, workers: Sequence[Worker]) -> Beat:
    """Return the scheduler's state and the next runs."""
    enabled = PeriodicTask.objects.filter(enabled=True).exclude(name__startswith=REQUEST_PREFIX)
    related = enabled.select_related("interval", "crontab", "solar", "clocked")
    schedules = list(related.order_by("name")[: MOST_SCHEDULES + 1])
    runs = [
        Run(
            schedule.name,
            at,
            reverse("admin:django_celery_beat_periodictask_change", args=[schedule.pk]),
        )
        for schedule in schedules[:MOST_SCHEDULES]
        if (at := next_run(schedule, now))
    ]
    return Beat(
        workers=workers,
        beats=_beats(now),
        runs=sorted(runs, key=attrgetter("at", "name"))[:NEXT_RUNS],
        schedules=min(len(schedules), MOST_SCHEDULES),
        incomplete=len(schedules) > MOST_SCHEDULES,
    )


def _beats(now: datetime) -> Beats:
    instances = Instance.objects.filter(ticked_at__gt=now - ALIVE_FOR)
    samples = LagSample.objects.filter(at__gt=now - HISTORY).values_list("at", "lag")
    points = list(samples)
    highest = max((lag for _, lag in points), default=0)
    return Beats(
        instances=list(instances.order_by("-leader", "name")),
        highest=highest,
        line=sparkline(now, points, max(highest, _LEAST_LAG)),
    )


# --- Certificates -------------------------------------------------------------------------------


def read_certificates(now: datetime) -> Certificates:
    """Return the counts by status and the worst endpoints."""
    watched = Endpoint.objects.filter(enabled=True).order_by()
    found = {row["status"]: row["n"] for row in watched.values("status").annotate(n=Count("pk"))}
    counts = [
        StatusCount(status.value, str(status.label), tone, found.get(status.value, 0))
        for status, tone in TONES.items()
    ]
    rows = [_endpoint_row(now, endpoint) for endpoint in _worst(watched)]
    return Certificates(counts, rows, rest=sum(found.values()) - len(rows))


def _worst(watched: QuerySet[Endpoint]) -> QuerySet[Endpoint]:
    rank = Case(*(When(status=status, then=Value(n)) for n, status in enumerate(TONES)))
    ordered = watched.order_by(
        rank, F("certificate__not_after").asc(nulls_last=True), "host", "port"
    )
    needed = ("host", "port", "server_name", "status", "reason", "scanned_at")
    return ordered.select_related("certificate").only(
        *needed, "certificate__not_after", "certificate__issuer"
    )[:MOST_ENDPOINTS]


def _endpoint_row(now: datetime, endpoint: Endpoint) -> EndpointRow:
    status, certificate = Status(endpoint.status), endpoint.certificate
    expires = certificate.not_after if certificate else None
    days = (expires - now).days if expires else None
    return EndpointRow(
        key=endpoint.pk,
        name=str(endpoint),
        link=reverse("endpoint", args=[endpoint.pk]),
        label=endpoint.get_status_display(),
        tone=TONES[status],
        days=days,
        bar=round(100 * min(max(days or 0, 0), LONGEST_BAR) / LONGEST_BAR),
        expires=expires,
        issuer=certificate.issuer if certificate else "",
        # The other statuses say no more than the days left.
        reason=endpoint.reason if status in (Status.INVALID, Status.UNREACHABLE) else "",
        scanned_at=endpoint.scanned_at,
    )


# --- Robots -------------------------------------------------------------------------------------


def read_robots() -> Robots:
    """Return the numbers of robots; a robot is silent if it is so to any application."""
    alerts = Alert.objects.filter(OPEN).exclude(state=Alert.State.PENDING)
    quiet = alerts.filter(
        Q(rule__name=silence.BOT, rule__application__in=("logons", "mail_collector"))
        | Q(rule__name=flow.RULE, rule__application=flow.APPLICATION)
    )
    told = set(quiet.order_by().values_list("rule__name", "subject__name"))
    return Robots(
        total=Bot.objects.filter(enabled=True).count(),
        silent=sum(rule == silence.BOT for rule, _ in told),
        stream_is_silent=any(rule == flow.RULE for rule, _ in told),
    )


# --- Mail ---------------------------------------------------------------------------------------


def read_mail(now: datetime) -> Mail:
    """Return the state of the relay and of the mail."""
    state = OutboundMail.State
    # The bodies of the mails stay in the database; the board shows the envelope.
    lately = OutboundMail.objects.filter(created_at__gt=now - MAIL_SHOWN_FOR)
    mails = lately.defer("text", "html", "csv").order_by("-created_at")
    stuck = Q(state__in=[state.QUEUED, state.SENDING]) & ~Q(last_error="")
    return Mail(
        relay=health.relay_state(),
        counts=health.counts(now, now - MAIL_COUNTED_FOR),
        unsent=list(mails.filter(Q(state__in=UNSENT) | stuck)[:MOST_FAILURES]),
        sent=list(mails.filter(state=state.SENT)[:SENT_SHOWN]),
    )
