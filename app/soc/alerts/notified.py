"""Who was notified of each change of an alert: sent, held until when, or why not.

What was sent is read from the outbox; why a subscription got nothing was written with the event,
because subscriptions change afterwards.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from soc.alerts.models import Alert, AlertEvent
from soc.common.times import local
from soc.core.severity import Severity
from soc.notify.models import OutboundMail

MOST_MAILS = 2_000
"""The newest messages of an alert that are looked at."""

_READ_OF_DIGEST = ("state", "recipients", "refused", "sent_at", "last_error", "next_try_at")
_READ = (
    *(*_READ_OF_DIGEST, "dedupe_key", "subject", "channel", "gathered", "severity", "created_at"),
    *("subscription", "digest", "fallback_of"),
)

Kind = AlertEvent.Kind
State = Alert.State
Sending = OutboundMail.State

_NOBODY = {
    Kind.ACKNOWLEDGED: "No reminders and no escalation from here on.",
    Kind.BETTER: "Nobody is notified: what gets better is no news.",
    Kind.RETURNED: "Nobody is notified: this severity was notified or acknowledged before.",
    Kind.SUPPRESSED: "Nobody is notified while it is suppressed; what still waited is withdrawn.",
}
"""Why a change by itself notifies nobody."""


@dataclass(frozen=True)
class Outcome:
    """What became of one change for one subscription, or for several alike.

    ``state`` is ``sent``, ``held``, ``waiting``, ``failed`` or ``not notified``; ``at`` when it was
    sent, or until when it is held.
    """

    subscription: str
    state: str
    text: str
    channel: str = ""
    recipients: Sequence[str] = ()
    at: datetime | None = None

    @property
    def tone(self) -> str:
        """How it looks."""
        tones = {"sent": "ok", "held": "info", "waiting": "warn", "failed": "bad"}
        return tones.get(self.state, "idle")


@dataclass(frozen=True)
class Notified:
    """What became of one change: for each subscription, and for all of them."""

    outcomes: Sequence[Outcome] = ()
    remark: str = ""


@dataclass
class _History:
    """An alert's events in their order, with the messages of each."""

    alert: Alert
    events: Sequence[AlertEvent]
    mails: Mapping[int, list[OutboundMail]]
    known: dict[str, None] = field(default_factory=dict)
    """The subscriptions that earlier events knew, in their order."""


def of_events(
    alert: Alert, events: Sequence[AlertEvent], mails: Iterable[OutboundMail]
) -> dict[int, Notified]:
    """Return what became of events, which are in their order, by their keys.

    ``mails`` are those of ``mails_of``.
    """
    history = _History(alert, events, _by_event(alert, mails))
    return {event.pk: _of_event(history, number) for number, event in enumerate(events)}


def mails_of(alert: Alert) -> list[OutboundMail]:
    """Return the newest messages about an alert, the newest first, without their bodies."""
    return list(
        OutboundMail.objects.filter(topic=alert.topic)
        .select_related("subscription", "digest", "fallback_of")
        .only(*_READ, *(f"digest__{name}" for name in _READ_OF_DIGEST), "fallback_of__dedupe_key")
        .order_by("-created_at", "-pk")[:MOST_MAILS]
    )


def _by_event(alert: Alert, mails: Iterable[OutboundMail]) -> dict[int, list[OutboundMail]]:
    found: dict[int, list[OutboundMail]] = defaultdict(list)
    for mail in sorted(mails, key=lambda mail: mail.created_at):
        occasion = (mail.fallback_of or mail).dedupe_key.removeprefix(f"{alert.topic}:")
        event = occasion.partition(":")[0]
        if event.isdecimal():
            found[int(event)].append(mail)
    return found


