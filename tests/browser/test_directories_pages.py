"""The pages of the directory servers in a browser: the list, one server, a site, the import."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from harness import Stack

Shoot = Callable[[Page, str], None]

SITE = "Pages"
SAMPLE = f"""
import random
from datetime import timedelta
from django.utils import timezone
from soc.ldap_probe.models import DirectoryServer, ProbeResult

random.seed(1)
now = timezone.now()
states = {{"dc1": "ok", "dc2": "slow", "dc3": "down"}}
for number, (host, state) in enumerate(states.items(), 1):
    one = DirectoryServer.objects.create(
        host=host + ".pages.internal", site={SITE!r}, state=state, probed_at=now,
        # Nobody is to probe them while the pages are looked at.
        interval_minutes=1440, next_probe_at=now + timedelta(hours=23),
        detail="Search took 2.00 s (error from 1.5 s)." if state == "slow" else "",
        recent=[round(number * random.uniform(5, 9), 1) if n % 12 else None for n in range(36)],
    )
    ProbeResult.objects.bulk_create(
        ProbeResult(
            server=one, at=now - timedelta(minutes=5 * n), outcome="ok" if n % 12 else "timeout",
            error="" if n % 12 else "search_timeout", resolve_ms=1,
            connect_ms=number * random.uniform(1, 2), tls_ms=random.uniform(4, 6),
            bind_ms=2, search_ms=random.uniform(3, 5),
        )
        for n in range(280)
    )
answer = list(DirectoryServer.objects.filter(site={SITE!r}).values_list("pk", flat=True))
"""
GONE = f"""
from soc.ldap_probe.models import DirectoryServer
answer = DirectoryServer.objects.filter(site={SITE!r}).delete()
"""


@pytest.fixture(scope="module")
def keys(stack: Stack) -> Iterator[list[int]]:
    """The keys of three servers of a site, with a day of probes."""
    stack.data(GONE)
    yield stack.data(SAMPLE)
    stack.data(GONE)


def test_the_list_leads_to_a_server_and_its_phases(
    signed_in: Page, keys: list[int], shoot: Shoot
) -> None:
    signed_in.goto(f"/directories/?site={SITE}")
    expect(signed_in.locator("#state")).to_have_text("3 directory servers, 2 failing")
    shoot(signed_in, "directories")
    signed_in.get_by_role("link", name="Slow 1").click()
    expect(signed_in.locator("#servers tbody tr")).to_have_count(1)
    signed_in.get_by_role("link", name="dc2.pages.internal:636").click()
    expect(signed_in.locator("#state")).to_have_text("dc2.pages.internal:636: Slow")
    expect(signed_in.locator(".multiples svg")).to_have_count(5)
    signed_in.get_by_role("link", name="3 hours").press("Enter")
    expect(signed_in.locator("#span-3")).to_have_attribute("aria-current", "true")
    expect(signed_in.get_by_text("of 36 probes answered")).to_be_visible()
    shoot(signed_in, "directory")


def test_a_server_is_probed_now_and_the_page_shows_it_by_itself(
    signed_in: Page, stack: Stack, keys: list[int]
) -> None:
    signed_in.goto(f"/directories/{keys[2]}/")
    signed_in.get_by_role("button", name="Probe now").click()
    expect(signed_in.get_by_text("dc3.pages.internal:636 is due")).to_be_visible()
    # A name that nobody knows: the worker finds that out, and the page tells without a reload.
    expect(signed_in.get_by_text("resolve_failed").first).to_be_visible(timeout=60_000)


def test_the_servers_of_a_site_are_compared(signed_in: Page, keys: list[int], shoot: Shoot) -> None:
    signed_in.goto(f"/directories/?site={SITE}")
    signed_in.locator("#compare").click()
    expect(signed_in.locator("#title")).to_have_text(f"3 directory servers of {SITE}")
    expect(signed_in.locator("svg.beside")).to_have_count(3)
    shoot(signed_in, "directories-compared")


def test_a_table_is_tried_before_it_is_imported(
    signed_in: Page, keys: list[int], shoot: Shoot
) -> None:
    signed_in.goto("/directories/import/")
    table = f"host,site,enabled\nnew.pages.internal,{SITE},no\ndc1.pages.internal,{SITE},maybe\n"
    signed_in.locator("#text").fill(table)
    signed_in.get_by_role("button", name="Show what would be done").click()
    expect(signed_in.get_by_text("Nothing is imported: 1 of 2 lines are wrong.")).to_be_visible()
    expect(signed_in.locator("#import")).to_have_count(0)
    shoot(signed_in, "directories-import")
    signed_in.locator("#text").fill(table.replace("maybe", "yes"))
    signed_in.get_by_role("button", name="Show what would be done").click()
    signed_in.get_by_role("button", name="Import", exact=True).click()
    expect(signed_in.get_by_text("Imported: 1 new, 0 changed, 1 the same.")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_phone_and_log_no_error(
    signed_in: Page, keys: list[int], shoot: Shoot, scheme: str
) -> None:
    errors: list[str] = []
    signed_in.on("console", lambda message: errors.append(message.text))
    signed_in.on("pageerror", lambda error: errors.append(str(error)))
    signed_in.emulate_media(color_scheme=scheme)
    signed_in.set_viewport_size({"width": 390, "height": 844})
    pages = {
        "list": f"/directories/?site={SITE}",
        "server": f"/directories/{keys[0]}/",
        "compare": f"/directories/compare/?site={SITE}",
        "import": "/directories/import/",
    }
    for name, path in pages.items():
        signed_in.goto(path)
        width = signed_in.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, (name, width)
        shoot(signed_in, f"directories-phone-{name}-{scheme}")
    assert errors == []
