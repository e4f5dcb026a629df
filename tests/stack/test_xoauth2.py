"""A Postfix that takes no password but tokens, which its Dovecot asks oidc-provider about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import real_relays
from harness import missing, new_name, run, wait_until_equal
from identity_provider import FOLDER, Provider
from mailing import NOTICE, Clock, states
from real_relays import PORT, RealRelay
from soc.notify import delivery, health, outbox, smtp, xoauth2
from soc.notify.models import OutboundMail, Subscription

pytestmark = pytest.mark.django_db

CLIENT = "soc-mail"
SECRET = "kept by the site + the relay: 100%2B"
ASKING = {"client_id": "dovecot", "client_secret": "asks-for-the-relay"}
DOVECOT = """
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
log_path = /dev/stderr
auth_mechanisms = xoauth2
ssl = no
ssl_client_ca_file = /site/ca.pem
passdb oauth2 {{
}}
oauth2 {{
  introspection_mode = post
  introspection_url = https://{login}@{where}/token/introspection
  force_introspection = yes
  username_attribute = client_id
  active_attribute = active
  active_value = true
}}
service auth {{
  unix_listener /var/spool/postfix/private/auth {{
    mode = 0666
  }}
}}
protocols =
"""


@dataclass
class Party:
    """The relay, and the provider that it asks."""

    relay: RealRelay
    provider: Provider


@pytest.fixture
def party(settings: Any, tmp_path: Path) -> Iterator[Party]:
    if shutil.which("node") is None or not (FOLDER / "node_modules").is_dir():
        missing("there is no node, or no `npm ci` in tests/stack/oidc")
    image = real_relays.image_with("postfix dovecot-core")
    relay = RealRelay("Postfix", f"soc-{new_name()}-relay")
    # It waits for what names its own provider.
    command = "until [ -s /site/ready ]; do sleep 0.2; done; echo token >/mode; exec start"
    run("docker", "run", "--detach", f"--name={relay.container}", image, "sh", "-c", command)
    gateway = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}"
    host = run("docker", "inspect", f"--format={gateway}", relay.container).strip()
    folder = tmp_path / "provider"
    folder.mkdir()
    method = {"token_endpoint_auth_method": "client_secret_post"}
    provider = Provider(
        folder,
        "https://localhost/back/",
        {},
        host=host,
        address=host,
        programs=[{"client_id": CLIENT, "client_secret": SECRET, **method}, ASKING],
    )
    provider.start()
    site = tmp_path / "site"
    site.mkdir()
    where, login = provider.issuer.removeprefix("https://"), ":".join(ASKING.values())
    (site / "dovecot.conf").write_text(DOVECOT.format(where=where, login=login))
    shutil.copy(provider.authority, site / "ca.pem")
    (site / "ready").write_text("yes")
    run("docker", "cp", f"{site}/.", f"{relay.container}:/site")
    relay.wait()
    (site / "smtp_password").write_text(SECRET)
    settings.IDENTITY = site
    settings.SMTP_HOST, settings.SMTP_PORT, settings.SMTP_SECURITY = relay.host, PORT, "none"
    settings.SMTP_USER = settings.SMTP_OAUTH_CLIENT_ID = CLIENT
    settings.SMTP_OAUTH_URL = f"{provider.issuer}/token"
    settings.MAIL_FROM = "soc@health.internal"
    Subscription.objects.create(name="ops", recipients="ops@health.internal")
    yield Party(relay, provider)
    smtp.close()
    xoauth2.drop()
    provider.stop()
    relay.remove()


def send(number: int) -> int:
    smtp.close()
    outbox.enqueue(NOTICE, f"occasion {number}")
    return delivery.send_due()


def test_mail_goes_out_by_token_and_waits_without_one(
    party: Party, clock: Clock, settings: Any
) -> None:
    assert send(1) == 1, health.relay_state().error
    kept = xoauth2._token
    assert kept
    assert send(2) == 1
    assert xoauth2._token is kept, "one token for several sessions"
    # One that the relay refuses is replaced, as one that was revoked.
    kept["access_token"] = "revoked"
    assert send(3) == 1, health.relay_state().error
    assert xoauth2._token is not kept
    # The endpoint refuses the client: a matter of the site, and no mail's.
    xoauth2.drop()
    (settings.IDENTITY / "smtp_password").write_text("another")
    assert send(4) == 0
    assert "invalid_client" in health.relay_state().error
    assert states() == {"sent": 3, "queued": 1}
    (settings.IDENTITY / "smtp_password").write_text(SECRET)
    clock.move(minutes=1)
    assert delivery.send_due() == 1
    assert health.relay_state() == health.RelayState()
    mails = OutboundMail.objects.all()
    expected = {(mail.message_id, "ops@health.internal"): 1 for mail in mails}
    wait_until_equal("the copies", lambda: dict(party.relay.copies()), expected)
    # A token that has ended, and an endpoint that is away.
    assert xoauth2._token
    xoauth2._token["expires_at"] = 0
    party.provider.stop()
    assert send(5) == 0
    assert "no token from" in health.relay_state().error
    party.provider.start()
