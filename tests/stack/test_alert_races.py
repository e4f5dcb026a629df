"""Alerts on the real database, reported by many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from harness import Stack

SUBJECTS = 5
ROUNDS = 40
REPORTERS = """
import random, threading
from datetime import timedelta
from django.db import connection
from django.utils import timezone
from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.core.severity import Severity

LEVELS = [Severity.OK, Severity.WARNING, Severity.CRITICAL]

def work(seed):
    dice = random.Random(seed)
    for _ in range({rounds}):
        subjects = dice.sample(range({subjects}), 3)
        engine.report(
            Condition("races", "works", f"bot-{{n}}", dice.choice(LEVELS), timezone.now())
            for n in subjects
        )
    connection.close()

threads = [threading.Thread(target=work, args=({seed} + n,)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
"""
WHAT_CAME_OF_IT = """
from soc.alerts.models import Alert
from soc.notify.models import OutboundMail
answer = {
    "open": list(Alert.objects.filter(rule__application="races", resolved_at=None)
                 .values_list("subject__name", flat=True)),
    "timelines": [
        list(alert.events.order_by("pk").values_list("kind", "before", "after"))
        for alert in Alert.objects.filter(rule__application="races")
    ],
    "mails": list(OutboundMail.objects.filter(topic__startswith="alert:", kind="notice",
                  application="races").values_list("dedupe_key", flat=True)),
}
"""
LOUD = {"fired", "worse"}


def test_of_workers_that_report_at_once_only_one_changes_an_alert(stack: Stack) -> None:
    """Every change starts where the one before it ended, and is mailed once."""
    stack.data("""
from soc.alerts.models import Rule
Rule.objects.create(application="races", name="works", flap_changes=0)
answer = None
""")
    with ThreadPoolExecutor() as pool:
        printed = [
            pool.submit(
                stack.python,
                service,
                REPORTERS.format(rounds=ROUNDS, subjects=SUBJECTS, seed=seed),
            )
            for service, seed in (("worker-shared", 100), ("worker-ssl-certs", 200))
        ]
    assert [future.result().strip().splitlines()[-1] for future in printed] == ["done"] * 2
    found = stack.data(WHAT_CAME_OF_IT)
    assert len(found["open"]) == len(set(found["open"]))
    assert len(found["timelines"]) > SUBJECTS
    told = 0
    for timeline in found["timelines"]:
        assert [kind for kind, _, _ in timeline].count("fired") == 1, timeline
        assert [kind for kind, _, _ in timeline[:-1]].count("resolved") == 0, timeline
        for (_, _, after), (_, before, _) in pairwise(timeline):
            assert before == after, timeline
        told += sum(kind in LOUD for kind, _, _ in timeline)
    first = [key for key in found["mails"] if "resolved" not in key]
    assert len(first) == len(set(first))
    assert told <= len(found["mails"])
