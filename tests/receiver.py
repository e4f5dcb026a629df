"""An HTTPS server that takes messages, and answers as a test tells it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """An HTTPS server that keeps what it takes, and answers as it is told."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stalls: bool = False
    """Take the request and never answer."""
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    taken: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    judge: Callable[[dict[str, str], bytes], bool] | None = None
    """Whether the credential of a request is good, where that matters."""
    released: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver: Receiver = self.server.receiver  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = (self.path, dict(self.headers.items()), body)
        receiver.heard.append(request)
        if receiver.stalls:
            receiver.released.wait()
            return
        status = receiver.status
        if receiver.judge and not receiver.judge(request[1], body):
            status = 403
        if status < 300:
            receiver.taken.append(request)
        self.send_response(status)
        for name, value in receiver.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"words")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serve(context: ssl.SSLContext) -> Iterator[Receiver]:
    """Run a receiver at a free port of localhost."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        # The handshake belongs to the request's thread, not to the one that accepts.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        receiver = server.receiver = Receiver(port=server.server_address[1])  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield receiver
        finally:
            receiver.released.set()
            server.shutdown()
