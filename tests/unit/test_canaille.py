"""Sign-in by Canaille, which sends groups for a scope of their own and asks in steps."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from harness import free_port, run, wait_for
from identity_provider import FOLDER, write_certificates
from soc.access import roles

pytestmark = [pytest.mark.drill, pytest.mark.django_db]

SITE = "https://testserver"
BACK = f"{SITE}/sign-in/provider/back/"
# Canaille takes an Authorization field as it is: what form-encoding changes would be refused.
SECRET = "kept-by-both-0123456789"
ANSWERS = {"login": "vera", "password": "vera's long pass phrase", "answer": "accept"}
_FIELD = re.compile(r"<(?:input|button)[^>]*>")


@dataclass
class Canaille:
    """A process of Canaille."""

    folder: Path
    port: int

    @property
    def issuer(self) -> str:
        return f"https://localhost:{self.port}"

    def is_up(self) -> bool:
        page = f"{self.issuer}/.well-known/openid-configuration"
        try:
            return requests.get(page, verify=str(self.folder / "ca.pem"), timeout=5).ok
        except requests.ConnectionError:
            return False

    def sign_in(self, url: str) -> str:
        """Go where the site sends a browser, answer each page; return the way back."""
        person = requests.Session()
        person.trust_env = False
        person.verify = str(self.folder / "ca.pem")
        answer = person.get(url, allow_redirects=False, timeout=20)
        for _ in range(20):
            if answer.is_redirect:
                url = urljoin(answer.url, answer.headers["Location"])
                if url.startswith(BACK):
                    return url
                answer = person.get(url, allow_redirects=False, timeout=20)
                continue
            form = fields_of(answer.text)
            assert form, f"{answer.status_code} at {answer.url}: {answer.text[:500]}"
            headers = {"Referer": answer.url}
            answer = person.post(
                answer.url, form, headers=headers, allow_redirects=False, timeout=20
            )
        raise AssertionError(f"the provider goes round in circles at {answer.url}")


def fields_of(page: str) -> dict[str, str]:
    """Return a form's hidden fields, and what the person answers."""
    form = {}
    for tag in _FIELD.findall(page):
        name, value = (re.search(rf'{word}="([^"]*)"', tag) for word in ("name", "value"))
        if name and (name[1] in ANSWERS or 'type="hidden"' in tag):
            form[name[1]] = ANSWERS.get(name[1], html.unescape(value[1] if value else ""))
    return form


@pytest.fixture(scope="module")
def canaille(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canaille]:
    made = Canaille(tmp_path_factory.mktemp("canaille"), free_port())
    write_certificates(made.folder, ["localhost", "127.0.0.1"])
    python = made.folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", str(made.folder / "venv"))
    run(str(python), "-m", "pip", "install", "-q", "canaille[front,oidc,server]==0.3.6")
    arguments = (made.folder, made.port, BACK, SECRET, ANSWERS["password"])
    with (made.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, FOLDER / "serve_canaille.py", *map(str, arguments)],
            cwd=made.folder,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for("Canaille", made.is_up)
        yield made
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def person(canaille: Canaille, settings: Any, plain_static_files: None) -> Client:
    """A browser at a site that has named the provider."""
    roles.complete()
    settings.OIDC_ISSUER = canaille.issuer
    settings.OIDC_CLIENT_ID = "soc"
    settings.OIDC_CLIENT_SECRET = SECRET
    settings.OIDC_AUTHORITIES = str(canaille.folder / "ca.pem")
    settings.OIDC_ROLES = {"soc-viewers": "Viewers"}
    return Client()


def arrive(person: Client, canaille: Canaille) -> HttpResponse:
    sent = person.get("/sign-in/provider/", secure=True)
    back = canaille.sign_in(sent["Location"])
    return person.get(back.removeprefix(SITE), secure=True)


def test_the_groups_of_a_scope_of_their_own_give_the_role(
    person: Client, canaille: Canaille, settings: Any
) -> None:
    settings.OIDC_SCOPES = ("openid", "profile", "email", "groups")
    assert arrive(person, canaille)["Location"] == "/"
    user = User.objects.get(email="vera@soc.test")
    assert list(user.groups.values_list("name", flat=True)) == ["Viewers"]


def test_without_the_scope_the_log_says_what_to_ask_for(
    person: Client, canaille: Canaille, caplog: pytest.LogCaptureFixture
) -> None:
    assert arrive(person, canaille).status_code == 403
    assert "some providers send it for a scope of its own" in caplog.text