def _of_event(history: _History, number: int) -> Notified:
    event = history.events[number]
    later = history.events[number + 1 :]
    outcomes = [_of_mail(mail, later) for mail in history.mails.get(event.pk, ())]
    for reason, names in event.unnotified.items():
        outcomes += [Outcome(name, "not notified", f"not notified: {reason}") for name in names]
    named = {outcome.subscription for outcome in outcomes}
    if event.kind == Kind.RESOLVED and outcomes:
        outcomes += [
            Outcome(name, "not notified", "not notified: it had not been notified before")
            for name in history.known
            if name not in named
        ]
    history.known |= dict.fromkeys(outcome.subscription for outcome in outcomes)
    return Notified(outcomes, _remark(history.alert, event, outcomes))


def _remark(alert: Alert, event: AlertEvent, outcomes: Sequence[Outcome]) -> str:
    """Return what is true of an event for every subscription."""
    match Kind(event.kind):
        case Kind.PENDING:
            needed, window = alert.rule.needed, alert.rule.window
            return f"Nobody is notified yet: {needed} bad of {window} reports are needed."
        case Kind.WORSE | Kind.LAPSED | Kind.STEADY if event.after != State.FIRING:
            return f"Nobody is notified: it is {State(event.after).label.lower()}."
        case Kind.FLAPPING:
            return "No further message until it is stable."
        case Kind.RESOLVED if event.before == State.PENDING:
            return "Nobody is notified: it never fired."
        case Kind.RESOLVED if not outcomes:
            return "Nobody is notified of the end: nobody had got a message before."
        case kind if kind in _NOBODY:
            return _NOBODY[kind]
    return " ".join(f"Nobody is notified: {why}." for why, names in event.unnotified.items()
                    if not names)  # fmt: skip


def _of_mail(mail: OutboundMail, later: Iterable[AlertEvent]) -> Outcome:
    state, text, at = _became(mail, later)
    name = mail.subscription.name if mail.subscription else "a deleted subscription"
    if mail.fallback_of_id:
        name = f"{name} (fallback)"
    channel = mail.get_channel_display()
    to = f" to {', '.join(mail.recipients)} by {channel}" if state != "not notified" else ""
    return Outcome(name, state, text.replace("{to}", to), channel, mail.recipients, at)


def _became(mail: OutboundMail, later: Iterable[AlertEvent]) -> tuple[str, str, datetime | None]:
    """Return the state, the words and the moment of a message."""
    match mail.state:
        case Sending.SENT:
            return "sent", "sent{to}" + _only_some(mail), mail.sent_at
        case Sending.DIGESTED:
            state, text, at = (
                _became(mail.digest, ()) if mail.digest else ("sent", "sent{to}", None)
            )
            return state, f"{text}, in a digest", at
        case Sending.FAILED:
            return "failed", f"refused{{to}}: {mail.last_error}", None
        case Sending.EXPIRED:
            return "failed", f"expired before it got out{{to}}: {mail.last_error}", None
        case Sending.WITHDRAWN:
            return "not notified", f"withdrawn before it went out: {_withdrawn_by(later)}", None
    if mail.gathered and mail.next_try_at:
        return "held", f"held until {local(mail.next_try_at)}{{to}}: {_held_by(mail)}", None
    why = f": {mail.last_error}" if mail.last_error else ""
    return "waiting", f"waits to be sent{{to}}{why}", None


def _only_some(mail: OutboundMail) -> str:
    refused = ", ".join(f"{who} refused: {words}" for who, words in mail.refused.items())
    return f" ({refused})" if refused else ""


def _held_by(mail: OutboundMail) -> str:
    subscription = mail.subscription
    if subscription and subscription.held_until(Severity(mail.severity), mail.created_at):
        return "quiet hours"
    return "gathered for a digest"


def _withdrawn_by(later: Iterable[AlertEvent]) -> str:
    for event in later:
        if event.kind == Kind.RESOLVED:
            return "the alert was over"
        if event.kind == Kind.SUPPRESSED:
            return event.text or "the alert was suppressed"
    return "the subscription was disabled"
