"""How far behind a queue is, what is done about it, and that it is written down."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from mailing import Clock
from soc.core.models import QueueSample
from soc.core.severity import Severity
from soc.events import backlog, pictures
from soc.events.management.commands import backlog as command
from soc.events.models import BacklogAction, IngestCount, StreamSettings
from soc.runtime.queues import BY_NAME

pytestmark = pytest.mark.django_db
Sample = Callable[..., None]


@pytest.fixture
def sample(clock: Clock) -> Sample:
    """Write the depths of a queue, by how many minutes ago they were."""
    clock.now = clock.now.replace(second=30, microsecond=0)

    def write(queue: str, depths: dict[float, int], dead: int = 0) -> None:
        QueueSample.objects.bulk_create(
            QueueSample(
                queue=queue,
                at=clock.now - timedelta(minutes=ago),
                depth=depth,
                consumers=1,
                dead=dead,
            )
            for ago, depth in depths.items()
        )

    return write


def taken(now: Any, counts: dict[int, int]) -> None:
    """Write how many events were stored, by how many minutes ago."""
    minute = now.replace(second=0, microsecond=0)
    IngestCount.objects.bulk_create(
        IngestCount(minute=minute - timedelta(minutes=ago), instance="test", stored=count)
        for ago, count in counts.items()
    )


def state(queue: str) -> backlog.Backlog:
    return {one.queue.name: one for one in backlog.read(timezone.now())}[queue]


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("backlog", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_a_queue_of_which_nothing_is_known_is_unknown(sample: Sample) -> None:
    sample("email", {5: 3})
    one = state("email")
    assert (one.depth, one.age, one.change, one.to_drain) == (None, None, None, None)


def test_an_empty_queue_is_empty(sample: Sample) -> None:
    sample("events", {1: 0, 0: 0})
    one = state("events")
    assert (one.depth, one.age, one.to_drain) == (0, None, timedelta(0))
    assert backlog.age("events", timezone.now()) is None


def test_the_oldest_task_came_after_the_queue_was_empty_last(sample: Sample) -> None:
    sample("email", {30: 5, 20: 0, 10: 4, 0: 6})
    assert state("email").age == timedelta(minutes=20)


def test_the_oldest_event_came_after_as_many_were_taken_as_there_were(
    sample: Sample, clock: Clock
) -> None:
    """A stream that has never been empty, but goes on: what waits is not as old as the backlog."""
    sample("events", {60: 0, 30: 1000, 20: 1000, 10: 1000, 0.1: 900})
    taken(clock.now, dict.fromkeys(range(60), 70))
    age = state("events").age
    # 1,000 of 20 minutes ago are gone, 1,000 of 10 minutes ago are not.
    assert age == timedelta(minutes=20)


def test_the_age_of_a_stream_that_nobody_empties_grows(sample: Sample, clock: Clock) -> None:
    sample("events", {60: 0, 30: 1000, 0.1: 2000})
    assert state("events").age == timedelta(minutes=60)
    clock.now += timedelta(seconds=50)
    assert state("events").age == timedelta(minutes=60, seconds=50)


def test_rates_tell_when_a_stream_will_be_empty(sample: Sample, clock: Clock) -> None:
    sample("events", {4: 4000, 2: 3000, 0: 2000})
    taken(clock.now, {1: 1500, 2: 1500})
    one = state("events")
    assert one.change == pytest.approx(-2000 / 240)
    assert one.taken == pytest.approx(10)
    assert one.came == pytest.approx(10 - 2000 / 240)
    assert one.to_drain == timedelta(seconds=240)


def test_a_queue_that_grows_is_never_empty(sample: Sample) -> None:
    sample("email", {4: 10, 0: 20})
    assert state("email").to_drain is None
    assert "never" in run("show")


@pytest.mark.parametrize(
    ("share", "severity"),
    [
        (0.24, Severity.OK),
        (0.25, Severity.WARNING),
        (0.49, Severity.WARNING),
        (0.5, Severity.CRITICAL),
    ],
)
def test_a_stream_whose_queue_fills_is_reported_long_before_it_is_full(
    sample: Sample, clock: Clock, share: float, severity: Severity
) -> None:
    bound = BY_NAME["events"].max_length
    sample("events", {4: 0, 0: int(share * bound)})
    sample("email", {0: 9_999})
    (one,) = backlog.conditions(clock.now)
    assert (one.subject, one.severity) == ("queue events", severity)
    assert f"{share:.0%} of what the queue holds" in one.summary
    assert one.facts["Bound"] == "2,000,000"
    left = {0.24: "12 min", 0.25: "12 min", 0.49: "4 min", 0.5: "4 min"}[share]
    assert one.facts["Full"] == f"in {left} at this rate"


def test_of_a_stream_that_nobody_has_sampled_nothing_is_said(sample: Sample, clock: Clock) -> None:
    sample("events", {5: 1_999_999})
    assert list(backlog.conditions(clock.now)) == []


def test_every_queue_is_shown(sample: Sample) -> None:
    sample("events", {4: 4000, 0: 2000}, dead=7)
    lines = run("show").splitlines()
    assert len(lines) == 1 + len(backlog.QUEUES)
    (line,) = [line for line in lines if line.startswith("events")]
    assert "2,000" in line
    assert " 7 " in line
    assert "4 min" in line


def test_nothing_is_done_without_a_confirmation(sample: Sample) -> None:
    sample("events", {0: 5})
    with pytest.raises(CommandError, match="confirm with --yes events"):
        run("drain", "events")
    with pytest.raises(CommandError, match="--yes says email, not events"):
        run("expire", "events", "--older-than=2h", "--yes=email")
    assert not BacklogAction.objects.exists()
    assert StreamSettings.objects.get().quiet_before is None


def test_a_backlog_is_drained_quietly(sample: Sample, clock: Clock) -> None:
    sample("events", {0: 5})
    run("drain", "events", "--yes=events", "--by=ann", "--reason=outage", "--no-wait")
    assert StreamSettings.objects.get().quiet_before == clock.now
    action = BacklogAction.objects.get()
    assert (action.kind, action.queue, action.by) == ("drain", "events", "ann")
    assert (action.reason, action.messages) == ("outage", 5)


def test_draining_is_watched_until_the_queue_is_empty(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample("events", {0.2: 5})
    monkeypatch.setattr(command.time, "sleep", lambda _: sample("events", {0: 0}))
    run("drain", "events", "--yes=events")


def test_old_events_are_expired(sample: Sample, clock: Clock) -> None:
    run("expire", "events", "--older-than=2h", "--yes=events")
    assert StreamSettings.objects.get().expired_before == clock.now - timedelta(hours=2)
    assert BacklogAction.objects.get().kind == "expire"


@pytest.mark.parametrize("span", ["2", "h", "0h", "-1h", "2w", "9999999999999d"])
def test_a_time_that_is_none_is_refused(span: str) -> None:
    with pytest.raises(CommandError, match="--older-than"):
        run("expire", "events", f"--older-than={span}", "--yes=events")


def test_tasks_are_only_purged(sample: Sample) -> None:
    with pytest.raises(CommandError, match="expire by themselves"):
        run("drain", "email", "--yes=email")


def test_only_a_queues_own_worker_purges_it(settings: Any) -> None:
    settings.EMBEDDED, settings.SERVICE = False, "web"
    with pytest.raises(CommandError, match="docker compose exec worker-events"):
        run("purge", "events", "--yes=events")
    assert not BacklogAction.objects.exists()


def test_a_purge_is_written_down_even_if_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError("no route")

    monkeypatch.setattr(command.app, "connection_for_read", refuse)
    with pytest.raises(CommandError, match="The broker refused: no route"):
        run("purge", "events", "--yes=events")
    action = BacklogAction.objects.get()
    assert (action.kind, action.messages, action.details) == ("purge", None, "failed: no route")


# --- The page -----------------------------------------------------------------------------------


def test_a_picture_has_the_highest_depth_of_each_five_minutes(sample: Sample, clock: Clock) -> None:
    sample("events", {61: 5, 62: 40, 63: 7, 0: 3})
    picture = pictures.of_day(clock.now)["events"]
    assert picture.highest == 40
    assert [depth for depth in picture.depths if depth is not None] == [40, 3]
    assert picture.unknown == pictures.STEPS - 2
    assert picture.path.count("M") == picture.path.count("z") == 2


def test_a_single_message_does_not_fill_the_picture() -> None:
    assert "V108.2" in pictures.BacklogPicture([1]).path
    assert "V2.0" in pictures.BacklogPicture([500]).path


@pytest.mark.usefixtures("plain_static_files")
def test_the_page_shows_every_queue_with_its_picture(
    sample: Sample, browser: Client, django_assert_max_num_queries: Any
) -> None:
    for queue in ("events", "email", "shared"):
        sample(queue, dict.fromkeys(range(0, 300), 100), dead=2)
    BacklogAction.objects.create(queue="events", kind="purge", by="ann", reason="<b>", messages=9)
    with django_assert_max_num_queries(25):
        page = browser.get("/queues/", secure=True).content.decode()
    assert page.count('class="depth"') == len(backlog.QUEUES)
    assert "less than" in page
    assert "&lt;b&gt;" in page
    assert 'style="' not in page
