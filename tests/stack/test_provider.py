"""Sign-in by an OpenID Connect provider on the running stack.

A web server that has been told of one runs beside the site's own, on the same networks and with
the same files.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from harness import Stack, free_port, missing, run, wait_for
from identity_provider import CLIENT_SECRET, FOLDER, Provider

ACCOUNTS = {"omar": {"preferred_username": "omar", "groups": ["soc-operators"]}}


def put(stack: Stack, name: str, text: str) -> None:
    """Write a file of the web server's folder as root, for the id of the containers."""
    folder = stack.folder / "env" / stack.site / "web"
    run(
        "docker", "run", "--rm", "--interactive", "--user=0:0", "--network=none",
        "--cap-drop=ALL", "--cap-add=DAC_OVERRIDE", "--cap-add=CHOWN",
        f"--volume={folder}:/service", stack.inspect("web")["Config"]["Image"],
        "sh", "-c", f"umask 077; cat >/service/{name}; chown 999:999 /service/{name}",
        stdin=text,
    )  # fmt: skip


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def provider(
    stack: Stack, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Provider]:
    """A provider on this machine's address in the network by which containers reach the world."""
    if shutil.which("node") is None or not (FOLDER / "node_modules").is_dir():
        missing(f"node is missing, or what `npm ci` installs in {FOLDER}")
    template = "{{(index .IPAM.Config 0).Gateway}}"
    host = run("docker", "network", "inspect", f"--format={template}", f"{stack.project}_egress")
    back = f"https://localhost:{port}/sign-in/provider/back/"
    folder = tmp_path_factory.mktemp("provider")
    made = Provider(folder, back, ACCOUNTS, host=host.strip(), address=host.strip())
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def web(stack: Stack, provider: Provider, port: int) -> Iterator[str]:
    """A web server of the site with the provider's variables and files; its container's name."""
    put(stack, "oidc_client_secret", CLIENT_SECRET)
    put(stack, "oidc_ca.pem", provider.authority.read_text())
    name = f"{stack.project}-web-with-provider"
    variables = {
        "SOC_OIDC_ISSUER": provider.issuer,
        "SOC_OIDC_CLIENT_ID": "soc",
        "SOC_OIDC_ROLES": "soc-operators=Operators,soc-admins=Administrators",
    }
    options = [part for key, value in variables.items() for part in ("-e", f"{key}={value}")]
    stack.compose(
        "run", "--detach", "--no-deps", "--name", name, f"--publish=127.0.0.1:{port}:8443",
        *options, "web",
    )  # fmt: skip
    wait_for("the web server", lambda: "Booting worker" in run("docker", "logs", name))
    yield name
    run("docker", "rm", "--force", name)


def browser(stack: Stack) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.verify = str(Path(stack.folder, "env", stack.site, "ca", "ca.pem"))
    return session


def test_a_person_of_the_provider_comes_in_with_their_role(
    stack: Stack, provider: Provider, web: str, port: int
) -> None:
    person = browser(stack)
    site = f"https://localhost:{port}"
    page = person.get(f"{site}/sign-in/?next=/alerts/", timeout=20).text
    assert "Sign in with your organisation" in page
    start = f"{site}/sign-in/provider/?next=/alerts/"
    sent = person.get(start, allow_redirects=False, timeout=20)
    assert sent.status_code == 302, run("docker", "logs", "--tail=20", web)
    back = provider.sign_in(sent.headers["Location"], "omar")
    arrived = person.get(back, timeout=20)
    assert arrived.url == f"{site}/alerts/"
    assert "omar" in arrived.text
    assert person.get(f"{site}/admin/alerts/silence/add/", timeout=20).status_code == 200
    assert person.get(f"{site}/admin/auth/user/", timeout=20).status_code == 403
    assert stack.data("""
from auditlog.models import LogEntry
rows = LogEntry.objects.filter(actor__username="omar", additional_data__event="Signed in")
answer = [row.remote_addr for row in rows]
""")


def test_a_provider_that_is_down_is_told_and_local_accounts_work(
    stack: Stack, provider: Provider, web: str, port: int
) -> None:
    provider.stop()
    person = browser(stack)
    site = f"https://localhost:{port}"
    answer = person.get(f"{site}/sign-in/provider/", timeout=30)
    assert answer.status_code == 502
    assert "Local accounts can sign in as always" in answer.text
    assert "Traceback" not in answer.text
    assert f"Sign-in by {provider.issuer} failed: ConnectionError" in run("docker", "logs", web)
    page = person.get(f"{site}/sign-in/", timeout=20)
    form = {
        "csrfmiddlewaretoken": re.search(r'csrfmiddlewaretoken" value="([^"]+)', page.text)[1],
        "username": "admin",
        "password": stack.secret("migrate", "admin_password"),
    }
    arrived = person.post(page.url, form, headers={"Referer": page.url}, timeout=20)
    assert arrived.url == f"{site}/"
