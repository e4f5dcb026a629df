"""The alerts' pages: what they list, what they let people do, and that their cost is fixed."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from soc.alerts import lists, strips
from soc.alerts.models import Alert, AlertEvent, Rule, Silence, Subject
from soc.alerts.notified import Notified
from soc.alerts.spans import in_words
from soc.core.severity import Severity
from soc.notify.models import OutboundMail

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

State, Kind = Alert.State, AlertEvent.Kind
CRITICAL, WARNING, INFO = Severity.CRITICAL, Severity.WARNING, Severity.INFO
OPERATE = "/alerts/operate/"


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def member_of(group: str) -> Client:
    user = User.objects.create_user(f"a member of {group}")
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    return member_of("Operators")


@pytest.fixture
def viewer() -> Client:
    return member_of("Viewers")


def rule(name: str = "watch/thing") -> Rule:
    application, _, short = name.partition("/")
    return Rule.objects.get_or_create(application=application, name=short)[0]


def raised(
    name: str,
    state: State = State.FIRING,
    severity: Severity = WARNING,
    hours: float = 1,
    of: str = "watch/thing",
    **values: Any,
) -> Alert:
    """An alert that was opened some hours ago."""
    opened_at = timezone.now() - timedelta(hours=hours)
    subject, _ = Subject.objects.get_or_create(
        fingerprint=f"{of} {name}", defaults={"rule": rule(of), "name": name}
    )
    values = {"opened_at": opened_at, "last_seen_at": opened_at, **values}
    alert = Alert.objects.create(
        rule=subject.rule, subject=subject, state=state, severity=severity,
        open_key=None if state == State.RESOLVED else subject.fingerprint, **values,
    )  # fmt: skip
    if alert.open_key:
        Subject.objects.filter(pk=subject.pk).update(alert=alert)
    return alert


def ended(name: str, days: float, **values: Any) -> Alert:
    """An alert that was resolved some days ago."""
    resolved_at = timezone.now() - timedelta(days=days)
    return raised(name, State.RESOLVED, hours=24 * days + 1, resolved_at=resolved_at, **values)


def listed(now: datetime, number: str = "1", **query: str) -> list[str]:
    page = lists.read_page(lists.AlertsFilter.of(query), number, now)
    return [row.alert.subject.name for row in page.rows]


def get(client: Client, path: str, **query: Any) -> str:
    response = client.get(path, query, secure=True)
    assert response.status_code == 200
    return response.content.decode()


def states() -> dict[str, str]:
    return dict(Alert.objects.values_list("subject__name", "state"))


# --- The list -----------------------------------------------------------------------------------


def test_the_worst_come_first_and_of_them_the_oldest(now: datetime) -> None:
    raised("new", severity=CRITICAL, hours=1)
    raised("mild", severity=INFO, hours=9)
    raised("old", severity=CRITICAL, hours=3)
    raised("middling", hours=5)
    assert listed(now) == ["old", "new", "middling", "mild"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["bot-1", "portal", "ldap", "quiet"]),
        ({"application": "events"}, ["bot-1"]),
        ({"application": "nothing"}, []),
        ({"rule": "certs/expiry"}, ["portal"]),
        ({"rule": "certs"}, []),
        ({"site": "victoria"}, ["ldap"]),
        ({"severity": "critical"}, ["bot-1"]),
        ({"severity": "fatal"}, []),
        ({"state": "attention"}, ["bot-1", "portal"]),
        ({"state": "acknowledged"}, ["ldap"]),
        ({"state": "nowhere"}, []),
        ({"q": "VENDOR"}, ["ldap"]),
        ({"q": "portal expires"}, ["portal"]),
        ({"q": "portal vendor"}, []),
        ({"q": "50%"}, []),
        ({"ended": "7"}, ["late"]),
        ({"ended": "30"}, ["late", "early"]),
        ({"ended": "9999"}, []),
        ({"ended": "7", "q": "nothing"}, []),
    ],
)
def test_a_filter_keeps_what_matches(
    now: datetime, query: dict[str, str], expected: list[str]
) -> None:
    raised("bot-1", State.FLAPPING, CRITICAL, of="events/bot")
    raised("portal", hours=4, of="certs/expiry", summary="It expires soon.")
    raised("ldap", State.ACKNOWLEDGED, hours=3, site="victoria", note="The vendor was called.")
    raised("quiet", State.SUPPRESSED, hours=2)
    ended("late", 2)
    ended("early", 20)
    assert listed(now, **query) == expected
    assert lists.read_page(lists.AlertsFilter.of(query), "", now).total == len(expected)


def test_a_flapping_alert_that_is_acknowledged_needs_no_attention(now: datetime) -> None:
    raised("known", State.FLAPPING, acknowledged_at=now, acknowledged_by="ann")
    raised("unknown", State.FLAPPING)
    assert listed(now, state="attention") == ["unknown"]
    page = lists.read_page(lists.AlertsFilter(), "", now)
    assert (page.total, page.waiting) == (2, 1)
    assert {row.alert.subject.name: row.waits for row in page.rows} == {
        "known": False,
        "unknown": True,
    }


def test_an_alert_that_fires_again_is_nobodys(operator: Client) -> None:
    raised("again", acknowledged_by="raj-of-yesterday")
    raised("known", State.ACKNOWLEDGED, acknowledged_by="mei-of-today")
    page = get(operator, "/alerts/")
    assert "mei-of-today" in page
    assert "raj-of-yesterday" not in page


@pytest.mark.parametrize(
    ("number", "first", "rows"), [("", 0, 100), ("2", 100, 30), ("99", 100, 30), ("x", 0, 100)]
)
def test_pages_hold_a_hundred(now: datetime, number: str, first: int, rows: int) -> None:
    for n in range(130):
        raised(f"s{n:03}", hours=200 - n)
    names = listed(now, number)
    assert (names[0], len(names)) == (f"s{first:03}", rows)


def test_tabs_count_what_the_rest_of_the_filter_leaves(now: datetime) -> None:
    raised("a", site="victoria")
    raised("b", State.ACKNOWLEDGED, site="victoria")
    raised("c", site="kelowna")
    tabs = lists.read_page(lists.AlertsFilter(site="victoria", state="firing"), "", now).tabs
    counts = {tab.label: tab.count for tab in tabs}
    assert (counts["All open"], counts["Need attention"], counts["Firing"]) == (2, 1, 1)
    assert [tab.label for tab in tabs if tab.chosen] == ["Firing"]
    assert tabs[0].query == "site=victoria"


def test_a_chosen_value_stays_on_offer_when_its_last_alert_has_gone(now: datetime) -> None:
    raised("a", site="kelowna")
    offered = lists.choices(lists.AlertsFilter(site="victoria"), now)["site"]
    assert [(choice.value, choice.chosen) for choice in offered] == [
        ("kelowna", False),
        ("victoria", True),
    ]


def test_what_strangers_wrote_stays_text(operator: Client) -> None:
    alert = raised(
        "<b>x</b>", summary="<script>alert(1)</script>", note='"><img src=x>', link="javascript:x",
        facts={"<i>fact</i>": "<u>value</u>"},
    )  # fmt: skip
    AlertEvent.objects.create(alert=alert, kind=Kind.FIRED, after=State.FIRING, severity=WARNING)
    for path in ("/alerts/", "/alerts/live/", alert.get_absolute_url()):
        page = get(operator, path)
        assert "&lt;b&gt;x" in page
        for harm in ("<b>x", "<script>alert", "<img src=x", "<i>fact", "<u>", "javascript:"):
            assert harm not in page, path


def test_pages_hold_no_inline_script_or_style(operator: Client) -> None:
    alert = raised("a")
    for path in ("/alerts/", alert.get_absolute_url()):
        page = get(operator, path)
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)


def test_two_thousand_open_alerts_make_a_page_of_a_fixed_size_and_cost(
    operator: Client, django_assert_num_queries: Callable[[int], Any]
) -> None:
    def queries_and_size() -> int:
        # Session, user, two of permissions; counts, rows, rules, sites.
        with django_assert_num_queries(8):
            return len(get(operator, "/alerts/"))

    for n in range(100):
        raised(f"subject-{n:04}", summary="It does not answer.", site="victoria")
    one_page = queries_and_size()
    subjects = Subject.objects.bulk_create(
        Subject(rule=rule(), name=f"more-{n}", fingerprint=f"more-{n}") for n in range(1900)
    )
    at = timezone.now()
    Alert.objects.bulk_create(
        Alert(
            rule=subject.rule, subject=subject, open_key=subject.fingerprint, severity=WARNING,
            state=State.FIRING, opened_at=at, last_seen_at=at, summary="x" * 2000, note="y" * 2000,
        )
        for subject in subjects
    )  # fmt: skip
    assert queries_and_size() < one_page + 2_000
    assert one_page < 120_000


# --- One alert ----------------------------------------------------------------------------------


def test_an_alert_shows_its_timeline_and_what_it_was_raised_on(operator: Client) -> None:
    alert = raised("portal", State.ACKNOWLEDGED, facts={"port": "443"}, link="/admin/x/")
    Rule.objects.update(runbook="https://wiki.health.internal/portal")
    late = alert.opened_at - timedelta(minutes=5)
    for kind, by, text, observed_at in (
        (Kind.FIRED, "", "It is down.", late),
        (Kind.ACKNOWLEDGED, "raj", "I look at it.", None),
    ):
        AlertEvent.objects.create(
            alert=alert, at=alert.opened_at, kind=kind, after=State.FIRING, severity=WARNING,
            by=by, text=text, observed_at=observed_at,
        )  # fmt: skip
    page = get(operator, alert.get_absolute_url())
    assert page.index("It is down.") < page.index("I look at it.")
    for part in ("<b>raj</b>", "observed ", "<dt>port</dt>", 'href="/admin/x/"', "wiki.health"):
        assert part in page


def test_an_event_time_near_the_writing_is_not_repeated() -> None:
    at = timezone.now()
    for seconds, shown in ((0, False), (60, False), (61, True), (-61, True)):
        event = AlertEvent(at=at, observed_at=at - timedelta(seconds=seconds))
        assert (lists.TimelineEntry(event, Notified()).observed_at is not None) is shown


def test_a_long_timeline_keeps_its_end(now: datetime) -> None:
    alert = raised("a")
    AlertEvent.objects.bulk_create(
        AlertEvent(alert=alert, at=now - timedelta(minutes=300 - n), kind=Kind.REMINDED,
                   after=State.FIRING, severity=WARNING, text=str(n))
        for n in range(230)
    )  # fmt: skip
    detail = lists.read_detail(alert, now)
    assert detail.left_out == 30
    assert [entry.event.text for entry in detail.entries] == [str(n) for n in range(30, 230)]


def test_the_last_time_it_happened_is_told(operator: Client, now: datetime) -> None:
    for days in range(1, 8):
        before = ended("bot", days, acknowledged_by="mei", note=f"{days} days ago")
        if days < 3:
            AlertEvent.objects.create(
                alert=before, kind=Kind.FIRED, after=State.FIRING, severity=WARNING
            )
    ended("another", 1)
    episodes = lists.read_detail(raised("bot"), now).episodes
    assert [episode.alert.note for episode in episodes] == [f"{n} days ago" for n in range(1, 6)]
    assert [episode.fired for episode in episodes] == [True, True, False, False, False]
    assert {episode.length for episode in episodes} == {"1 h 00 min"}


def test_the_mails_of_an_alert_are_listed_with_their_states(operator: Client) -> None:
    alert, other = raised("a"), raised("b")
    for key, topic, state in (("1", alert.topic, "sent"), ("2", other.topic, "failed")):
        OutboundMail.objects.create(
            dedupe_key=key, topic=topic, state=state, recipients=[], subject=f"mail {key}"
        )
    page = get(operator, alert.get_absolute_url())
    assert "mail 1" in page
    assert "mail 2" not in page


def test_an_unknown_alert_is_not_found(operator: Client) -> None:
    assert operator.get("/alerts/1/", secure=True).status_code == 404
    assert operator.get("/alerts/x/", secure=True).status_code == 404


def test_the_cost_of_an_alert_does_not_depend_on_its_history(
    operator: Client, now: datetime, django_assert_num_queries: Callable[[int], Any]
) -> None:
    alert = raised("a")

    def add(count: int) -> None:
        for n in range(count):
            ended("a", n + 1)
            AlertEvent.objects.create(
                alert=alert, at=now, kind=Kind.FIRED, after=State.FIRING, severity=WARNING
            )
            OutboundMail.objects.create(
                dedupe_key=f"{count} {n}", topic=alert.topic, recipients=[], subject="s"
            )

    for count in (1, 20):
        add(count)
        # Session, user, two of permissions; alert, timeline, episodes, mails, two of the strip.
        with django_assert_num_queries(10):
            get(operator, alert.get_absolute_url())


# --- Operating ----------------------------------------------------------------------------------


def operate(client: Client, action: str, *alerts: Alert, query: str = "", **values: Any) -> str:
    """Post an action and return the page that follows, with its message."""
    data = {"action": action, "alert": [alert.pk for alert in alerts], **values}
    response = client.post(f"{OPERATE}{query}", data, secure=True, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def test_selected_alerts_are_acknowledged_with_a_note(operator: Client) -> None:
    chosen, other = raised("a"), raised("b")
    assert "1 alert was acknowledged." in operate(operator, "acknowledge", chosen, note="I know.")
    assert states() == {"a": State.ACKNOWLEDGED, "b": State.FIRING}
    chosen.refresh_from_db()
    assert (chosen.acknowledged_by, chosen.note) == ("a member of Operators", "I know.")
    assert other.events.count() == 0


def test_what_could_not_be_acknowledged_is_told(operator: Client) -> None:
    page = operate(operator, "acknowledge", raised("a"), raised("b", State.SUPPRESSED))
    assert "1 alert was acknowledged. 1 could not be" in page
    assert "0 alerts were acknowledged. 1 could not be" in operate(
        operator, "acknowledge", raised("c", State.ACKNOWLEDGED)
    )


def test_all_that_match_are_the_ones_that_were_there_to_be_seen(operator: Client) -> None:
    raised("seen", site="victoria")
    raised("elsewhere", site="kelowna")
    newest = raised("seen too", severity=CRITICAL, site="victoria").pk
    raised("later", site="victoria")
    page = operate(operator, "resolve", query="?site=victoria", scope="all", newest=newest)
    assert "2 alerts were resolved." in page
    assert [name for name, state in states().items() if state == State.RESOLVED] == [
        "seen",
        "seen too",
    ]


def test_all_of_a_page_that_was_not_read_is_refused(operator: Client) -> None:
    raised("a")
    assert "Nothing was done." in operate(operator, "resolve", scope="all")
    assert states() == {"a": State.FIRING}


def test_a_silence_needs_a_reason_and_lasts_as_long_as_asked(operator: Client) -> None:
    alert = raised("a")
    assert "A silence needs a reason" in operate(operator, "silence", alert)
    assert "A silence needs a reason" in operate(operator, "silence", alert, note="x" * 201)
    assert not Silence.objects.exists()
    page = operate(operator, "silence", alert, note="They paint the room.", minutes=30)
    assert "1 subject is silent until" in page
    silence = Silence.objects.get()
    assert silence.ends_at - silence.starts_at == timedelta(minutes=30)
    assert silence.created_by == "a member of Operators"


def test_a_note_goes_to_the_timeline(operator: Client) -> None:
    alert = raised("a")
    assert "An empty note says nothing." in operate(operator, "note", alert, note="  ")
    assert "The note is in the timeline." in operate(operator, "note", alert, note="Called.")
    assert list(alert.events.values_list("kind", "text")) == [("noted", "Called.")]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"alert": ["x", "", "-1", "9" * 40]},
        {"action": "explode"},
        {"scope": "everything"},
        {"scope": "all", "newest": "x"},
        {"minutes": "7"},
        {"note": "x" * 2001},
    ],
)
def test_a_bad_request_does_nothing_and_says_so(operator: Client, values: dict[str, Any]) -> None:
    alert = raised("a")
    data = {"action": "acknowledge", "alert": [alert.pk] if values else [], **values}
    page = operator.post(OPERATE, data, secure=True, follow=True).content.decode()
    assert "Nothing was done" in page
    assert states() == {"a": State.FIRING}


@pytest.mark.parametrize(
    ("back", "target"),
    [
        ("/", "/"),
        ("/alerts/?site=x&page=2", "/alerts/?site=x&page=2"),
        ("", "/alerts/"),
        ("https://elsewhere.test/", "/alerts/"),
        ("//elsewhere.test/", "/alerts/"),
        ("/\\elsewhere.test/", "/alerts/"),
        ("javascript:alert(1)", "/alerts/"),
    ],
)
def test_the_way_back_leads_nowhere_else(operator: Client, back: str, target: str) -> None:
    response = operator.post(OPERATE, {"action": "resolve", "back": back}, secure=True)
    assert (response.status_code, response["Location"]) == (302, target)


# --- Who may ------------------------------------------------------------------------------------


def test_a_viewer_sees_no_buttons_and_may_not_act(viewer: Client) -> None:
    alert = raised("a")
    for path in ("/", "/alerts/", alert.get_absolute_url()):
        page = get(viewer, path)
        assert "a</a>" in page or "a: firing" in page
        assert 'name="action"' not in page
        assert 'name="alert"' not in page
    data = {"action": "acknowledge", "alert": [alert.pk]}
    assert viewer.post(OPERATE, data, secure=True).status_code == 403
    assert states() == {"a": State.FIRING}


def test_a_person_without_a_role_sees_the_headline_and_no_alert() -> None:
    client = Client()
    client.force_login(User.objects.create_user("bob"))
    alert = raised("portal.internal", severity=CRITICAL)
    for path in (
        "/alerts/",
        "/alerts/live/",
        alert.get_absolute_url(),
        f"/alerts/{alert.pk}/live/",
    ):
        refused = client.get(path, secure=True)
        assert refused.status_code == 403
        assert "lacks the permission" in refused.content.decode()
    page = get(client, "/")
    assert "1 critical alert waits for a person." in page
    assert "portal.internal" not in page


def test_a_stranger_is_sent_to_the_sign_in() -> None:
    response = Client().post(OPERATE, {"action": "resolve"}, secure=True)
    assert response["Location"].startswith("/sign-in/")


def test_an_action_is_never_a_link(operator: Client) -> None:
    assert operator.get(OPERATE, secure=True).status_code == 405


def test_a_form_from_elsewhere_is_refused() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    assert client.post(OPERATE, {"action": "resolve"}, secure=True).status_code == 403


# --- Pictures -----------------------------------------------------------------------------------

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ago(hours: float) -> datetime:
    return NOON - timedelta(hours=hours)


def test_a_strip_without_changes_is_one_long_calm() -> None:
    calm = strips.strip([], NOON)
    assert [(s.value, s.x, s.width) for s in calm.segments] == [(strips.NOTHING, 0, 1440)]
    assert calm.in_words == "no alert for 1 d 0 h"


def test_a_strip_begins_with_the_state_it_finds_and_joins_what_is_equal() -> None:
    made = strips.strip(
        [
            (ago(30), State.FIRING, WARNING),
            (ago(20), State.FIRING, WARNING),
            (ago(12), State.FIRING, CRITICAL),
            (ago(6), State.ACKNOWLEDGED, CRITICAL),
            (ago(2), State.RESOLVED, CRITICAL),
        ],
        NOON,
    )
    assert [(s.value.label, s.x, s.width) for s in made.segments] == [
        ("firing, warning", 0, 720),
        ("firing, critical", 720, 360),
        ("acknowledged, critical", 1080, 240),
        ("no alert", 1320, 120),
    ]
    assert [s.value.tone for s in made.segments] == ["warn", "bad", "bad", "ok"]
    assert made.in_words.startswith("firing, warning for 12 h 00 min; firing, critical for 6 h")


def test_every_state_has_a_height_of_its_own_but_the_two_quiet_ones() -> None:
    heights = [strips.HEIGHTS[state] for state in State if state not in strips.QUIET]
    assert len(set(heights)) == len(heights)


def test_the_strip_of_a_subject_spans_its_episodes(now: datetime) -> None:
    before, current = ended("a", 0.5), raised("a", hours=2)
    forgotten = ended("a", 9)
    for alert, hours, state in (
        (forgotten, 240, State.FIRING),
        (before, 30, State.FIRING),
        (before, 12, State.RESOLVED),
        (current, 2, State.FIRING),
    ):
        AlertEvent.objects.create(
            alert=alert, at=now - timedelta(hours=hours), kind=Kind.FIRED, after=state,
            severity=WARNING,
        )  # fmt: skip
    strip = strips.of_subject(current.subject, now)
    assert [(s.value.state, round(s.width)) for s in strip.segments] == [
        (State.FIRING, 720),
        (State.RESOLVED, 600),
        (State.FIRING, 120),
    ]


def test_the_changes_of_the_site_are_counted_by_quarters_of_an_hour(now: datetime) -> None:
    now = now.replace(second=0, microsecond=0)
    alert = raised("a")
    for minutes, kind in (
        (1, Kind.FIRED),
        (14, Kind.FIRED),
        (16, Kind.RESOLVED),
        (16, Kind.NOTED),
        (1439, Kind.FIRED),
        (1500, Kind.FIRED),
    ):
        AlertEvent.objects.create(
            alert=alert, at=now - timedelta(minutes=minutes), kind=kind, after=State.FIRING,
            severity=WARNING,
        )  # fmt: skip
    changes = strips.of_site(now)
    assert (changes.fired[-1], changes.fired[0], sum(changes.fired)) == (2, 1, 3)
    assert (changes.resolved[-2], sum(changes.resolved)) == (1, 1)
    assert changes.fired_path == "M1 29v-14h8V29z M951 29v-28h8V29z"
    assert changes.resolved_path == "M941 31v14h8V31z"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599, "59 min"),
        (3600 + 5 * 60, "1 h 05 min"),
        (26 * 3600, "1 d 2 h"),
    ],
)
def test_a_span_in_words(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words
