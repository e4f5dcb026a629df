"""Robots by all their names: found, renamed, and two that are one merged with their history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from soc.events import identity, shapes
from soc.events.ingest import Ingest
from soc.events.models import Bot, BotAlias, BotDelay, BotSeen, Event, Site
from soc.logons.models import LogonEvent
from soc.mail_collector.models import Mailbox, MailEvent, Watch
from winlogbeat import body, of_8

pytestmark = pytest.mark.django_db

SLOT = datetime(2026, 3, 4, 5, 5, tzinfo=UTC)


def ship(ingest: Ingest, *names: str) -> list[str]:
    """Take in an event of each host; return the robots' names."""
    number = Event.objects.count()
    documents = [
        of_8({"record_id": number + place}, host={"name": name}) for place, name in enumerate(names)
    ]
    taken = ingest.take([shapes.read(body(document)) for document in documents])
    assert taken.counts.stored == len(names)
    return list(Bot.objects.values_list("host", flat=True))


@pytest.mark.parametrize(
    ("names", "robots"),
    [
        (["dual", "dual.site.test", "DUAL"], ["dual"]),
        (["dual.site.test", "dual"], ["dual.site.test"]),
        # Another domain's host is another one.
        (["dual", "dual.site.test", "dual.other.test"], ["dual", "dual.other.test"]),
        # Which of the two it is, only a person knows.
        (["dual.a.test", "dual.b.test", "dual"], ["dual", "dual.a.test", "dual.b.test"]),
        (["192.0.2.1", "192.0.2.2"], ["192.0.2.1", "192.0.2.2"]),
        (["du%l", "dual.site.test"], ["du%l", "dual.site.test"]),
    ],
)
def test_short_and_full_names_are_one_robot(
    ingest: Ingest, names: list[str], robots: list[str]
) -> None:
    for name in names:
        ship(ingest, name)
    assert ship(ingest, *names) == robots


def test_a_known_alias_costs_no_question(ingest: Ingest, django_assert_num_queries: object) -> None:
    ship(ingest, "dual")
    ship(ingest, "dual.site.test")
    ingest._memory.forget()
    ingest._memory.refresh()
    events = [shapes.read(body(of_8(host={"name": "dual.site.test"})))]
    with django_assert_num_queries(0):
        ingest._memory.bot(events[0])


def test_a_forwarded_event_leaves_the_robots_addresses(ingest: Ingest) -> None:
    ship(ingest, "robot-07")
    forwarded = of_8(
        {"computer_name": "robot-07.site.test", "record_id": 99},
        host={"name": "keeper", "ip": ["192.0.2.99"]},
    )
    ingest.take([shapes.read(body(forwarded))])
    assert list(Bot.objects.values_list("host", "addresses")) == [("robot-07", [])]


# --- Renaming -----------------------------------------------------------------------------------


def test_a_renamed_robot_still_goes_by_its_former_name(browser: Client, ingest: Ingest) -> None:
    ship(ingest, "dual")
    bot = Bot.objects.get()
    none = {"TOTAL_FORMS": "0", "INITIAL_FORMS": "0"}
    data = {"host": "north-1", "enabled": "on", "notes": ""}
    for prefix in ("aliases", "seen"):
        data |= {f"{prefix}-{name}": value for name, value in none.items()}
    page = browser.post(reverse("admin:events_bot_change", args=[bot.pk]), data, secure=True)
    assert page.status_code == 302, page.content.decode()
    assert list(BotAlias.objects.values_list("name", "bot__host")) == [("dual", "north-1")]
    ingest._memory.forget()
    assert ship(ingest, "dual", "north-1") == ["north-1"]


def test_a_name_is_of_one_robot_only() -> None:
    one, other = Bot.objects.create(host="one"), Bot.objects.create(host="other")
    BotAlias.objects.create(name="alias", bot=one)
    with pytest.raises(ValidationError, match="alias of the robot one: merge"):
        Bot(host="Alias").full_clean()
    with pytest.raises(ValidationError, match="robot's name: merge"):
        BotAlias(name="Other", bot=one).full_clean()
    other.full_clean()


