"""Starts Flower over https with a password, read-only unless the site says otherwise.

Flower's own ``/metrics`` answers anybody, and it takes passwords as fast as they come; here all
but ``/healthcheck`` asks for the password, and an address that gets it wrong has to wait.
"""

import logging
import os
import secrets
import time
from math import ceil
from pathlib import Path
from typing import Any

from django.conf import settings
from flower import urls
from flower.views import BaseHandler
from flower.views.monitor import Metrics
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from tornado.template import DictLoader
from tornado.web import HTTPError, RequestHandler, StaticFileHandler, authenticated

from soc.beat.tls import separate_connections
from soc.provision import environment
from soc.provision.identity import TLS_CIPHERS, secret, server_certificate
from soc.runtime.celery import app

MAX_TASKS = 5_000
"""Tasks that Flower keeps in memory; its own limit of 100,000 costs hundreds of MB."""

WRONG_PASSWORDS = parse("10/5 minutes")
"""How many wrong passwords an address may send before none is looked at."""

_INLINE = '<script type="text/javascript">'
_limiter = MovingWindowRateLimiter(MemoryStorage())
_user_by_password = BaseHandler.get_current_user
_headers_of_flower = BaseHandler.set_default_headers

logger = logging.getLogger(__name__)


def _forget_earlier_receivers() -> None:
    """Unbind and empty the queues of Flowers that ended: files expire no message of theirs."""
    (settings.STATE / "broker-control" / "celeryev.exchange").unlink(missing_ok=True)
    for message in (settings.STATE / "broker").glob("*.celeryev.*.msg"):
        message.unlink(missing_ok=True)


def _user(handler: BaseHandler) -> object:
    """Return who asks, unless too many wrong passwords came from the address.

    Raises:
        HTTPError: 401 for an unknown client, 429 for an address that has to wait.
    """
    address = handler.request.remote_ip
    if not _limiter.test(WRONG_PASSWORDS, address):
        handler.wait = ceil(_limiter.get_window_stats(WRONG_PASSWORDS, address)[0] - time.time())
        raise HTTPError(429, f"Too many wrong passwords; wait {handler.wait} s.")
    try:
        return _user_by_password(handler)
    except HTTPError:
        # A browser asks without a password first; that is no try.
        if handler.request.headers.get("Authorization"):
            _limiter.hit(WRONG_PASSWORDS, address)
            logger.warning("Wrong password for Flower from %s", address)
        raise


def _set_headers(handler: RequestHandler) -> None:
    """Set what headers browsers get with every answer; called again for an error."""
    if isinstance(handler, BaseHandler):
        _headers_of_flower(handler)
    # The template reads it there.
    nonce = vars(handler).setdefault("nonce", secrets.token_urlsafe(16))
    headers = {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; "
            "style-src-attr 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
        "Strict-Transport-Security": f"max-age={settings.SECURE_HSTS_SECONDS}",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Server": "Flower",
    }
    if not isinstance(handler, StaticFileHandler):
        headers["Cache-Control"] = "no-store, private"
    if wait := getattr(handler, "wait", 0):
        headers["Retry-After"] = str(wait)
    for name, value in headers.items():
        handler.set_header(name, value)


def _templates() -> DictLoader:
    """Return Flower's templates with a nonce on the only inline script."""
    folder = Path(urls.settings["template_path"])
    return DictLoader(
        {
            path.name: path.read_text(encoding="utf-8").replace(
                _INLINE, '<script nonce="{{ handler.nonce }}">'
            )
            for path in folder.glob("*.html")
        }
    )


def guard() -> None:
    """Put what this site asks of every page in front of Flower's own."""
    BaseHandler.get_current_user = _user
    handlers: tuple[Any, ...] = (BaseHandler, StaticFileHandler)
    for handler in handlers:
        handler.set_default_headers = _set_headers
    Metrics.get = authenticated(Metrics.get)
    urls.settings["template_loader"] = _templates()


def _load_no_tasks() -> None:
    """Leave the site's tasks and models out, half of Flower's memory: it may send none."""


def main() -> None:
    """Serve Flower until SIGTERM.

    Raises:
        EnvironmentProblem: the password is one that could be guessed.
    """
    if environment.is_weak(secret("password")):
        path = str(settings.IDENTITY / "password")
        raise environment.EnvironmentProblem(path, ["could be guessed; write a random one"])
    guard()
    if not settings.FLOWER_CONTROL:
        app.loader.import_default_modules = _load_no_tasks
    # Tornado serves every connection in one thread.
    separate_connections()
    certificate, key = server_certificate(settings.IDENTITY)
    # Tornado reads the files for each connection: what is renewed is served at once.
    urls.settings["ssl_options"] = {
        "certfile": str(certificate),
        "keyfile": str(key),
        "ciphers": TLS_CIPHERS,
    }
    if settings.EMBEDDED:
        _forget_earlier_receivers()
    options = [
        f"--port={settings.FLOWER_PORT}",
        f"--address={settings.FLOWER_ADDRESS}",
        f"--max_tasks={MAX_TASKS}",
        "--purge_offline_workers=600",
    ]
    if not settings.FLOWER_CONTROL:
        options.append("--read_only")
    # Not on the command line, where everyone on the host could read them.
    os.environ["FLOWER_BASIC_AUTH"] = f"admin:{secret('password')}"
    if not settings.EMBEDDED:
        monitor = f"monitor:{secret('monitor_password')}"
        os.environ["FLOWER_BROKER_API"] = f"https://{monitor}@rabbitmq:15671/api/"
        # Flower's HTTP client knows no other way to trust a private CA.
        os.environ["SSL_CERT_FILE"] = str(settings.IDENTITY / "ca.pem")
    app.start(["flower", *options])


if __name__ == "__main__":
    main()
