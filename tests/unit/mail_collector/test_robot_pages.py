"""The pages of robots: what they show, to whom, and that their cost is fixed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from robots import mailbox
from soc.alerts.models import OPEN, Alert
from soc.board import data as board_data
from soc.events import dead
from soc.events.models import Bot, BotAlias, DeadLetter, Site
from soc.robots.data import sparkline

if TYPE_CHECKING:
    from robots import Stream

pytestmark = pytest.mark.usefixtures("plain_static_files")


@pytest.fixture
def viewer(db: None) -> Client:
    user = User.objects.create_user("vera")
    user.groups.add(Group.objects.get(name="Viewers"))
    client = Client()
    client.force_login(user)
    return client


def shown(client: Client, path: str) -> str:
    """Return a page's words; the live part alone says the same."""
    pages = [client.get(address, secure=True) for address in (path, f"{path}live/")]
    assert [page.status_code for page in pages] == [200, 200]
    texts = [" ".join(re.sub(r"<[^>]+>", " ", page.content.decode()).split()) for page in pages]
    # The two may be of different seconds.
    whole, part = (re.sub(r"Refreshed [\d:]+", "", text) for text in texts)
    assert part in whole
    return texts[1]


def row(page: str, host: str) -> str:
    return page[page.index(host) : page.index(host) + 120]


def test_a_wrong_clock_is_shown_and_a_slow_robot_is_not_called_unchecked(
    stream: Stream, viewer: Client
) -> None:
    stream.place("north", "a1", "a2")

    def say() -> None:
        stream.mail("other")
        stream.mail("a1", ago=timedelta(minutes=40))
        stream.mail("a2", ago=timedelta(minutes=-3))

    stream.run(say, minutes=20)
    page = shown(viewer, "/robots/")
    assert "Clock 40 min slow wrong clock Mail 1 s" in row(page, "a1")
    assert "Clock 3 min ahead wrong clock" in row(page, "a2")
    assert "Clock" not in row(page, "other")


def test_a_robot_whose_messages_are_refused_says_so_on_its_pages_and_in_its_alerts(
    stream: Stream, viewer: Client
) -> None:
    """Its shape has changed: it is silent too, but not merely."""
    site = stream.place("north", "a1", "a2")
    BotAlias.objects.create(name="a1.site.example", bot=Bot.objects.get(host="a1"))
    stream.run(lambda: [stream.mail(host) for host in ("a1", "a2", "other")], minutes=4)
    changed = b'{"host": {"name": "a1.site.example"}, "shape": %d}'
    dead.keep([dead.of(changed % number, "it has no time: add it") for number in range(3)])
    stream.run(lambda: [stream.mail(host) for host in ("a2", "other")], minutes=24)
    words = "3 messages of it refused since"
    for path in ("/robots/", f"/robots/site/{site.pk}/"):
        page = shown(viewer, path)
        assert words in page
        assert "It has no time: add it" in page
        assert "messages refused" in row(page[page.rindex("refused since") :], "It has no time")
    robot = Bot.objects.get(host="a1").pk
    alerts = Alert.objects.filter(link=f"/robots/#robot-{robot}")
    summaries = dict(alerts.values_list("rule__name", "summary"))
    assert summaries["refused"].startswith(words)
    assert re.match("Nothing for .* min.* 3 messages of it refused since", summaries["bot"])
    board = " ".join(problem.text for problem in board_data.read(timezone.now()).problems)
    assert "3 messages of a1 are refused: It has no time: add it" in board
    dead.discard(DeadLetter.objects.all(), "ann")
    stream.watch()
    assert not Alert.objects.filter(OPEN, rule__name="refused").exists()
    assert words not in shown(viewer, "/robots/")


def test_robots_are_shown_by_their_sites_with_their_troubles(
    stream: Stream, viewer: Client
) -> None:
    stream.place("north", "a1", "b1")
    for host in ("a1", "b1", "other", "stranger"):
        stream.mail(host)
    stream.logon("a1", seconds=4)
    for _ in range(2):
        stream.logon("b1", event_id=1006)
    stream.watch()
    page = shown(viewer, "/robots/")
    assert "4 robots, 2 failing" in page
    assert "Without a site 1 robot" in page
    assert "north 2 robots, 1 failing" in page
    assert "in order" in row(page, "a1")
    assert "4.0 s" in row(page, "a1")
    assert "logons fail" in row(page, "b1")
    assert "2 failed" in row(page, "b1")
    assert "no site" in row(page, "stranger")


