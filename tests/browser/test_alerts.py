"""The alerts' pages in a browser: by keyboard, by mouse, without script, and while they refresh."""

import re
import secrets
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from conftest import sign_in
from harness import Stack, missing

Shoot = Callable[[Page, str], None]

OPEN = 2_000
PEOPLE = {"an-operator": "Operators", "a-viewer": "Viewers"}
SAMPLE = """
from datetime import timedelta
from django.contrib.auth.models import Group, User
from django.utils import timezone
from soc.alerts.models import Alert, AlertEvent, Rule, Subject

now = timezone.now()
rule, _ = Rule.objects.get_or_create(application="browser", name="sample")


def raise_alerts(site, count, severity=20, state="firing"):
    subjects = Subject.objects.bulk_create(
        Subject(rule=rule, name=f"{site}-{n}", fingerprint=f"{site}-{n}", site=site)
        for n in range(count)
    )
    alerts = Alert.objects.bulk_create(
        Alert(
            rule=rule, subject=subject, open_key=subject.fingerprint, site=site, state=state,
            severity=severity, opened_at=now - timedelta(minutes=5000 - n), last_seen_at=now,
            summary="It does not answer.", facts={"port": "443"},
        )
        for n, subject in enumerate(subjects)
    )
    AlertEvent.objects.bulk_create(
        AlertEvent(alert=alert, at=alert.opened_at, kind="fired", after=state, severity=severity)
        for alert in alerts
    )
    if count < 10:
        for subject, alert in zip(subjects, alerts):
            Subject.objects.filter(pk=subject.pk).update(alert=alert)
"""


@pytest.fixture(scope="module")
def sample(stack: Stack) -> Iterator[dict[str, str]]:
    """Two people, and open alerts: few at a site of each test's own, and very many at one."""
    passwords = {name: secrets.token_urlsafe(16) for name in PEOPLE}
    people = "".join(
        f"User.objects.create_user({name!r}, password={passwords[name]!r})"
        f".groups.add(Group.objects.get(name={group!r}))\n"
        for name, group in PEOPLE.items()
    )
    sites = ("keyboard", "mouse", "timeline", "silence", "livid", "looks", "plain", "viewing")
    few = "".join(f"raise_alerts({site!r}, 5, 30)\n" for site in sites)
    few += "raise_alerts('live', 5, 30, 'acknowledged')\n"
    many = f"raise_alerts('many', 250, 10)\nraise_alerts('flood', {OPEN - 290})\n"
    stack.python("web", SAMPLE + people + few + many)
    yield passwords
    names = list(PEOPLE)
    stack.python(
        "web", f"{SAMPLE}\nrule.delete()\nUser.objects.filter(username__in={names}).delete()"
    )


@pytest.fixture(scope="module")
def cookies(chromium: Browser | None, stack: Stack, sample: dict[str, str]) -> dict[str, object]:
    """What a browser stores of each person's sign-in."""
    if chromium is None:
        missing("chromium is not installed")
    stored = {}
    for name, password in sample.items():
        context = chromium.new_context(base_url=stack.url, ignore_https_errors=True)
        page = context.new_page()
        sign_in(page, password, name)
        page.wait_for_selector("#live")
        stored[name] = context.storage_state()
        context.close()
    return stored


Enter = Callable[..., Page]


