"""Samba's domain controller and 389-ds of Debian in containers; they lock after three."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pki
import slapd
from harness import REPOSITORY, new_name, run
from real_relays import address_of, image_with

FOLDER = REPOSITORY / "tests" / "stack" / "real_directories"
PACKAGES = {
    "samba": "samba-ad-dc samba-ad-provision samba-dsdb-modules",
    "389-ds": "389-ds-base",
}
SUFFIXES = {"samba": "DC=corp,DC=example", "389-ds": "dc=example"}
MANAGERS = {"samba": "Administrator@corp.example", "389-ds": "cn=Directory Manager"}
COUNTS = {"samba": "badPwdCount", "389-ds": "passwordRetryCount"}


@dataclass
class RealDirectory:
    """A directory's container, reached on ports that listen at every loopback address."""

    software: str
    container: str
    version: str
    authority: str
    certificate_name: str
    tls: int = 0
    plain: int = 0
    proxies: list[slapd.Peer] = field(default_factory=list)

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.software]

    def add(self, names: Sequence[str]) -> None:
        """Add accounts: kind-number, with the password Secret-1-kind-number."""
        run("docker", "exec", self.container, f"directory-{self.software}", "kinds", *names)

    def user(self, account: str) -> str:
        people = "CN=Users," if self.software == "samba" else ""
        return f"CN={account},{people}{self.suffix}"

    def lock(self, account: str) -> None:
        """Refuse binds until the account is locked."""
        for _ in range(4):
            self._search(self.user(account), "wrong", "(objectClass=*)", check=False)

    def refused(self, account: str) -> int:
        """Return the refused binds that the directory has counted for an account."""
        said = self._search(
            *(MANAGERS[self.software], "Manager-Secret-1", f"(cn={account})"),
            COUNTS[self.software],
        )
        found = re.search(rf"^{COUNTS[self.software]}: (\d+)", said, re.MULTILINE)
        return int(found[1]) if found else 0

    def _search(self, user: str, password: str, *query: str, check: bool = True) -> str:
        return run(
            "docker", "exec", "--env=LDAPTLS_REQCERT=never", self.container, "ldapsearch", "-x",
            "-LLL", "-H", "ldaps://localhost", "-D", user, "-w", password, "-b", self.suffix,
            *query, check=check,
        )  # fmt: skip

    def remove(self) -> None:
        for proxy in self.proxies:
            proxy.__exit__()
        run("docker", "rm", "--force", "--volumes", self.container)


def start(software: str) -> RealDirectory:
    """Start a directory."""
    image = image_with(PACKAGES[software], FOLDER)
    container = f"soc-{new_name()}-directory"
    run("docker", "run", "--detach", f"--name={container}", "--hostname=dc1.corp.example", image)
    authority, name = "", "localhost.localdomain"
    if software == "samba":
        root = pki.issue("root", ca=True)
        authority, name = root.cert_pem.decode(), "dc1.corp.example"
        _copy(container, pki.issue("directory", root, san=[name]))
    version = run("docker", "exec", container, f"directory-{software}")
    if not authority:
        authority = run("docker", "exec", container, "cat", "/etc/dirsrv/slapd-one/ca.crt")
    made = RealDirectory(software, container, version, authority, name)
    host = address_of(container)
    for port in (636, 389):
        made.proxies.append(slapd.Peer(slapd.delaying(port, 0, host), address="0.0.0.0"))
    made.tls, made.plain = (proxy.port for proxy in made.proxies)
    return made


def _copy(container: str, leaf: pki.Issued) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, key = pki.write_server_files(Path(folder), leaf)
        # Samba takes no key that others may read.
        key.chmod(0o600)
        run("docker", "cp", "--quiet", folder, f"{container}:/tls")