def test_a_site_has_a_page_with_its_mailboxes_and_failures(stream: Stream, viewer: Client) -> None:
    site = stream.place("north", "a1")
    stream.mail("a1", "send", "FAIL", to=["x@south.internal"], text="<b>No</b> route.")
    stream.mail("a1", mailbox="plain@north.internal")
    stream.watch()
    page = shown(viewer, f"/robots/site/{site.pk}/")
    assert "north: 1 robot, 1 failing" in page
    assert f"{mailbox('a1')} mail1 db1 a1 never never never" in page
    assert "plain@north.internal The name does not match the pattern." in page
    assert "&lt;b&gt;No&lt;/b&gt; route." in page
    assert viewer.get("/robots/site/999/", secure=True).status_code == 404


def test_the_matrix_says_in_words_how_mail_is(stream: Stream, viewer: Client) -> None:
    for host in ("a1", "b1", "c1"):
        stream.place("north", host)
        stream.mail(host)
    stream.deliver("a1", "b1", "1")
    stream.mail("b1", "send", to=[mailbox("c1"), "x@elsewhere.internal"], wm_id="2")
    stream.mail("c1", "send", "FAIL", to=[mailbox("a1")], text="No route.")
    stream.watch()
    stream.clock.move(minutes=3)
    page = shown(viewer, "/mail/")
    assert "Mail between domains: 1 failing, 1 unverified" in page
    header = page.index("a.internal b.internal c.internal elsewhere.internal")
    cells = page[header:]
    assert "a.internal no mail verified 3 min ago no mail no mail" in cells
    assert "b.internal no mail no mail unverified never verified not watched" in cells
    assert "c.internal failing never verified No route. no mail" in cells
    assert "mail1 db1 3" in cells


def test_without_any_robot_the_pages_say_so(viewer: Client) -> None:
    assert "No robot has been heard of yet." in shown(viewer, "/robots/")
    assert "No robot has sent a mail yet, and no mail route is watched." in shown(viewer, "/mail/")


def test_who_may_not_see_alerts_sees_no_robots(db: None) -> None:
    client = Client()
    client.force_login(User.objects.create_user("nobody"))
    for path in ("/robots/", "/robots/live/", "/mail/", "/mail/live/", "/robots/site/1/"):
        assert client.get(path, secure=True).status_code == 403


def test_the_cost_of_a_page_does_not_depend_on_the_rows(
    stream: Stream, viewer: Client, django_assert_num_queries: Callable[[int], object]
) -> None:
    site = stream.place("north", "a1")
    stream.mail("a1")
    stream.logon("a1")
    stream.watch()
    costs = {"/robots/live/": 14, f"/robots/site/{site.pk}/live/": 18, "/mail/live/": 8}
    viewer.get("/robots/", secure=True)
    for path, cost in costs.items():
        with django_assert_num_queries(cost):
            viewer.get(path, secure=True)
    hosts = [f"{letter}{number}" for letter in "bcd" for number in range(8)]
    stream.place("north", *hosts)
    for number, host in enumerate(hosts):
        stream.mail(host, "send", "FAIL", to=[mailbox("a1")])
        stream.deliver(host, "a1", str(number))
        stream.logon(host, event_id=1000 + number % 2 * 6)
    stream.watch()
    for path, cost in costs.items():
        with django_assert_num_queries(cost):
            viewer.get(path, secure=True)


def test_the_board_tells_of_silent_robots_and_of_a_silent_stream(stream: Stream) -> None:
    def sentences() -> str:
        return " ".join(problem.text for problem in board_data.read(timezone.now()).problems)

    stream.place("north", "a1", "a2")
    stream.run(lambda: [stream.mail(host) for host in ("a1", "a2", "other")], minutes=4)
    assert "robot" not in sentences()
    stream.run(lambda: [stream.mail(host) for host in ("a2", "other")], minutes=24)
    assert "1 of 3 robots is silent." in sentences()
    stream.clock.move(minutes=6)
    stream.watch()
    assert "No event comes from any robot." in sentences()


def test_an_alert_leads_to_its_robot(stream: Stream) -> None:
    stream.mail("stranger")
    stream.watch()
    key = Bot.objects.get(host="stranger").pk
    assert Alert.objects.get().link == f"/robots/#robot-{key}"
    stream.place("north", "stranger")
    stream.run(lambda: stream.mail("other"), minutes=24)
    site = Site.objects.get(name="north").pk
    assert Alert.objects.get(rule__name="site").link == f"/robots/site/{site}/"


def test_the_line_of_responses_is_broken_where_none_came_for_long() -> None:
    now = timezone.now()
    points = [(now - timedelta(minutes=ago), 5_000) for ago in (60, 54, 30, 0)]
    assert sparkline(points, now) == "M0 16h0 L12 16 M60 16h0 M120 16h0"
    # What takes longer than the scale makes the scale.
    assert sparkline([(now, 40_000), (now - timedelta(minutes=6), 20_000)], now) == (
        "M108 16h0 L120 1"
    )
