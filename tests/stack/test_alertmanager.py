"""Debian's Alertmanager over TLS takes what the channel posts, as alerts that begin and end."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pki
import real_relays
from harness import new_name, run, wait_for
from soc.core.severity import Severity
from soc.notify import delivery, outbox
from soc.notify.models import OutboundMail, Subscription
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db

LOGIN = "soc:let me in"
# Its password's bcrypt, the only form that web-config.yml knows.
BCRYPT = "$2b$04$6KiQRzypG8WL4QQrhHhjiOcsWgDLdP9Pt3MxR8GN8X76FRog8t2sG"
WEB = f"""
tls_server_config: {{cert_file: /site/chain.pem, key_file: /site/key.pem}}
basic_auth_users: {{soc: "{BCRYPT}"}}
"""
ROUTES = """
route: {receiver: nobody}
receivers: [{name: nobody}]
"""


@dataclass
class RealAlertmanager:
    """A running one, and how to ask it."""

    host: str
    context: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://{self.host}:9093/api/v2/alerts"

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that fire there."""
        login = base64.b64encode(LOGIN.encode()).decode()
        request = urllib.request.Request(self.url, headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, context=self.context, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def answers(self) -> bool:
        try:
            self.alerts()
        except OSError:
            return False
        return True


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    image = real_relays.image_with("prometheus-alertmanager")
    name = f"soc-{new_name()}-alertmanager"
    # It waits for its certificate, which names the address that it is given.
    command = (
        "until [ -s /site/ready ]; do sleep 0.2; done; exec prometheus-alertmanager"
        " --config.file=/site/routes.yml --web.config.file=/site/web.yml"
        " --cluster.listen-address= --storage.path=/tmp"
    )
    run("docker", "run", "--detach", f"--name={name}", image, "sh", "-c", command)
    yield name
    run("docker", "rm", "--force", name)


@pytest.fixture
def alertmanager(container: str, settings: Any, tmp_path: Path) -> RealAlertmanager:
    host = real_relays.address_of(container)
    authority = pki.issue("site", ca=True)
    identity, site = tmp_path / "identity", tmp_path / "site"
    identity.mkdir()
    site.mkdir()
    (identity / "ca.pem").write_bytes(authority.cert_pem)
    (identity / "sealing_keys").write_bytes((settings.IDENTITY / "sealing_keys").read_bytes())
    settings.IDENTITY = identity
    settings.WEBHOOK_HOSTS, settings.WEBHOOK_NETWORKS = [f"{host}:9093"], [f"{host}/32"]
    pki.write_server_files(site, pki.issue(host, authority, san=[host]))
    (site / "web.yml").write_text(WEB)
    (site / "routes.yml").write_text(ROUTES)
    (site / "ready").write_text("yes")
    run("docker", "cp", f"{site}/.", f"{container}:/site")
    made = RealAlertmanager(host, ssl.create_default_context(cafile=str(identity / "ca.pem")))
    wait_for("Alertmanager", made.answers)
    return made


def notice(severity: Severity, status: str = "firing") -> Notice:
    summary = "Port 443 does not answer."
    facts = {"Host": "h"}
    link = "https://localhost/alerts/1/"
    return Notice("h is down", severity, summary, facts, link, "tests", status)


def test_an_alert_fires_once_becomes_worse_and_ends(alertmanager: RealAlertmanager) -> None:
    subscription = Subscription(
        name="am", channel="alertmanager", url=alertmanager.url, secret=LOGIN
    )
    subscription.full_clean()
    subscription.save()
    outbox.enqueue(notice(Severity.WARNING), "opened", topic="alert:1")
    assert delivery.send_due() == 1, OutboundMail.objects.get().last_error
    (alert,) = alertmanager.alerts()
    assert alert["labels"]["severity"] == "warning"
    assert alert["labels"]["topic"] == "alert:1"
    assert alert["annotations"]["summary"] == "h is down"
    assert alert["generatorURL"] == "https://localhost/alerts/1/"
    outbox.enqueue(notice(Severity.CRITICAL), "worse", topic="alert:1")
    assert delivery.send_due() == 1
    (alert,) = alertmanager.alerts()
    assert alert["labels"]["severity"] == "critical"
    outbox.conclude(notice(Severity.INFO, "resolved"), "over", topic="alert:1")
    assert delivery.send_due() == 1
    assert alertmanager.alerts() == []


def test_a_login_that_it_refuses_goes_to_the_fallback(alertmanager: RealAlertmanager) -> None:
    Subscription.objects.create(
        name="am",
        channel="alertmanager",
        url=alertmanager.url,
        url_host=f"{alertmanager.host}:9093",
        secret="soc:another",
        fallback_recipients="boss@health.internal",
    )
    outbox.enqueue(notice(Severity.WARNING), "opened", topic="alert:2")
    delivery.send_due()
    mail = OutboundMail.objects.get(channel="alertmanager")
    assert (mail.state, mail.smtp_code) == ("failed", 401)
    assert OutboundMail.objects.filter(fallback_of=mail).exists()
    assert alertmanager.alerts() == []
