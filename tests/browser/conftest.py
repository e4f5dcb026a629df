"""A real browser on the running stack."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from harness import Stack, missing

SCREENSHOTS = Path(__file__).parent / "screenshots"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Shoot = Callable[[Page, str], None]

# A machine that does much else at the same time is slow, not wrong.
expect.set_options(timeout=15_000)


@pytest.fixture
def url(stack: Stack) -> str:
    return stack.url


@pytest.fixture
def flower_url(stack: Stack) -> str:
    return stack.flower_url


@pytest.fixture
def password(stack: Stack) -> str:
    return stack.secret("migrate", "admin_password")


# One browser a module, not a session: while Playwright's loop is up, Django's ORM takes the
# thread for an asynchronous one and refuses the database to other tests.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser | None]:
    path = shutil.which("chromium")
    if path is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser | None, url: str) -> Iterator[BrowserContext]:
    """A fresh browser profile that nobody has signed in with; the site's CA is private."""
    if chromium is None:
        missing("chromium is not installed")
    context = chromium.new_context(
        base_url=url, ignore_https_errors=True, viewport={"width": 1280, "height": 900}
    )
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def signed_in(page: Page, password: str) -> Page:
    """A page of the user admin, on the board."""
    sign_in(page, password)
    page.wait_for_selector("#live")
    return page


def sign_in(page: Page, password: str, user: str = "admin") -> None:
    page.goto("/")
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def shoot() -> Shoot:
    """Save a picture of a page for a person to look at."""

    def save(page: Page, name: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return save
