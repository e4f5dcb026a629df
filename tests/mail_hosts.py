"""Postfix with Dovecot, and Exim with Cyrus, of Debian in containers: from a login to a mailbox."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from imapclient import IMAPClient

import pki
from harness import REPOSITORY, new_name, run, wait_for
from real_relays import address_of, image_with

HERE = REPOSITORY / "tests" / "stack" / "mailhosts"
PACKAGES = {
    "Postfix and Dovecot": "postfix dovecot-imapd dovecot-lmtpd",
    "Exim and Cyrus": "exim4-daemon-light cyrus-imapd sasl2-bin libsasl2-modules-db",
}
SUBMISSION, IMAPS = 587, 993
WITH_EXPIRED_CERTIFICATE = 1000
"""What is added to a port."""

PASSWORD = "secret"
MAILBOXES = ("robot", "grey", "junk", "full", "soc")


@dataclass
class MailHost:
    """A container; what it does with a mail depends on its recipient (mailhosts/start)."""

    software: str
    container: str
    host: str
    authority: str

    def wait(self) -> None:
        """Wait until both servers greet, and make the mailboxes where nobody else does."""
        wait_for("the submission server", lambda: _greets(self.host, SUBMISSION))
        wait_for("the mailboxes' server", lambda: _greets(self.host, IMAPS))
        if self.software.endswith("Cyrus"):
            self._make_mailboxes()

    def _make_mailboxes(self) -> None:
        with self.client("cyrus") as admin:
            for user in MAILBOXES:
                admin.create_folder(f"user/{user}")
            admin.create_folder("user/junk/Junk")
            admin.setacl("user/junk/Junk", "anyone", "p")
            with self.client("full") as person:
                # Cyrus looks whether there is any room, not whether there is enough.
                person.append("INBOX", b"Subject: a large one\r\n\r\n" + 4000 * b"x")
            # By its name as a root of a quota: `set_quota` of the client names the mailbox.
            admin._imap.setquota('"user/full"', "(STORAGE 1)")

    def client(self, user: str) -> IMAPClient:
        """Return a person's mail program."""
        context = ssl.create_default_context(cadata=self.authority)
        client = IMAPClient(self.host, IMAPS, ssl_context=context, timeout=10)
        client.login(user, PASSWORD)
        return client

    def mails(self, user: str, folder: str = "INBOX") -> int:
        """Return how many mails lie in a folder."""
        with self.client(user) as client:
            return int(client.select_folder(folder, readonly=True)[b"EXISTS"])

    def run(self, command: str) -> str:
        """Run a shell command in it."""
        return run("docker", "exec", self.container, "sh", "-c", command)

    def let_certificate_expire(self) -> int:
        """Give the mailboxes' server an expired certificate; return its port."""
        if self.software.endswith("Cyrus"):
            return IMAPS + WITH_EXPIRED_CERTIFICATE
        self.run(
            "cp /site/expired.pem /site/imap.pem && doveadm -c /etc/mailhost/dovecot.conf reload"
        )
        return IMAPS

    def stop_imap(self) -> None:
        """Stop the mailboxes' server."""
        if self.software.endswith("Cyrus"):
            self.run("kill $(cat /run/cyrus.pid)")
        else:
            self.run("doveadm -c /etc/mailhost/dovecot.conf stop")
        wait_for("its end", lambda: not _greets(self.host, IMAPS))

    def remove(self) -> None:
        run("docker", "rm", "--force", self.container)


def start(software: str, folder: Path, *more: tuple[str, str]) -> MailHost:
    """Start a mail host with certificates of its own authority, and files into /site."""
    name = f"soc-{new_name()}-mailhost"
    run("docker", "run", "--detach", f"--name={name}", image_with(PACKAGES[software], HERE))
    host = address_of(name)
    authority = pki.issue("the mail host's CA", ca=True)
    good = pki.issue(host, authority, san=[host])
    day = dt.timedelta(days=1)
    expired = pki.issue(
        host, authority, san=[host], not_before=pki.NOW - 9 * day, not_after=pki.NOW - day
    )
    for file, leaf in (("good", good), ("imap", good), ("expired", expired)):
        (folder / f"{file}.pem").write_bytes(leaf.key_pem + leaf.cert_pem)
    for file, text in more:
        (folder / file).write_text(text)
    run("docker", "cp", f"{folder}/.", f"{name}:/site")
    run("docker", "exec", name, "sh", "-c", "echo yes >/site/ready")
    made = MailHost(software, name, host, authority.cert_pem.decode())
    made.wait()
    return made


def _greets(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=5) as plain:
            if port == IMAPS:
                with context.wrap_socket(plain) as secured:
                    return bool(secured.recv(100))
            return bool(plain.recv(100))
    except OSError:
        return False
