"""The demo application: what it reports, and what its page shows."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone
from soc.demo import conditions, report, tasks
from soc.demo.models import DemoCounter

from soc.alerts.models import Alert
from soc.notify.models import Subscription
from soc.notify.reports import Period

pytestmark = pytest.mark.django_db


def test_a_counter_above_its_limit_is_an_alert_until_it_is_not() -> None:
    counter = DemoCounter.objects.create(name="queue", value=7, limit=5)
    conditions.report(timezone.now())
    alert = Alert.objects.get(rule__application="demo")
    assert (alert.state, alert.summary) == ("firing", "It is 7, above 5.")
    counter.value = 5
    counter.save()
    conditions.report(timezone.now())
    alert.refresh_from_db()
    assert alert.state == "resolved"


def test_the_task_may_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "wake", lambda: None)
    DemoCounter.objects.create(name="queue", value=7, limit=5)
    tasks.watch()
    tasks.watch()
    assert Alert.objects.filter(rule__application="demo").count() == 1


def test_the_page_and_the_board_show_the_counters(browser: Client) -> None:
    DemoCounter.objects.create(name="<queue>", value=7, limit=5)
    for path in ("/demo/", "/demo/live/", "/"):
        answer = browser.get(path, secure=True)
        assert answer.status_code == 200
        assert "&lt;queue&gt;" in answer.content.decode()


def test_the_report_has_the_counters() -> None:
    DemoCounter.objects.create(name="queue", value=7, limit=5)
    period = Period(timezone.now(), timezone.now())
    (section,) = report.sections(Subscription(), period)
    assert section.notice.title == "Demo: 1 counters, 1 above their limits"
    assert list(report.sections(Subscription(applications="ssl_certs"), period)) == []
