"""A relay that says what a test has it say, word for word as real ones do."""

from __future__ import annotations

import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Answer = str | Callable[[str], str]
"""A reply, or what makes one of a command line; lines are parted by a newline."""


@dataclass
class Script:
    """What the relay answers to a verb, and what it has heard and taken."""

    answers: dict[str, Answer] = field(default_factory=dict)
    heard: Counter[str] = field(default_factory=Counter)
    taken: list[bytes] = field(default_factory=list)
    """The mails, as they came."""
    helos: set[str] = field(default_factory=set)
    port: int = 0

    def reply(self, line: str) -> str:
        verb = line.split(" ", 1)[0].split(":", 1)[0].upper()
        self.heard[verb] += 1
        if verb in ("EHLO", "HELO"):
            self.helos.add(line.split(" ", 1)[1])
        answer = self.answers.get(verb, _USUAL.get(verb, "250 2.0.0 Ok"))
        return answer if isinstance(answer, str) else answer(line)

    def to(self, verb: str, **answers: str) -> None:
        """Answer to a verb by what its line holds, as ``somebody="550 No"``."""

        def by_line(line: str) -> str:
            found = (reply for part, reply in answers.items() if part in line)
            return next(found, "250 2.0.0 Ok")

        self.answers[verb] = by_line


_USUAL = {
    "": "220 relay.test ESMTP",
    "EHLO": "250 relay.test",
    "DATA": "354 Go on",
    "QUIT": "221 Bye",
    ".": "250 2.0.0 Taken",
}


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        script: Script = self.server.script  # type: ignore[attr-defined]
        if not self._say(script.reply("")):
            return
        while line := self.rfile.readline():
            if not self._say(reply := script.reply(line.decode().strip())):
                return
            if reply.startswith("354"):
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                reply = script.reply(".")
                if reply.startswith("2"):
                    script.taken.append(content)
                self._say(reply)

    def _say(self, reply: str) -> bool:
        """Send a reply; return whether the session goes on."""
        *first, last = reply.split("\n")
        for line in first:
            self.wfile.write(f"{line[:3]}-{line[4:]}\r\n".encode())
        self.wfile.write(f"{last}\r\n".encode())
        return not last.startswith(("221", "421", "554 5.3.2"))


@contextmanager
def relay() -> Iterator[Script]:
    """Run a relay that takes everything until it is told otherwise."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.script = Script(port=server.server_address[1])  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.script  # type: ignore[attr-defined]
        finally:
            server.shutdown()
