"""The certificates' pages in a browser: list, endpoint, import; light, dark and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from harness import Stack

Shoot = Callable[[Page, str], None]

SAMPLE = """
from datetime import timedelta
from django.utils import timezone
from soc.ssl_certs.models import Certificate, Change, Endpoint, Observation
now = timezone.now()


def certificate(name, days, issuer="CN=Example Issuing CA,O=Example", **values):
    values = {"san": [name], "key": "EC secp256r1", "signature": "ECDSA_WITH_SHA256", **values}
    return Certificate.objects.create(
        fingerprint=name.encode().hex().upper().ljust(64, "0")[:64], subject=f"CN={name}",
        issuer=issuer, not_before=now - timedelta(days=60), not_after=now + timedelta(days=days),
        **values,
    )


middle = certificate("Example Issuing CA", 900, "CN=Example Root,O=Example")
for name, status, days, reason in (
    ("looks-bad.example", "invalid", 40, "The server's certificate (depth 0) is self-signed."),
    ("looks-late.example", "error", 5, "It expires in 5 days."),
    ("looks-soon.example", "warning", 20, "It expires in 20 days."),
    ("looks-fine.example", "ok", 250, "It expires in 250 days."),
):
    leaf = certificate(name, days)
    endpoint = Endpoint.objects.create(
        host=name, enabled=True, interval_minutes=14 * 1440,
        next_scan_at=now + timedelta(days=9), certificate=leaf,
        chain=[leaf.pk, middle.pk], status=status, reason=reason, outcome="valid", scans=700,
        scanned_at=now, tls_version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384",
        fault_depth=0 if status == "invalid" else None,
    )
    Observation.objects.bulk_create(
        Observation(endpoint=endpoint, at=now - timedelta(days=day), outcome="valid",
                    status="ok" if day > 6 else status, tls_version="TLSv1.3", elapsed_ms=31)
        for day in range(29, -1, -1)
    )
    Change.objects.create(endpoint=endpoint, kind="renewed", text="Valid until 2027.", after=leaf)
"""
CLEAN = """
from soc.ssl_certs.models import Endpoint
Endpoint.objects.filter(host__startswith="looks-").delete()
Endpoint.objects.filter(host__endswith=".imported.example").delete()
"""


@pytest.fixture(scope="module", autouse=True)
def sample(stack: Stack) -> Iterator[None]:
    stack.python("web", SAMPLE)
    yield
    stack.python("web", CLEAN)


def test_from_the_list_to_an_endpoint_and_its_renewal(signed_in: Page, shoot: Shoot) -> None:
    page = signed_in
    page.get_by_role("link", name="Certificates", exact=True).first.click()
    page.get_by_label("Search").fill("looks-")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("4 endpoints match, 2 failing")
    shoot(page, "certificates")
    page.get_by_role("link", name="looks-bad.example:443").click()
    expect(page.locator(".at-fault")).to_contain_text("Depth 0")
    shoot(page, "endpoint")
    page.get_by_role("button", name="Verify renewal now").click()
    expect(page.get_by_role("status").first).to_contain_text("Every address is asked now")
    expect(page.locator("#live")).to_contain_text("Unreachable", timeout=60_000)


def test_an_import_says_what_it_would_do_first(signed_in: Page, shoot: Shoot) -> None:
    page = signed_in
    page.goto("/certificates/import/")
    text = "a.imported.example\nb.imported.example:8443 www.example.org\nbad..name\n192.0.2.0/29"
    page.get_by_label("Hosts, address ranges, or CSV").fill(text)
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("button", name="Watch 2 endpoints, Search 6 addresses")).to_be_visible()
    shoot(page, "certificates-import")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_phone(signed_in: Page, shoot: Shoot, scheme: str) -> None:
    page = signed_in
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    for path, name in (("/certificates/?q=looks-", "list"), ("/certificates/import/", "import")):
        page.goto(path)
        width = page.evaluate("document.documentElement.scrollWidth")
        shoot(page, f"certificates-{name}-phone-{scheme}")
        assert width <= 390
