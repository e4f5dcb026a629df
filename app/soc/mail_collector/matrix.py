"""The mail between domains and the servers behind it, as a page shows them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from soc.alerts.spans import in_words
from soc.common import plugins
from soc.common.pairs import ActivePair
from soc.mail_collector.models import Mailbox, MailSettings, Route


@dataclass(frozen=True)
class RouteCell:
    """The mail from one domain to another."""

    route: Route | None
    now: datetime
    patience: timedelta
    watched: bool
    active: Sequence[ActivePair] = ()
    """What round trips of the site's own say of it."""

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.route is None or not self.watched:
            return "idle"
        if self.route.is_failing:
            return "bad"
        return "ok" if self._is_verified else "warn"

    @property
    def label(self) -> str:
        """How it is in a word."""
        if self.route is None:
            return "no mail"
        if not self.watched:
            return "not watched"
        if self.route.is_failing:
            return "failing"
        return "verified" if self._is_verified else "unverified"

    @property
    def age(self) -> str:
        """How long ago a mail was last verified."""
        if self.route is None or self.route.verified_at is None:
            return ""
        return in_words(self.now - self.route.verified_at)

    @property
    def _is_verified(self) -> bool:
        at = self.route.verified_at if self.route else None
        return at is not None and self.now - at < self.patience


@dataclass(frozen=True)
class MatrixLine:
    """The mail of one sending domain."""

    sender: str
    cells: Sequence[RouteCell]


@dataclass(frozen=True)
class DatabaseChecks:
    """A database of a server, and when each check last passed there."""

    server: str
    database: str
    mailboxes: int
    connected_at: datetime | None
    sent_at: datetime | None
    received_at: datetime | None


@dataclass(frozen=True)
class Matrix:
    """All mail."""

    now: datetime
    recipients: Sequence[str]
    lines: Sequence[MatrixLine]
    places: Sequence[DatabaseChecks]
    unplaced: int

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many pairs there are of each tone, by what robots and round trips say."""
        cells = [cell for line in self.lines for cell in line.cells]
        tones = [cell.tone for cell in cells if cell.route]
        tones += [pair.tone for cell in cells for pair in cell.active]
        return {tone: tones.count(tone) for tone in ("bad", "warn", "ok", "idle")}


def read(now: datetime, may: Callable[[str], bool]) -> Matrix:
    """Read all of it that a person may see, who has a permission or not."""
    patience = MailSettings.current().route_unverified
    routes = {(route.sender, route.recipient): route for route in Route.objects.all()}
    active: defaultdict[tuple[str, str], list[ActivePair]] = defaultdict(list)
    for module in plugins.modules("pairs"):
        for pair in module.pairs() if may(module.PERMISSION) else ():
            active[pair.sender, pair.recipient].append(pair)
    ends = {*routes, *active}
    mailboxes = list(Mailbox.objects.filter(bot__enabled=True))
    watched = {box.domain for box in mailboxes}
    recipients = sorted({recipient for _, recipient in ends})
    lines = [
        MatrixLine(
            sender,
            [
                RouteCell(
                    routes.get((sender, to)),
                    now,
                    patience,
                    {sender, to} <= watched,
                    active.get((sender, to), ()),
                )
                for to in recipients
            ],
        )
        for sender in sorted({sender for sender, _ in ends})
    ]
    return Matrix(
        now=now,
        recipients=recipients,
        lines=lines,
        places=_places(mailboxes),
        unplaced=sum(not box.server for box in mailboxes),
    )


def _places(mailboxes: Sequence[Mailbox]) -> list[DatabaseChecks]:
    found: dict[tuple[str, str], list[Mailbox]] = {}
    for box in mailboxes:
        if box.server:
            found.setdefault((box.server, box.database), []).append(box)
    return [
        DatabaseChecks(
            *names,
            mailboxes=len({box.address for box in boxes}),
            connected_at=_last(box.connected_at for box in boxes),
            sent_at=_last(box.sent_at for box in boxes),
            received_at=_last(box.received_at for box in boxes),
        )
        for names, boxes in sorted(found.items())
    ]


def _last(times: Iterable[datetime | None]) -> datetime | None:
    return max((at for at in times if at), default=None)
