"""A real OpenID Connect provider for tests, and a person's way through it."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests
from cryptography import x509

import pki
from harness import REPOSITORY, free_port

FOLDER = REPOSITORY / "tests" / "stack" / "oidc"
CLIENT_SECRET = "kept by the site + the provider: 100%2B"
"""With what form-encoding changes (RFC 6749, 2.3.1), and what looks encoded and is not."""
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_ACTION = re.compile(r'<form[^>]* action="([^"]+)"')


def write_certificates(folder: Path, names: list[str]) -> None:
    """Write a CA and a certificate by it: ca.pem, cert.pem and key.pem."""
    # Python 3.13 believes no CA that does not say what it is for.
    usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
    root = pki.issue("the provider's CA", ca=True, extensions=[(x509.KeyUsage(**usage), True)])
    leaf = pki.issue(names[0], root, san=names)
    (folder / "ca.pem").write_bytes(root.cert_pem)
    (folder / "cert.pem").write_bytes(leaf.cert_pem)
    (folder / "key.pem").write_bytes(leaf.key_pem)


@dataclass
class Provider:
    """A process of the npm package oidc-provider, over TLS by a CA of its own."""

    folder: Path
    redirect_uri: str
    accounts: dict[str, dict[str, Any]]
    host: str = "localhost"
    address: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None
    programs: list[dict[str, Any]] = field(default_factory=list)
    """Clients that get tokens of their own rights."""

    @property
    def issuer(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def start(self) -> None:
        write_certificates(self.folder, list(dict.fromkeys((self.host, self.address))))
        settings = {
            "issuer": self.issuer,
            "address": self.address,
            "port": self.port,
            "cert": str(self.folder / "cert.pem"),
            "key": str(self.folder / "key.pem"),
            "accounts": self.accounts,
            "programs": self.programs,
            "client": {
                "client_id": "soc",
                "client_secret": CLIENT_SECRET,
                "redirect_uris": [self.redirect_uri],
                "post_logout_redirect_uris": [urljoin(self.redirect_uri, "/sign-in/")],
            },
        }
        (self.folder / "settings.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            ["node", FOLDER / "provider.mjs", self.folder / "settings.json"],
            stdout=subprocess.PIPE,
            stderr=(self.folder / "log").open("ab"),
            text=True,
        )
        line = self.process.stdout.readline()
        assert line == "ready\n", (self.folder / "log").read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def browser(self) -> requests.Session:
        """Return a person's browser, which keeps their session at the provider."""
        person = requests.Session()
        person.trust_env = False
        person.verify = str(self.authority)
        return person

    def sign_in(self, url: str, account: str, person: requests.Session | None = None) -> str:
        """Go where the site sends a browser, sign in and consent; return the way back."""
        person = person or self.browser()
        answer = person.get(url, allow_redirects=False, timeout=20)
        for _ in range(20):
            if answer.is_redirect:
                url = urljoin(answer.url, answer.headers["Location"])
                if url.startswith(self.redirect_uri):
                    return url
                answer = person.get(url, allow_redirects=False, timeout=20)
                continue
            form = _ACTION.search(answer.text)
            assert form, f"{answer.status_code} at {answer.url}: {answer.text[:500]}"
            fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', answer.text))
            if fields.get("prompt") == "login":
                fields |= {"login": account, "password": "any"}
            answer = person.post(
                urljoin(answer.url, form[1]), fields, allow_redirects=False, timeout=20
            )
        raise AssertionError(f"the provider goes round in circles at {answer.url}")

    def sign_out(self, url: str, person: requests.Session) -> str:
        """Go where the site sends a browser and end the session; return the way back."""
        page = person.get(url, timeout=20)
        form = _ACTION.search(page.text)
        assert form, f"{page.status_code} at {page.url}: {page.text[:500]}"
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text)) | {"logout": "yes"}
        answer = person.post(urljoin(page.url, form[1]), fields, allow_redirects=False, timeout=20)
        return answer.headers["Location"]
