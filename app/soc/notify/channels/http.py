"""Delivery by one HTTPS POST; the channels built on it differ in what they post."""

import json
import ssl
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import SplitResult

import urllib3
from django.conf import settings
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)
from urllib3.util import Retry

from soc.core.sealed import SealProblem
from soc.notify.channels.base import Channel, Unavailable
from soc.notify.channels.destination import HTTPS, NotAllowed, addresses, checked
from soc.notify.models import OutboundMail
from soc.notify.templates import line

TIMEOUT = urllib3.Timeout(total=10.0)
"""Seconds that a destination may take: a few slow ones must leave time for the others."""

LONGEST_WAIT = timedelta(hours=1)
"""What a destination may ask for at most: a message has four hours."""

MOST_READ = 1_000
"""Octets that are read of an answer."""

_NEVER_SENT = (ConnectTimeoutError, NameResolutionError, NewConnectionError, SSLError)
_NOT_TAKEN = (429, 503)


@dataclass(frozen=True)
class Answer:
    """What a destination answered (RFC 9110, 15); a code of 0 is our own word."""

    code: int
    text: str

    final = True

    def __str__(self) -> str:
        return f"It answered {self.code} {self.text}".strip() if self.code else self.text

    @property
    def taken(self) -> bool:
        """Whether the message is now theirs."""
        return 200 <= self.code < 300


@dataclass(frozen=True)
class HttpTarget:
    """Where a message goes, and the secret that goes with it."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Post:
    """One request, as it goes out."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpChannel(Channel):
    """Posts JSON to the subscription's own destination."""

    key_for = ""
    """What the secret is for, where the channel needs one."""

    @abstractmethod
    def post(self, mail: OutboundMail, target: HttpTarget) -> Post:
        """Return the request for a row."""

    def validate(self, url: str, secret: str) -> dict[str, str]:
        """Check the address against the site's list, and the secret if one is needed."""
        wrong = {}
        try:
            checked(url)
        except NotAllowed as error:
            wrong["url"] = str(error)
        if self.key_for and not secret:
            wrong |= {"secret": f"A secret is needed: {self.key_for}."}
        elif not (secret.isascii() and secret.isprintable()):
            wrong |= {"secret": "Invalid secret: use printable ASCII characters."}
        return wrong

    def deliver(self, mail: OutboundMail) -> Mapping[str, Answer]:
        """Post a row.

        Raises:
            Unavailable: the destination cannot be reached, fails (5xx) or asks us to wait (429).
        """
        return dict.fromkeys(mail.outstanding, self._deliver(mail))

    def _deliver(self, mail: OutboundMail) -> Answer:
        subscription = mail.subscription
        if subscription is None:
            return Answer(0, "Its subscription was deleted, and with it the destination.")
        try:
            target = HttpTarget(subscription.url.reveal(), subscription.secret.reveal())
            return _answered(self.post(mail, target))
        except SealProblem as error:
            raise Unavailable(str(error)) from error
        except NotAllowed as error:
            return Answer(0, str(error))


def as_json(value: object) -> bytes:
    """Return JSON in UTF-8 (RFC 8259)."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _answered(post: Post) -> Answer:
    parts = checked(post.url)
    host, port = str(parts.hostname), parts.port or HTTPS
    try:
        address = addresses(host, port)[0]
        with _pool(address, host, port) as pool:
            return _judged(*_exchange(pool, post, parts))
    except _NEVER_SENT as error:
        raise Unavailable(f"{host} cannot be reached: {line(str(error), 300)}") from error
    except HTTPError as error:
        words = f"{host} did not answer: {line(str(error), 300)}"
        raise Unavailable(words, uncertain=True) from error
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"{host} cannot be found: {error}") from error


def _pool(address: str, host: str, port: int) -> urllib3.HTTPSConnectionPool:
    context = ssl.create_default_context()
    context.load_verify_locations(settings.IDENTITY / "ca.pem")
    return urllib3.HTTPSConnectionPool(
        address,
        port,
        timeout=TIMEOUT,
        retries=False,
        ssl_context=context,
        cert_reqs="CERT_REQUIRED",
        server_hostname=host,
        assert_hostname=host,
    )


def _exchange(
    pool: urllib3.HTTPSConnectionPool, post: Post, parts: SplitResult
) -> tuple[int, Mapping[str, str], str]:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "soc-automation-server",
        **post.headers,
    }
    response = pool.urlopen("POST", path, post.body, headers, redirect=False, preload_content=False)
    try:
        # The status is the answer: what cannot be read of its words changes nothing.
        words = response.read(MOST_READ).decode(errors="replace")
    except HTTPError:
        words = ""
    finally:
        response.close()
    return response.status, response.headers, line(words, 300)


def _judged(status: int, headers: Mapping[str, str], words: str) -> Answer:
    answer = Answer(status, words)
    if 300 <= status < 400:
        where = line(headers.get("Location", "nowhere"), 200)
        return Answer(status, f"and redirects to {where}: redirects are not followed.")
    if status >= 500 or status in _NOT_TAKEN:
        raise Unavailable(
            str(answer),
            wait=_asked_for(headers),
            uncertain=status not in _NOT_TAKEN,
            code=status,
        )
    return answer


def _asked_for(headers: Mapping[str, str]) -> timedelta | None:
    """Return how long a destination asks us to wait (RFC 9110, 10.2.3)."""
    if not (value := headers.get("Retry-After")):
        return None
    try:
        return min(timedelta(seconds=Retry().parse_retry_after(value)), LONGEST_WAIT)
    except (InvalidHeader, OverflowError):
        return None
