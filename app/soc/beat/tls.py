"""TLS connections of one thread that do not fail for each other's errors.

OpenSSL queues its errors by thread, and SSL_get_error(3) demands an empty queue before each call:
it takes what another connection has left there for this one's. CPython empties the queue after most
failures but not after a system error (python/cpython#81891, #148594). With OpenSSL 3.2 and later a
write to a connection that was reset, or its closing handshake, leaves such an error, and from then
on every read that has to wait fails, on every other connection of the thread.
"""

import ssl
from typing import Any

_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class SeparateSocket(ssl.SSLSocket):
    """A TLS socket whose failures stay its own; the calls that reach OpenSSL are these five."""

    def read(self, *arguments: Any) -> Any:
        """Read as SSLSocket does."""
        try:
            return super().read(*arguments)
        except OSError:
            _empty_the_error_queue()
            raise

    def write(self, data: Any) -> int:
        """Write as SSLSocket does."""
        try:
            return super().write(data)
        except OSError:
            _empty_the_error_queue()
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        """Send as SSLSocket does."""
        try:
            return super().send(data, flags)
        except OSError:
            _empty_the_error_queue()
            raise

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands as SSLSocket does."""
        try:
            super().do_handshake(block)
        except OSError:
            _empty_the_error_queue()
            raise

    def unwrap(self) -> Any:
        """Close the TLS layer as SSLSocket does."""
        try:
            return super().unwrap()
        except OSError:
            _empty_the_error_queue()
            raise


def separate_connections() -> None:
    """Have every TLS socket that this process makes from now on keep its failures to itself."""
    ssl.SSLContext.sslsocket_class = SeparateSocket


def _empty_the_error_queue() -> None:
    # Python has no call for it; a list without a known cipher is refused after ERR_clear_error().
    try:
        _context.set_ciphers("none")
    except ssl.SSLError:
        return
