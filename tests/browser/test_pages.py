"""What a person sees: sign-in, the board and the admin of a running stack."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from soc.runtime.queues import QUEUES

Shoot = Callable[[Page, str], None]

SCHEDULES = "/admin/django_celery_beat/periodictask/"
ENDPOINTS = "/admin/ssl_certs/endpoint/"
REFRESH = 25_000
"""Milliseconds in which the board has refreshed itself at least once."""


def refresh(page: Page) -> None:
    """Make the board refresh itself now, as when a person comes back to its tab."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def run_action(page: Page, row: str, action: str) -> None:
    """Run an admin action on the row with this text."""
    page.get_by_role("row").filter(has_text=row).first.get_by_role("checkbox").check()
    page.locator("select[name=action]").select_option(label=action)
    page.locator("button[name=index]").click()


# --- Sign-in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/board/live/", "/admin/", SCHEDULES, ENDPOINTS, "/admin/login/"]
)
def test_every_page_asks_for_a_sign_in(context: BrowserContext, path: str) -> None:
    response = context.request.get(path)
    assert re.search(r"/sign-in/(\?|$)", response.url)


def test_only_the_health_check_is_open(context: BrowserContext) -> None:
    response = context.request.get("/healthz")
    assert (response.status, response.text()) == (200, "ok\n")


def test_a_wrong_password_shows_an_error(page: Page, shoot: Shoot) -> None:
    page.goto("/")
    shoot(page, "sign-in")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("correct username and password")
    shoot(page, "sign-in-refused")


def test_sign_in_and_out(signed_in: Page) -> None:
    expect(signed_in).to_have_title(re.compile("Board"))
    signed_in.get_by_role("button", name="Sign out").click()
    expect(signed_in.get_by_label("User name")).to_be_focused()
    signed_in.goto("/")
    expect(signed_in.get_by_label("Password")).to_be_visible()


# --- The board ----------------------------------------------------------------------------------


def test_the_board_shows_queues_beat_and_certificates(signed_in: Page, shoot: Shoot) -> None:
    for queue in QUEUES:
        expect(signed_in.get_by_role("article", name=queue.name)).to_be_visible()
    beat = signed_in.get_by_role("region", name="Beat")
    expect(beat.get_by_role("link", name="sample the queues")).to_be_visible()
    certificates = signed_in.get_by_role("region", name="Certificates")
    expect(certificates.get_by_role("table")).to_be_visible()
    shoot(signed_in, "board")


def test_the_board_refreshes_itself_and_keeps_the_focus(signed_in: Page) -> None:
    before = signed_in.locator("#refreshed").inner_text()
    link = signed_in.get_by_role("region", name="Beat").get_by_role("link").first
    link.focus()
    expect(signed_in.locator("#refreshed")).not_to_have_text(before, timeout=REFRESH)
    expect(link).to_be_focused()


def test_a_lost_connection_is_told_and_forgotten_when_it_is_back(
    signed_in: Page, shoot: Shoot
) -> None:
    signed_in.route("**/board/live/", lambda route: route.abort())
    refresh(signed_in)
    lost = signed_in.get_by_role("alert")
    expect(lost).to_contain_text(re.compile(r"Connection lost, last update \d\d:\d\d:\d\d"))
    shoot(signed_in, "board-connection-lost")
    signed_in.unroute("**/board/live/")
    refresh(signed_in)
    expect(lost).to_be_hidden()


def test_the_board_goes_to_sign_in_when_the_session_has_ended(signed_in: Page) -> None:
    signed_in.context.clear_cookies()
    refresh(signed_in)
    signed_in.wait_for_url("**/sign-in/?next=/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_board_fits_a_phone(signed_in: Page, shoot: Shoot, scheme: str) -> None:
    signed_in.emulate_media(color_scheme=scheme)
    signed_in.set_viewport_size({"width": 390, "height": 844})
    assert signed_in.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(signed_in, f"board-phone-{scheme}")


def test_the_board_loads_nothing_from_elsewhere_and_logs_no_error(
    signed_in: Page, url: str
) -> None:
    asked, errors = [], []
    signed_in.on("request", lambda request: asked.append(request.url))
    signed_in.on("console", lambda message: errors.append(message.text))
    signed_in.on("pageerror", lambda error: errors.append(str(error)))
    signed_in.goto("/", wait_until="networkidle")
    assert [address for address in asked if not address.startswith(url)] == []
    assert errors == []


# --- The admin ----------------------------------------------------------------------------------


def test_schedules_show_their_next_run_and_run_now(signed_in: Page, shoot: Shoot) -> None:
    signed_in.goto(SCHEDULES)
    row = signed_in.get_by_role("row").filter(has_text="housekeeping")
    expect(row).to_contain_text("03:20:00")
    shoot(signed_in, "schedules")
    run_action(signed_in, "sample the queues", "Run now")
    expect(signed_in.locator("body")).to_contain_text("Beat will start it within 5 s")
    shoot(signed_in, "schedules-run-now")


def test_an_endpoint_is_scanned_now(signed_in: Page, shoot: Shoot) -> None:
    signed_in.goto(ENDPOINTS)
    shoot(signed_in, "endpoints")
    signed_in.locator("#result_list tbody a").first.click()
    shoot(signed_in, "endpoint")
    signed_in.get_by_role("button", name="Save and scan now").click()
    expect(signed_in.locator("body")).to_contain_text("beat will start it within 5 s")
    shoot(signed_in, "endpoint-scan-now")


def test_endpoints_are_scanned_now_from_their_list(signed_in: Page) -> None:
    signed_in.goto(ENDPOINTS)
    run_action(signed_in, "web:8443", "Scan now")
    expect(signed_in.locator("body")).to_contain_text("Scans requested: 1.")


@pytest.mark.parametrize(
    "name",
    [
        *("ssl_certs/certificate", "ssl_certs/observation", "ssl_certs/authority"),
        *("notify/subscription", "notify/outboundmail"),
        *("core/heartbeat", "core/queuesample", "core/taskfailure", "auth/user"),
    ],
)
def test_lists_open(signed_in: Page, shoot: Shoot, name: str) -> None:
    response = signed_in.goto(f"/admin/{name}/")
    assert response is not None
    assert response.status == 200
    shoot(signed_in, name.replace("/", "-"))


def test_flower_asks_for_a_password(context: BrowserContext, flower_url: str) -> None:
    assert context.request.get(flower_url).status == 401
