"""The ends of the certificates in authorities' bundles."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

import pki
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.ssl_certs import authorities
from soc.trust.models import Authority

pytestmark = pytest.mark.django_db
DAY = pki.DAY


def anchor(name: str, days: int) -> pki.Issued:
    return pki.issue(name, ca=True, not_before=pki.NOW - 400 * DAY, not_after=pki.NOW + days * DAY)


def bundle(*anchors: pki.Issued) -> Authority:
    Authority.objects.all().delete()
    pem = b"".join(one.cert_pem for one in anchors).decode()
    return Authority.objects.create(name="partners", pem=pem)


def told(after: int = 0) -> tuple[Severity, str] | None:
    """Report twice, as bad conditions may need, and return the severity and text of the alert.

    ``after`` are minutes by which reports follow each other, within what is still news.
    """
    now = timezone.now() - timedelta(minutes=10 - after)
    authorities.report_ends(now)
    authorities.report_ends(now + timedelta(seconds=30))
    alert = Alert.objects.filter(OPEN, rule__name="authority").first()
    return (Severity(alert.severity), alert.summary) if alert else None


@pytest.mark.parametrize(
    ("days", "severity"),
    [(-1, Severity.CRITICAL), (5, Severity.CRITICAL), (20, Severity.WARNING), (100, None)],
)
def test_an_entry_that_no_path_uses_is_reported_before_it_ends(
    days: int, severity: Severity | None
) -> None:
    bundle(anchor("Fine", 3000), anchor("Old", days))
    found = told()
    assert (found[0] if found else None) == severity
    if found:
        assert found[1].startswith("CN=Old ends in" if days > 0 else "CN=Old has ended")


def test_what_a_later_certificate_of_the_name_has_replaced_is_no_news() -> None:
    bundle(anchor("Root", -100), anchor("Root", 3000), anchor("Root", 3))
    assert told() is None


def test_the_end_is_over_when_the_bundle_is_renewed_renamed_or_deleted() -> None:
    bundle(anchor("Root", 3))
    assert told()
    renewed = Authority.objects.get()
    renewed.pem = anchor("Root", 3000).cert_pem.decode()
    renewed.save()
    assert told(2) is None
    renewed.pem = anchor("Root", 3).cert_pem.decode()
    renewed.save()
    assert told(4)
    renewed.name = "others"
    renewed.save()
    assert not Alert.objects.filter(OPEN).exists()
    assert told(6)
    renewed.delete()
    assert not Alert.objects.filter(OPEN).exists()


def test_a_bundle_that_cannot_be_read_stops_no_other() -> None:
    bundle(anchor("Root", 3))
    Authority.objects.create(name="damaged", pem="-----BEGIN CERTIFICATE-----")
    assert told()
    summaries = set(Alert.objects.filter(OPEN).values_list("subject__name", "severity"))
    assert summaries == {("authority partners", 30), ("authority damaged", 30)}
