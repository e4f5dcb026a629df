"""Robots on the running stack: simulated ones fall silent, come back, and fail to log on."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from harness import Stack, wait_until_equal

pytestmark = pytest.mark.drill

Shoot = Callable[[Page, str], None]

PATIENCE = 60_000
"""Milliseconds in which beat, a worker and the page's own refresh have had their turns."""

STAGE = """
from datetime import timedelta
from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks
from soc.events.models import Bot, Site
from soc.logons.models import LogonSettings
from soc.mail_collector.models import MailSettings


def look_every(seconds):
    interval, _ = IntervalSchedule.objects.get_or_create(every=seconds, period="seconds")
    watches = PeriodicTask.objects.filter(name__in=["watch mail", "watch logons"])
    watches.update(interval=interval)
    PeriodicTasks.update_changed()
"""

SET_UP = """
Bot.objects.update(enabled=False)
for number in range(1, 5):
    site, _ = Site.objects.get_or_create(name="north" if number < 3 else "south")
    Bot.objects.update_or_create(
        host=f"robot-{number:02}", defaults={"site": site, "enabled": True}
    )
MailSettings.objects.update(bot_warning=timedelta(seconds=8))
# So that a cluster does not begin as the trouble of one robot.
LogonSettings.objects.update(failures=20, cluster_within=timedelta(seconds=20))
look_every(2)
"""

TAKE_DOWN = """
MailSettings.objects.update(bot_warning=timedelta(hours=2))
LogonSettings.objects.update(failures=2, cluster_within=timedelta(minutes=5))
Bot.objects.filter(host__startswith="robot-").delete()
Bot.objects.update(enabled=True)
Site.objects.filter(name__in=["north", "south"]).delete()
look_every(60)
"""

# Plays a few seconds at a time, with the faults of the line that was read last.
PLAY = """
import select
import sys
import django
django.setup()
from django.core.management import call_command
faults = sys.stdin.readline().strip()
seed = 0
while True:
    seed += 1
    call_command(
        "events", "simulate", "--identity=/run/logstash", "--bots=4", "--sites=2", "--rate=20",
        "--minutes=0.1", f"--seed={seed}", f"--faults={faults}",
    )
    if select.select([sys.stdin], [], [], 0)[0]:
        line = sys.stdin.readline()
        if not line:
            break
        faults = line.strip()
"""

ALERTS = """
from soc.alerts.models import AlertEvent
told = AlertEvent.objects.filter(
    kind__in=["fired", "resolved"], alert__rule__application__in=["mail_collector", "logons"]
)
answer = [
    f"{event.alert.rule}: {event.alert.subject.name} {event.kind}"
    for event in told.select_related("alert__rule", "alert__subject")
]
"""


@dataclass
class Play:
    """Simulated robots whose faults change while they play."""

    process: subprocess.Popen[str]

    def go_on(self, faults: str = "") -> None:
        """Play with these faults from now on."""
        self.process.stdin.write(f"{faults}\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def robots(stack: Stack) -> Iterator[Play]:
    """Four robots at two sites, who are soon called silent and are looked at all the time."""
    stack.python("web", STAGE + SET_UP)
    identity = stack.folder / "env" / stack.site / "logstash"
    process = stack.start(
        "run", "--rm", "--no-deps", "-T", f"--volume={identity}:/run/logstash:ro",
        "--env=DJANGO_SETTINGS_MODULE=soc.settings", "worker-events", "python3", "-c", PLAY,
    )  # fmt: skip
    try:
        yield Play(process)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait(timeout=120)
        stack.python("web", STAGE + TAKE_DOWN)


def alert(page: Page, name: str, rule: str) -> Any:
    """Return the row of the board's alert on a subject."""
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
    return row.filter(has_text=rule)


def test_silence_recovery_and_a_logon_cluster_are_told_once_each(
    robots: Play, stack: Stack, signed_in: Page, shoot: Shoot
) -> None:
    board = signed_in
    bot = alert(board, "robot-01", "mail_collector/bot")
    site = alert(board, "north", "mail_collector/site")
    cluster = alert(board, "failed logons", "logons/cluster")

    robots.go_on()
    heard = "from soc.events.models import BotSeen\n" + (
        "answer = BotSeen.objects.filter(kind='mail', bot__enabled=True).count()"
    )
    wait_until_equal("all robots are heard of", lambda: stack.data(heard), 4)

    robots.go_on("silent=1")
    expect(bot).to_contain_text("Firing", timeout=PATIENCE)
    shoot(board, "board-silent-robot")
    robots.go_on()
    expect(bot).to_have_count(0, timeout=PATIENCE)

    robots.go_on("silent=2")
    expect(site).to_contain_text("Firing", timeout=PATIENCE)
    expect(site).to_contain_text("all its 2 robots")
    expect(board.locator("#robots")).to_contain_text("Silent")
    robots.go_on()
    expect(site).to_have_count(0, timeout=PATIENCE)

    robots.go_on("fail=1")
    expect(cluster).to_contain_text("critical", timeout=PATIENCE)
    shoot(board, "board-logon-cluster")
    robots.go_on()
    expect(cluster).to_have_count(0, timeout=PATIENCE)

    told = stack.data(ALERTS)
    for one in (
        *("mail_collector/bot: robot-01", "mail_collector/site: north"),
        "logons/cluster: failed logons",
    ):
        assert told.count(f"{one} fired") == 1, told
        # More than once where a silent site suppressed it in between.
        assert f"{one} resolved" in told
    assert "mail_collector/bot: robot-02 fired" not in told
    assert not [line for line in told if line.startswith("logons/failures")]


def test_robots_have_a_page_and_mail_a_matrix(robots: Play, signed_in: Page, shoot: Shoot) -> None:
    page = signed_in
    robots.go_on()
    page.get_by_role("link", name="Robots", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("4 robots")
    row = page.get_by_role("row").filter(has_text="robot-03")
    expect(row.get_by_role("img", name="Response of robot-03 over the last hour")).to_be_visible()
    shoot(page, "robots")
    page.get_by_role("link", name="north", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("north: 2 robots")
    expect(page.get_by_role("region", name="Mailboxes")).to_contain_text("robot01@site-1")
    shoot(page, "robots-site")
    page.goto("/mail/")
    table = page.get_by_role("table").first
    expect(table.get_by_role("rowheader", name="site-1.soc.internal")).to_be_visible()
    expect(table.get_by_text("verified").first).to_be_visible(timeout=PATIENCE)
    shoot(page, "mail-matrix")


@pytest.mark.parametrize("path", ["/robots/", "/mail/", "/shippers/"])
def test_the_pages_of_robots_fit_a_phone(
    robots: Play, signed_in: Page, shoot: Shoot, path: str
) -> None:
    signed_in.set_viewport_size({"width": 375, "height": 800})
    signed_in.emulate_media(color_scheme="dark")
    signed_in.goto(path)
    expect(signed_in.get_by_role("heading", level=1)).to_be_visible()
    shoot(signed_in, f"phone-{path.strip('/')}")
    assert signed_in.evaluate("document.documentElement.scrollWidth") <= 375
