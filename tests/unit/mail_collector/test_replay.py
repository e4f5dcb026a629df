"""A recording is replayed by its own time, in a database of its own."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from robots import Stream
from soc.alerts.models import Alert, AlertEvent, Rule
from soc.events import replay
from soc.events.models import BotSeen, DeadLetter, Event

TABLES = (Alert, AlertEvent, BotSeen, DeadLetter, Event)


def told(lines: list[str], as_of: datetime | None = None) -> list[str]:
    shown: list[str] = []
    replay.replay(replay.recorded(lines), as_of, shown.append)
    return shown


def record(since: datetime, until: datetime) -> list[str]:
    out = io.StringIO()
    options = (f"--since={since.isoformat()}", f"--until={until.isoformat()}")
    call_command("events", "record", *options, stdout=out)
    return out.getvalue().splitlines()


@pytest.fixture
def recording(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Half an hour in which `a1` falls silent, of which nothing but the rules is left."""
    monkeypatch.setattr(timezone, "now", timezone.now)
    stream.place("north", "a1", "a2")
    begin = timezone.now()
    for minute in range(0, 32, 4):
        stream.clock.now = begin + timedelta(minutes=minute)
        for host in ("a1", "a2", "other") if minute < 8 else ("a2", "other"):
            stream.mail(host)
    lines = record(begin, timezone.now() + timedelta(seconds=1))
    for model in TABLES:
        model.objects.all().delete()
    return lines


def test_it_shows_what_would_have_been_alerted_and_when(recording: list[str]) -> None:
    *changes, last = told(recording)
    assert last.startswith("18 events stored, 0 refused, 0 dropped")
    assert last.endswith("1 fired")
    (fired,) = changes
    assert "fired      warning  mail_collector/bot  a1: Nothing for 20 min." in fired


def test_a_recording_is_judged_as_of_a_time(recording: list[str]) -> None:
    first = datetime.fromisoformat(json.loads(recording[0])["received_at"])
    early = told(recording, first + timedelta(minutes=15))
    assert early[-1].endswith("no alert")
    assert "8 after" in early[-1]


def test_later_than_its_last_event_the_stream_is_silent(recording: list[str]) -> None:
    last = datetime.fromisoformat(json.loads(recording[-1])["received_at"])
    assert any("events/stream" in line for line in told(recording, last + timedelta(minutes=10)))


def test_a_changed_rule_is_tried_out(recording: list[str]) -> None:
    Rule.objects.filter(application="mail_collector", name="bot").update(needed=9)
    assert told(recording)[-1].endswith("no alert")


def test_a_message_a_line_will_do_and_the_refused_are_reported(recording: list[str]) -> None:
    bare = [json.loads(line)["message"] for line in recording]
    changed = '{"host": {"name": "a1"}, "shape": 2}'
    shown = told([*bare[:5], changed, "", *bare[5:]])
    assert any("events/refused  a1: 1 message of it refused" in line for line in shown)
    assert "18 events stored, 1 refused" in shown[-1]


@pytest.mark.parametrize(
    ("lines", "words"),
    [([], "no event whose time can be read"), (['{"n": 1}'], "no event whose time can be read")],
)
def test_what_is_no_recording_is_refused(lines: list[str], words: str) -> None:
    with pytest.raises(replay.ReplayProblem, match=words):
        told(lines)


def test_the_command_leaves_the_site_as_it_is(
    recording: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its process has a database of its own, with the site's robots and settings."""
    file = tmp_path / "day.ndjson"
    file.write_text("\n".join(recording))
    call_command("events", "replay", str(file))
    shown = capfd.readouterr().out.splitlines()
    assert "mail_collector/bot  a1: Nothing for 20 min." in shown[0]
    assert [model.objects.count() for model in TABLES] == [0] * len(TABLES)
    with pytest.raises(CommandError, match="not replayed"):
        call_command("events", "replay", str(tmp_path / "none"))
    assert "No such file" in capfd.readouterr().err


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(CommandError, match="Invalid time 'noon'"):
        call_command("events", "record", "--since=noon")
