"""From checks to alerts: failed checks, servers, databases, pairs of domains."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.utils import timezone

from robots import fired, mailbox, open_alerts
from soc.alerts.models import OPEN, Alert, AlertEvent
from soc.core.severity import Severity
from soc.events.models import Bot
from soc.mail_collector import collect
from soc.mail_collector.models import Delivery, Mailbox, MailEvent, MailSettings, Route

if TYPE_CHECKING:
    from robots import Stream

MAIL = {"wm_id": "7", "message_id": "<7@x>", "from": mailbox("a1")}
CHECK, PAIR = "mail_collector/check", "mail_collector/pair"
HOUR = timedelta(hours=1)
SETTINGS = "/admin/mail_collector/mailsettings/1/change/"


@pytest.fixture
def two(stream: Stream) -> Stream:
    """Two robots of one site with domains of their own."""
    stream.place("north", "a1", "b1")
    return stream


def test_a_failed_check_is_told_at_once_and_resolves(two: Stream) -> None:
    two.mail("a1", "send", "FAIL", to=[mailbox("b1")], text="No route.")
    two.watch()
    assert f"{CHECK}: {mailbox('a1')}: send" in open_alerts()
    alert = Alert.objects.get(rule__name="check")
    assert (alert.severity, alert.site, alert.summary) == (Severity.CRITICAL, "north", "No route.")
    assert alert.facts["To"] == mailbox("b1")
    two.clock.move(minutes=1)
    two.mail("a1", "send", to=[mailbox("b1")])
    two.watch()
    assert not Alert.objects.filter(OPEN, rule__name="check").exists()


def test_a_check_that_failed_and_passed_between_two_looks_is_told_too(two: Stream) -> None:
    two.mail("a1", "send", "FAIL", ago=timedelta(seconds=40))
    two.mail("a1", "send", ago=timedelta(seconds=20))
    two.watch()
    kinds = AlertEvent.objects.filter(alert__rule__name="check").values_list("kind", flat=True)
    assert list(kinds) == ["fired", "resolved"]


def test_another_look_tells_nothing_again(two: Stream) -> None:
    two.mail("a1", "send", "FAIL")
    two.watch()
    MailEvent.objects.update(taken=False)
    assert collect.take_new() == 0
    assert len(fired(CHECK)) == 1


def test_a_receipt_before_its_sending_verifies_the_pair(two: Stream) -> None:
    two.mail("b1", "receive", **MAIL)
    two.watch()
    assert Route.objects.get().verified_at is None
    two.clock.move(seconds=29)
    two.mail("a1", "send", to=[mailbox("b1")], ago=timedelta(minutes=1), **MAIL)
    two.watch()
    route, delivery = Route.objects.get(), Delivery.objects.get()
    assert (str(route), route.verified_at) == ("a.internal to b.internal", delivery.received_at)
    assert delivery.received_at - delivery.sent_at == timedelta(seconds=30)


def test_the_same_ends_again_make_one_delivery(two: Stream) -> None:
    for _ in range(3):
        two.deliver("a1", "b1", "7")
        two.watch()
    assert Delivery.objects.count() == 1


def test_a_receipt_heard_of_too_late_verifies_no_pair(two: Stream) -> None:
    two.deliver("a1", "b1", "7", ago=timedelta(minutes=31))
    two.watch()
    assert Delivery.objects.get().verified_at is not None
    assert not Route.objects.exclude(verified_at=None).exists()
    assert not Mailbox.objects.exists()


def test_a_pair_is_unverified_when_mail_goes_and_none_arrives(two: Stream) -> None:
    def say(number: str) -> None:
        two.mail("b1")
        two.mail("a1", "send", to=[mailbox("b1")], **MAIL | {"wm_id": number})

    two.deliver("a1", "b1", "1")
    two.run(lambda: say("2"), minutes=36)
    assert PAIR not in " ".join(open_alerts())
    two.run(lambda: say("3"), minutes=8)
    (subject,) = fired(PAIR)
    assert subject == "a.internal to b.internal"
    two.deliver("a1", "b1", "4")
    two.run(lambda: say("5"), minutes=4)
    assert not Alert.objects.filter(OPEN, rule__name="pair").exists()


def test_a_pair_whose_mail_failed_is_told_by_the_check_alone(two: Stream) -> None:
    two.deliver("a1", "b1", "1")
    two.clock.move(minutes=1)
    two.mail("a1", "send", "FAIL", to=[mailbox("b1")], text="No route.")
    two.watch()
    assert Route.objects.get().is_failing
    assert open_alerts() == [f"{CHECK}: {mailbox('a1')}: send"]
    pair = Alert.objects.get(rule__name="pair")
    assert (pair.state, pair.severity) == ("suppressed", Severity.CRITICAL)


def test_a_pair_that_was_well_before_its_mail_failed_is_told_by_the_check_alone(
    two: Stream,
) -> None:
    two.deliver("a1", "b1", "1")
    two.watch()
    two.clock.move(minutes=1)
    two.mail("a1", "send", "FAIL", to=[mailbox("b1")], text="No route.")
    two.watch()
    assert open_alerts() == [f"{CHECK}: {mailbox('a1')}: send"]


def test_a_pair_that_nobody_verifies_fails_until_the_check_passes(two: Stream) -> None:
    two.mail("a1", "send", "FAIL", to=["witness@elsewhere.internal"], text="Greylisted.")
    two.watch()
    assert Route.objects.get().is_failing
    two.clock.move(minutes=1)
    two.mail("a1", "send", to=["witness@elsewhere.internal"])
    two.watch()
    assert not Route.objects.get().is_failing
    assert Route.objects.get().failed_at
    assert not Alert.objects.filter(OPEN).exists()


def test_a_robot_without_a_mailbox_tells_its_failed_check_until_it_passes(two: Stream) -> None:
    def say(status: str) -> None:
        two.mail("a1", "configuration", status, mailbox=None, text="It cannot be read.")

    for _ in range(3):
        two.run(lambda: say("FAIL"), minutes=4)
    assert open_alerts() == [f"{CHECK}: a1: configuration"]
    assert fired(CHECK) == ["a1: configuration"]
    two.run(lambda: say("PASS"), minutes=4)
    assert open_alerts() == []


def test_nobody_is_there_to_verify_mail_to_a_domain_without_robots(two: Stream) -> None:
    def say() -> None:
        two.mail("a1", "send", to=["witness@elsewhere.internal"], **MAIL)
        two.mail("other")

    two.run(say, hours=1)
    assert fired(PAIR) == []


def test_a_server_without_a_send_is_told_and_its_database_is_not(two: Stream) -> None:
    two.deliver("a1", "b1", "1")

    def say() -> None:
        for host in ("a1", "b1"):
            two.mail(host)
        two.mail("b1", "receive", **MAIL)

    two.run(say, minutes=16)
    assert open_alerts() == []
    two.run(say, minutes=4)
    assert open_alerts() == ["mail_collector/server: mail1"]
    assert Alert.objects.get(rule__name="server").summary == "No send for 20 min."
    two.run(say, minutes=20)
    assert Alert.objects.get(rule__name="server").severity == Severity.CRITICAL
    two.deliver("a1", "b1", "2")
    two.run(say, minutes=4)
    assert open_alerts() == []
    assert fired("mail_collector/database") == []


def test_no_database_is_told_before_the_server_that_it_fell_silent_with(two: Stream) -> None:
    """On db2 the last mail was sent four minutes before the last one on db1."""

    def say() -> None:
        for address in (mailbox("a1"), mailbox("a1").replace("db1", "db2")):
            two.mail("a1", mailbox=address)

    two.mail("a1", "send", mailbox=mailbox("a1").replace("db1", "db2"), **MAIL)
    two.run(say, minutes=4)
    two.mail("a1", "send", **MAIL)
    two.run(say, minutes=20)
    assert fired("mail_collector/server") == ["mail1"]
    assert fired("mail_collector/database") == []


def test_servers_and_pairs_that_only_silent_robots_see_are_not_blamed(two: Stream) -> None:
    two.place("west", "west1")
    two.deliver("a1", "b1", "1")
    two.run(lambda: two.mail("west1", mailbox="plain@west.internal"), hours=2)
    assert open_alerts() == ["mail_collector/site: north"]
    # Back after hours, they have their whole time to do what they are there for.
    two.run(lambda: [two.mail(host) for host in ("a1", "b1", "west1")], minutes=12)
    assert open_alerts() == []


def test_a_part_at_a_time_is_taken_in(two: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "PART", 2)
    for number in range(5):
        two.mail("a1", ago=timedelta(seconds=number))
    collect.take_new()
    assert not MailEvent.objects.filter(taken=False).exists()


def test_deleting_a_robot_ends_its_alerts(two: Stream) -> None:
    two.mail("a1", "send", "FAIL")
    two.mail("other")
    two.watch()
    Bot.objects.get(host="a1").delete()
    two.clock.move(minutes=1)
    two.mail("other")
    two.watch()
    assert open_alerts() == []


def test_the_alert_of_a_mailbox_with_a_very_long_name_stays_open(two: Stream) -> None:
    long = f"{'x' * 220}@north.internal"
    two.mail("a1", "send", "FAIL", mailbox=long)
    two.watch()
    two.run(lambda: two.mail("other"), minutes=8)
    assert len(open_alerts()) == 1


def test_limits_beyond_the_others_are_reached_too(two: Stream) -> None:
    """The look back for breaks of the stream is as long as the longest limit."""
    MailSettings.objects.update(
        server_warning=HOUR, server_critical=5 * HOUR, route_unverified=5 * HOUR
    )
    two.deliver("a1", "b1", "1")
    two.run(lambda: [two.mail(host) for host in ("a1", "b1")], hours=1, minutes=4)
    assert open_alerts() == ["mail_collector/server: mail1"]


# --- The settings in the admin ------------------------------------------------------------------


def form(**changes: str) -> dict[str, str]:
    return {
        "bot_warning": "2:00:00",
        "bot_critical": "6:00:00",
        "server_warning": "2:00:00",
        "server_critical": "6:00:00",
        "route_unverified": "6:00:00",
        "mailbox_pattern": "{server}-{database}-{name}@{domain}",
        "report_times": "07:45, 15:45, 23:45",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mailbox_pattern": "{server}{database}@{domain}"}, "Two placeholders touch"),
        ({"bot_critical": "1:00:00"}, "critical before a warning"),
        ({"bot_warning": "0:00:00"}, "greater than or equal to"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    browser: Client, changes: dict[str, str], words: str
) -> None:
    before = MailSettings.objects.values().get()
    page = browser.post(SETTINGS, form(**changes), secure=True)
    assert page.status_code == 200
    assert words in page.content.decode()
    assert MailSettings.objects.values().get() == before


def test_another_pattern_finds_the_servers_of_known_mailboxes(browser: Client) -> None:
    bot = Bot.objects.create(host="a1")
    Mailbox.objects.create(bot=bot, address="a1_mx1.db7@north.internal", since=timezone.now())
    changes = form(mailbox_pattern="{name}_{server}.{database}@{domain}")
    assert browser.post(SETTINGS, changes, secure=True).status_code == 302
    box = Mailbox.objects.get()
    assert (box.server, box.database) == ("mx1", "db7")


def test_the_settings_can_neither_be_added_nor_deleted(browser: Client) -> None:
    for page in ("add/", "1/delete/"):
        assert browser.get(SETTINGS.replace("1/change/", page), secure=True).status_code == 403
