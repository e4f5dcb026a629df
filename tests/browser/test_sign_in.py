"""The content policy in a real browser: no page breaks it, and no page is broken by it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from conftest import sign_in
from harness import Stack

SCHEDULES = "/admin/django_celery_beat/periodictask/"
WATCH = """
document.addEventListener("securitypolicyviolation", (event) => window.violated(
    `${location.pathname}: ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


@pytest.fixture
def violations(context: BrowserContext) -> list[str]:
    """What the browser has refused to do for the pages of this context."""
    found: list[str] = []
    context.expose_binding("violated", lambda _, text: found.append(text))
    context.add_init_script(WATCH)
    return found


@pytest.fixture
def alert(stack: Stack) -> int:
    """An alert to look at."""
    return stack.data("""
from django.utils import timezone
from soc.alerts.models import Alert, Rule, Subject
rule, _ = Rule.objects.get_or_create(application="tests", name="policy")
subject, _ = Subject.objects.get_or_create(rule=rule, name="x", defaults={"fingerprint": "csp-x"})
now = timezone.now()
times = {"opened_at": now, "last_seen_at": now, "resolved_at": now}
answer = Alert.objects.create(rule=rule, subject=subject, severity=20, state="resolved", **times).pk
""")


def test_no_page_of_ours_breaks_the_policy(
    violations: list[str], signed_in: Page, alert: int
) -> None:
    for path in ("/", "/alerts/", f"/alerts/{alert}/", "/sign-in/?next=/admin/x/", "/nowhere"):
        signed_in.goto(path, wait_until="networkidle")
        expect(signed_in.locator("main")).to_be_visible()
    assert violations == []


def test_no_page_of_the_admin_breaks_the_policy(violations: list[str], signed_in: Page) -> None:
    for path in (
        *("/admin/", SCHEDULES, f"{SCHEDULES}add/", "/admin/alerts/rule/"),
        *("/admin/auth/user/1/change/", "/admin/auth/user/1/password/"),
        *("/admin/auditlog/logentry/", "/admin/axes/accessattempt/", "/admin/notify/outboundmail/"),
        *("/admin/notify/subscription/1/change/", "/admin/notify/subscription/1/preview/"),
        *("/admin/notify/subscription/1/delete/", "/admin/core/queuesample/"),
    ):
        response = signed_in.goto(path, wait_until="networkidle")
        assert response.status == 200, path
    assert violations == []


def test_the_admin_works_under_the_policy(violations: list[str], signed_in: Page) -> None:
    signed_in.goto(SCHEDULES)
    # Alpine.js: a drawer opens; its own style attributes; a select of a row shows the actions.
    signed_in.get_by_text("Filters").first.click()
    expect(signed_in.get_by_text("Requested runs")).to_be_visible()
    signed_in.keyboard.press("Escape")
    signed_in.goto(SCHEDULES)
    signed_in.locator("#result_list input[type=checkbox]").nth(1).check()
    expect(signed_in.locator("select[name=action]")).to_be_visible()
    primary = signed_in.evaluate(
        "getComputedStyle(document.documentElement).getPropertyValue('--color-primary-600')"
    )
    assert "oklch" in primary, "the theme's own style sheet was refused"
    assert violations == []


def test_an_injected_script_does_not_run(signed_in: Page) -> None:
    """What an attacker who could write into a page would try; the policy is the second wall."""
    for path in ("/", "/admin/"):
        signed_in.goto(path)
        ran = signed_in.evaluate("""async () => {
            window.ran = false;
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = '<img src="/x" onerror="window.ran=true">';
            document.body.insertAdjacentHTML("beforeend", image);
            const link = document.createElement("a");
            link.href = "javascript:window.ran=true";
            document.body.append(link);
            link.click();
            await new Promise((done) => setTimeout(done, 500));
            return window.ran;
        }""")
        assert ran is False, path


def test_no_other_page_may_frame_ours(signed_in: Page, url: str) -> None:
    frames = signed_in.evaluate(
        """async (url) => {
            const frame = document.createElement("iframe");
            frame.src = url + "/sign-in/";
            document.body.append(frame);
            await new Promise((done) => setTimeout(done, 1000));
            try { return frame.contentDocument?.title ?? "refused"; } catch { return "refused"; }
        }""",
        url,
    )
    assert frames in ("", "refused")


def test_flowers_pages_break_no_policy(
    violations: list[str], context: BrowserContext, stack: Stack
) -> None:
    password = stack.secret("flower", "password")
    page = context.new_page()
    base = stack.flower_url.replace("https://", f"https://admin:{password}@")
    for path in ("/", "/tasks", "/broker"):
        response = page.goto(f"{base}{path}", wait_until="networkidle")
        assert response.status == 200, path
    page.goto(f"{base}/")
    page.get_by_role("link", name=re.compile("email@")).first.click()
    expect(page.get_by_role("heading", name=re.compile("email@")).first).to_be_visible()
    assert violations == []


# --- Sign-in ------------------------------------------------------------------------------------


def test_the_page_of_a_lock_says_when_to_try_again(
    violations: list[str], page: Page, stack: Stack
) -> None:
    for _ in range(5):
        sign_in(page, "not the password", user="nobody-of-the-tests")
    expect(page.get_by_role("heading", name="Too many wrong sign-ins")).to_be_visible()
    expect(page.locator("main")).to_contain_text(re.compile(r"Try again at\s+\d\d:\d\d:\d\d"))
    assert violations == []
    stack.data(
        "from axes.models import AccessAttempt; answer = AccessAttempt.objects.all().delete()"
    )