@pytest.fixture
def enter(chromium: Browser, url: str, cookies: dict[str, object]) -> Iterator[Enter]:
    """Open a page as a person who has signed in."""
    contexts: list[BrowserContext] = []

    def open_page(path: str, person: str = "an-operator", **options: object) -> Page:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = chromium.new_context(
            base_url=url, ignore_https_errors=True, storage_state=cookies[person], **options
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()


def row(page: Page, name: str) -> object:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def under_a_strict_policy(route: Route) -> None:
    """Answer as a server does that allows nothing inline; the browser complains of breaches."""
    answer = route.fetch()
    policy = {"content-security-policy": "default-src 'self'"}
    route.fulfill(response=answer, headers=answer.headers | policy)


def refresh(page: Page) -> None:
    """Make the page refresh itself now, as when a person comes back to its tab."""
    with page.expect_response(re.compile("/live/")):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_alerts_are_acknowledged_by_keyboard_alone(enter: Enter, shoot: Shoot) -> None:
    page = enter("/alerts/?site=keyboard")
    for key in ("j", "x", "ArrowDown", "ArrowDown", "x", "k"):
        page.keyboard.press(key)
    expect(page.get_by_role("checkbox", name="keyboard-1")).to_be_focused()
    expect(page.locator("#chosen")).to_have_text("2 alerts are selected")
    page.keyboard.press("a")
    dialog = page.get_by_role("dialog", name="Acknowledge 2 alerts")
    expect(dialog.get_by_label("Note")).to_be_focused()
    page.keyboard.type("a raj is on it")
    shoot(page, "alerts-acknowledge")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_have_text("2 alerts were acknowledged.")
    for name in ("keyboard-0", "keyboard-2"):
        expect(row(page, name)).to_contain_text("Acknowledged")
        expect(row(page, name)).to_contain_text("an-operator a raj is on it")
    expect(row(page, "keyboard-1")).to_contain_text("Firing")
    # The keyboard goes on where it was.
    page.keyboard.press("j")
    expect(page.get_by_role("checkbox", name="keyboard-2")).to_be_focused()


def test_a_range_is_resolved_by_mouse(enter: Enter) -> None:
    page = enter("/alerts/?site=mouse")
    page.get_by_role("checkbox", name="mouse-3").click()
    page.get_by_role("checkbox", name="mouse-1").click(modifiers=["Shift"])
    expect(page.locator("#chosen")).to_have_text("3 alerts are selected")
    page.get_by_role("button", name="Resolve").click()
    dialog = page.get_by_role("dialog", name="Resolve 3 alerts")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("#chosen")).to_have_text("3 alerts are selected")
    page.get_by_role("button", name="Resolve").click()
    dialog.get_by_role("button", name="Resolve").click()
    expect(page.get_by_role("status").first).to_have_text("3 alerts were resolved.")
    expect(page.locator("tr[data-alert]")).to_have_count(2)


