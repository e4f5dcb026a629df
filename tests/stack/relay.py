"""A Postfix beside a site, to be its mail relay."""

from __future__ import annotations

import mailbox
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from harness import Stack, run, wait_for
from soc.provision import pki

HERE = Path(__file__).parent / "postfix"
HOST = "relay"
BOX = "/var/mail/virtual/all"


@dataclass(frozen=True)
class Copy:
    """One recipient's copy of a mail, as the relay has filed it."""

    message_id: str
    recipient: str
    subject: str
    to: str
    client: str
    at: datetime


class Relay:
    """The relay's container; ``folder`` takes its certificates and what is read from it."""

    def __init__(self, stack: Stack, folder: Path, base: str) -> None:
        self.stack = stack
        self.folder = folder
        self.name = f"{stack.project}-relay"
        self.image = run(
            "docker", "build", "--quiet", "--network=host", f"--build-arg=BASE={base}", str(HERE)
        ).strip()

    def start(self) -> None:
        own = self.stack.folder / "env" / self.stack.site / "ca"
        self._issue("own", pki.KeyPair.load(own / "ca.pem", own / "ca.key"))
        self._issue("strange", pki.create_authority("elsewhere"))
        run("docker", "rm", "--force", self.name, check=False)
        run(
            "docker", "run", "--detach", f"--name={self.name}",
            f"--network={self.stack.project}_egress", f"--network-alias={HOST}",
            f"--volume={self.folder}:/identity:ro", self.image,
        )  # fmt: skip
        self.wait()

    def _issue(self, name: str, authority: pki.KeyPair) -> None:
        identity = pki.issue(authority, HOST, [HOST])
        (self.folder / f"{name}.pem").write_bytes(identity.key_pem + identity.certificate_pem)

    def wait(self) -> None:
        """Wait until it greets."""
        greets = ("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/587 && head -n 1 <&3")
        wait_for(
            "the relay", lambda: "220" in run("docker", "exec", self.name, *greets, check=False)
        )

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill it, and start it again in the end."""
        run("docker", "kill", self.name)
        try:
            yield
        finally:
            run("docker", "start", self.name)
            self.wait()

    def restart(self, **settings: str) -> None:
        """Restart it with other settings (postconf(5)); kept connections end."""
        values = [f"{name}={value}" for name, value in settings.items()]
        run("docker", "exec", self.name, "postconf", "-e", *values)
        run("docker", "restart", self.name)
        self.wait()

    def thinks_about(self, recipient: str) -> bool:
        """Whether it has had a recipient's mail in hand, up to the last line of DATA."""
        return any("thinking" in line and f"to=<{recipient}>" in line for line in self._log())

    def has_filed(self, message_id: str) -> bool:
        """Whether a mail has come through, for whomever."""
        return any(f"message-id={message_id}" in line for line in self._log())

    def _log(self) -> list[str]:
        return run("docker", "logs", self.name).splitlines()

    def count(self) -> int:
        """How many copies it has filed."""
        return int(self._inside(f"grep -c ^X-Original-To: {BOX} 2>/dev/null || true") or 0)

    def copies(self) -> list[Copy]:
        """Every copy that it has filed, the oldest first."""
        path = self.folder / "box"
        path.write_text(self._inside(f"cat {BOX} 2>/dev/null || true"))
        return [_copy(message) for message in mailbox.mbox(path)]

    def message_ids(self, recipient: str) -> Counter[str]:
        """How many copies of each mail it has filed for a recipient."""
        return Counter(c.message_id for c in self.copies() if c.recipient == recipient)

    def _inside(self, command: str) -> str:
        return run("docker", "exec", self.name, "sh", "-c", command)


def _copy(message: mailbox.mboxMessage) -> Copy:
    # The topmost line is the relay's own: "from NAME (NAME [ADDRESS]) by ...; DATE".
    trace = message.get_all("Received", [""])[0]
    return Copy(
        message_id=message["Message-ID"].strip(),
        recipient=message["X-Original-To"],
        subject=str(message["Subject"]),
        to=str(message["To"]),
        client=trace.partition("])")[0].rpartition("[")[2],
        at=parsedate_to_datetime(trace.rpartition(";")[2].strip()),
    )
