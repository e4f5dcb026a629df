"""The secrets of API tokens: made, recognised, and never stored."""

import hashlib
import secrets
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db.models import Q
from django.utils import timezone

from soc.core.models import ApiToken

PREFIX = "soc_"
"""What a secret begins with, so that scanners for leaked secrets can know it."""

_BYTES = 32
_USE_IS_NOTED_EVERY = timedelta(minutes=1)


def new_secret() -> str:
    """Return a secret of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def digest(secret: str) -> str:
    """Return what is kept of a secret: its SHA-256; this many random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(name: str, user: User, expires_at: datetime | None = None) -> str:
    """Create a token and return its secret.

    Raises:
        django.db.IntegrityError: the name is taken.
    """
    secret = new_secret()
    ApiToken.objects.create(name=name, user=user, digest=digest(secret), expires_at=expires_at)
    return secret


def of_secret(secret: str) -> ApiToken | None:
    """Return the token of a secret with its user, if it works, and note that it was used.

    It is found by its digest, which cannot be steered by trying secrets: how long the search takes
    says nothing about any secret.
    """
    now = timezone.now()
    works = Q(expires_at=None) | Q(expires_at__gt=now)
    known = ApiToken.objects.filter(works, digest=digest(secret), enabled=True)
    token = known.filter(user__is_active=True).select_related("user").first()
    if token is not None:
        _note_use(token, now)
    return token


def _note_use(token: ApiToken, now: datetime) -> None:
    due = now - _USE_IS_NOTED_EVERY
    if token.last_used_at is None or token.last_used_at <= due:
        not_yet = Q(last_used_at=None) | Q(last_used_at__lte=due)
        ApiToken.objects.filter(not_yet, pk=token.pk).update(last_used_at=now)