def test_all_that_match_are_acknowledged_and_the_others_are_not(enter: Enter) -> None:
    page = enter("/alerts/?site=many&severity=info")
    page.get_by_label("All 250 that match").check()
    expect(page.locator("#chosen")).to_have_text("All 250 that match are selected")
    page.keyboard.press("a")
    dialog = page.get_by_role("dialog", name="Acknowledge all 250 alerts that match")
    expect(dialog).to_be_visible()
    refresh(page)
    expect(dialog.get_by_label("Note")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_have_text("250 alerts were acknowledged.")
    tabs = page.get_by_role("navigation", name="States")
    expect(tabs.get_by_role("link", name="Acknowledged")).to_have_text("Acknowledged 250")
    page.goto("/alerts/?site=flood")
    expect(tabs.get_by_role("link", name="Acknowledged")).to_have_text("Acknowledged 0")


def test_an_alert_has_a_page_with_its_timeline(enter: Enter, shoot: Shoot) -> None:
    page = enter("/alerts/?site=timeline")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("timeline-0: firing, critical")
    picture = page.get_by_role("img", name=re.compile("The last 24 hours: firing, critical"))
    expect(picture).to_be_visible()
    page.get_by_label("Note").fill("The vendor was called.")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("timeline-0: acknowledged, critical")
    timeline = page.get_by_role("region", name="Timeline", exact=True).get_by_role("listitem")
    expect(timeline).to_have_count(2)
    expect(timeline.last).to_contain_text("Acknowledged critical by an-operator")
    expect(timeline.last).to_contain_text("The vendor was called.")
    expect(page.get_by_text("It has not happened before.")).to_be_visible()
    shoot(page, "alert")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_silence_needs_a_reason(enter: Enter, shoot: Shoot) -> None:
    page = enter("/alerts/?site=silence")
    page.keyboard.press("j")
    page.keyboard.press("s")
    dialog = page.get_by_role("dialog", name="Silence 1 alert")
    dialog.get_by_label("Silent for").select_option(label="2 hours")
    dialog.get_by_role("button", name="Silence").click()
    expect(dialog).to_be_visible()
    shoot(page, "alerts-silence")
    dialog.get_by_label("Note").fill("They paint the room.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("1 subject is silent until")


def test_a_refresh_keeps_selection_focus_and_dialog(enter: Enter) -> None:
    page = enter("/alerts/?state=acknowledged&q=liv")
    for key in ("j", "x", "j", "x"):
        page.keyboard.press(key)
    page.keyboard.press("s")
    expect(page.get_by_role("dialog", name="Silence 2 alerts")).to_be_visible()
    page.keyboard.type("half a no")
    # Somebody else ends one of the selected alerts and acknowledges another one.
    other = enter("/alerts/")
    for address, key in (("/alerts/?q=live-0", "r"), ("/alerts/?q=livid-0", "a")):
        other.goto(address)
        for press in ("j", key, "Enter"):
            other.keyboard.press(press)
        expect(other.get_by_text("1 alert was")).to_be_visible()
    refresh(page)
    expect(row(page, "livid-0")).to_have_count(1)
    expect(row(page, "live-0")).to_have_count(0)
    # What is gone is not acted on, and the dialog says so.
    dialog = page.get_by_role("dialog", name="Silence 1 alert")
    expect(dialog.get_by_label("Note")).to_have_value("half a no")
    expect(dialog.get_by_label("Note")).to_be_focused()
    page.keyboard.press("Escape")
    kept = page.get_by_role("checkbox", name="live-1")
    expect(kept).to_be_focused()
    refresh(page)
    expect(kept).to_be_focused()
    expect(kept).to_be_checked()
    expect(page.get_by_role("checkbox", name="livid-0")).not_to_be_checked()
    expect(page.locator("#chosen")).to_have_text("1 alert is selected")


def test_two_thousand_open_alerts_are_a_page_like_any_other(enter: Enter, shoot: Shoot) -> None:
    errors: list[str] = []
    page = enter("/")
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route("**/alerts/**", under_a_strict_policy)
    answer = page.goto("/alerts/?application=browser")
    assert answer is not None
    assert len(answer.body()) < 150_000
    expect(page.locator("tr[data-alert]")).to_have_count(100)
    total = int(page.locator("#alerts").get_attribute("data-total") or 0)
    assert total > OPEN - 50
    page.get_by_label("Select the whole page").check()
    expect(page.locator("#chosen")).to_have_text("100 alerts are selected")
    refresh(page)
    expect(page.locator("input[name=alert]:checked")).to_have_count(100)
    shoot(page, "alerts-2000")
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text(f"101 to 200 of {total}")).to_be_visible()
    expect(page.locator("#chosen")).to_have_text("No alert is selected")
    assert errors == []


def test_help_and_search_have_keys_which_can_be_turned_off(enter: Enter) -> None:
    page = enter("/alerts/?site=looks")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("?jx")
    expect(page.get_by_role("searchbox")).to_have_value("?jx")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Keys are on in this browser").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("?")
    page.keyboard.press("j")
    expect(dialog).to_be_hidden()
    page.reload()
    page.keyboard.press("?")
    expect(dialog).to_be_hidden()


def test_everything_is_reached_with_the_tab_key(enter: Enter) -> None:
    page = enter("/alerts/?site=looks")
    seen = []
    for _ in range(50):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
    for name in ("search", "tab-1", "all-matching", "whole-page", "open-help"):
        assert name in seen
    assert sum(name.startswith("pick-") for name in seen) == 5
    assert [name[:7] for name in seen if name.startswith(("Acknow", "Resolv", "Silenc"))][-3:] == [
        *("Acknowl", "Resolve", "Silence")
    ]


def test_a_viewer_sees_no_buttons(enter: Enter) -> None:
    page = enter("/alerts/?site=viewing", "a-viewer")
    expect(page.locator("tr[data-alert]")).to_have_count(5)
    for key in ("j", "x", "a"):
        page.keyboard.press(key)
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("checkbox")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("viewing-0: firing, critical")
    expect(page.locator("main").get_by_role("button")).to_have_count(0)


def test_the_forms_work_without_script(enter: Enter, shoot: Shoot) -> None:
    page = enter("/alerts/?site=plain", java_script_enabled=False)
    page.get_by_role("checkbox", name="plain-1").check()
    page.get_by_label("Note").fill("By hand.")
    shoot(page, "alerts-without-script")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("1 alert was acknowledged.")).to_be_visible()
    expect(row(page, "plain-1")).to_contain_text("By hand.")
    page.get_by_label("All 5 that match").check()
    page.get_by_role("button", name="Resolve").click()
    expect(page.get_by_text("5 alerts were resolved.")).to_be_visible()
    expect(page.get_by_text("No alert matches.")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_phone(enter: Enter, shoot: Shoot, scheme: str) -> None:
    small = {"width": 390, "height": 844}
    page = enter("/alerts/?site=looks", viewport=small, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("checkbox", name="looks-0").check()
    expect(page.get_by_role("button", name="Acknowledge")).to_be_visible()
    shoot(page, f"alerts-phone-{scheme}")
    page.get_by_role("link", name="looks-0").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("looks-0: firing, critical")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, f"alert-phone-{scheme}")
