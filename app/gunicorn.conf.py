"""How gunicorn serves the web pages, in a container and in the embedded stack alike."""

import os
import ssl
from pathlib import Path

from soc.provision.identity import TLS_CIPHERS, server_certificate

_identity = Path(os.environ["SOC_IDENTITY"])
_shared_memory = Path("/dev/shm")  # noqa: S108 (gunicorn unlinks its file there at once)


def _address() -> str:
    if os.environ["SOC_STACK"] == "containers":
        return "0.0.0.0:8443"
    host = os.environ["SOC_BIND"]
    return f"{f'[{host}]' if ':' in host else host}:{os.environ['SOC_WEB_PORT']}"


bind = _address()
certfile = str(_identity / "cert.pem")
keyfile = str(_identity / "key.pem")


def ssl_context(config: object, default: object) -> ssl.SSLContext:
    """Make the context of a connection, with the certificate that the site brought if it did.

    Gunicorn calls it, with two arguments, for each connection: what is renewed is served at once.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_ciphers(TLS_CIPHERS)
    context.load_cert_chain(*server_certificate(_identity))
    return context


worker_class = "gthread"
# One processor is what the container may use: a second process would cost memory alone, and so
# would a parent that has loaded what its only child uses.
workers = 1
threads = 8
timeout = 60
graceful_timeout = 30
# The board asks every few seconds: it need not shake hands each time.
keepalive = 30
# A disk that stalls would look like a worker that hangs.
worker_tmp_dir = str(_shared_memory) if _shared_memory.is_dir() else None
# The control interface would open a socket in the home folder, which nobody here uses.
control_socket_disable = True