# --- Merging ------------------------------------------------------------------------------------


def history(bot: Bot, minutes: int, digest: str) -> None:
    """Give a robot a row of every table that names robots."""
    at = timezone.now() - timedelta(minutes=minutes)
    row = {"bot": bot, "at": at, "received_at": at}
    LogonEvent.objects.create(**row, digest=f"logon {digest}".encode(), state="failed", event_id=1)
    MailEvent.objects.create(**row, digest=f"mail {digest}".encode(), kind="send", passed=True)
    BotSeen.objects.create(bot=bot, kind="event", at=at)
    BotSeen.objects.create(bot=bot, kind=f"of {bot}", at=at)
    BotDelay.objects.create(bot=bot, slot=SLOT, seconds=minutes)
    Watch.objects.create(bot=bot, since=at, heard_at=at)
    Mailbox.objects.create(bot=bot, address="shared@x.test", since=at)
    Mailbox.objects.create(bot=bot, address=f"{bot}@x.test", since=at)
    BotAlias.objects.create(name=f"alias of {bot}", bot=bot)


def test_the_history_here_has_a_row_of_every_table_that_names_robots() -> None:
    bot = Bot.objects.create(host="bot")
    history(bot, 1, "a")
    for field in identity._references():
        assert field.model._default_manager.filter(bot=bot).exists(), field


def test_two_robots_that_are_one_are_merged_with_their_history(
    browser: Client, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "RANGE", 2)
    ship(ingest, *["old", "new"] * 3)
    BotSeen.objects.all().delete()
    old, new = Bot.objects.get(host="old"), Bot.objects.get(host="new")
    Bot.objects.filter(pk=old.pk).update(site=Site.objects.create(name="north"))
    history(old, 1, "a")
    history(new, 9, "b")
    data = {"action": "merge", "_selected_action": [old.pk, new.pk]}
    path = reverse("admin:events_bot_changelist")
    assert "All are old" in browser.post(path, data, secure=True).content.decode()
    browser.post(path, data | {"target": new.pk}, secure=True)

    assert str(Bot.objects.get()) == "new"
    assert Bot.objects.get().site.name == "north"
    assert Event.objects.filter(bot=new).count() == 6
    assert LogonEvent.objects.filter(bot=new).count() == 2
    assert MailEvent.objects.filter(bot=new).count() == 2
    assert sorted(BotAlias.objects.filter(bot=new).values_list("name", flat=True)) == [
        "alias of new", "alias of old", "old"
    ]  # fmt: skip
    kinds = {seen.kind: timezone.now() - seen.at for seen in BotSeen.objects.filter(bot=new)}
    assert sorted(kinds) == ["event", "of new", "of old"]
    assert kinds["event"] < timedelta(minutes=5) < kinds["of new"]
    boxes = Mailbox.objects.filter(bot=new)
    assert {box.address for box in boxes} == {"shared@x.test", "old@x.test", "new@x.test"}
    shared = boxes.get(address="shared@x.test")
    assert timezone.now() - shared.since > timedelta(minutes=5)
    assert Watch.objects.get().bot == new
    assert BotDelay.objects.get(bot=new, slot=SLOT).seconds == 9
    words = LogEntry.objects.filter(object_id=new.pk).values_list("change_message", flat=True)
    assert "Merged old into it." in list(words)

    ingest._memory.forget()
    assert ship(ingest, "old", "new", "alias of old") == ["new"]


def test_a_watch_goes_over_where_the_target_has_none() -> None:
    old, new = Bot.objects.create(host="old"), Bot.objects.create(host="new")
    Watch.objects.create(bot=old, since=timezone.now(), heard_at=timezone.now())
    identity.merge(old, new)
    assert Watch.objects.get().bot == new
