"""Exim, OpenSMTPD and Postfix of Debian in containers, each in a mode that refuses something."""

from __future__ import annotations

import email
import mailbox
import os
import re
import smtplib
import tempfile
from collections import Counter
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from harness import (
    REPOSITORY,
    has_engine,
    has_image,
    missing,
    new_name,
    run,
    wait_for,
)

HERE = REPOSITORY / "tests" / "stack" / "relays"
PACKAGES = {"Exim": "exim4-daemon-light", "OpenSMTPD": "opensmtpd", "Postfix": "postfix"}
BASES = ("debian:trixie", "soc-offline/debian:trixie", "soc-offline/python:3.13")
PORT = 25


@dataclass
class RealRelay:
    """A relay's container; what it has filed outlives a restart."""

    software: str
    container: str
    host: str = ""

    def enter(self, mode: str) -> None:
        """Restart it in a mode (tests/stack/relays/start)."""
        run("docker", "exec", self.container, "sh", "-c", f"echo {mode} >/mode")
        run("docker", "restart", "--time=1", self.container)
        self.wait()

    def wait(self) -> None:
        """Wait until it greets, and note its address."""
        self.host = address_of(self.container)
        wait_for(self.software, self._greets)

    def _greets(self) -> str:
        try:
            with smtplib.SMTP(self.host, PORT, timeout=5) as session:
                return session.ehlo()[1].decode()
        except (OSError, smtplib.SMTPException):
            return ""

    def version(self) -> str:
        command = "dpkg-query -W exim4-daemon-light opensmtpd postfix 2>/dev/null | grep [0-9]"
        return " ".join(run("docker", "exec", self.container, "sh", "-c", command).split())

    def mails(self) -> list[Message]:
        """Return every recipient's copy that it has filed."""
        files = "cat /box/all /var/mail/vmail 2>/dev/null || true"
        with tempfile.NamedTemporaryFile(mode="w") as copy:
            copy.write(run("docker", "exec", self.container, "sh", "-c", files))
            copy.flush()
            return [email.message_from_bytes(bytes(mail)) for mail in mailbox.mbox(copy.name)]

    def copies(self) -> Counter[tuple[str, str]]:
        """Return how many copies of each mail it has filed for each recipient."""
        return Counter((mail["Message-ID"].strip(), _recipient(mail)) for mail in self.mails())

    def remove(self) -> None:
        run("docker", "rm", "--force", self.container)


def _recipient(mail: Message) -> str:
    for name in ("Envelope-to", "X-Original-To", "Delivered-To"):
        if found := mail[name]:
            return re.sub(r"\s", "", found)
    raise AssertionError(f"no recipient in {mail.items()}")


def image_with(packages: str, folder: Path = HERE) -> str:
    """Build an image of Debian with some packages and what is in a folder; return its ID."""
    if not has_engine():
        missing("no Docker engine answers")
    # Where there is a registry, the engine pulls the first.
    base = os.environ.get("DEBIAN_IMAGE") or next(filter(has_image, BASES), BASES[0])
    return run(
        "docker", "build", "--quiet", "--network=host", f"--build-arg=BASE={base}",
        f"--build-arg=PACKAGE={packages}", str(folder),
    ).strip()  # fmt: skip


def address_of(container: str) -> str:
    """Return the address of a container in the engine's own network."""
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return run("docker", "inspect", f"--format={networks}", container).strip()


def start(software: str) -> RealRelay:
    """Start a relay that takes everything for health.internal and other.internal."""
    image = image_with(PACKAGES[software])
    name = f"soc-{new_name()}-relay"
    command = ("sh", "-c", "[ -s /mode ] || echo open >/mode; exec start")
    run("docker", "run", "--detach", f"--name={name}", image, *command)
    made = RealRelay(software, name)
    made.wait()
    return made
