"""Sign-in with an OpenID Connect provider (OpenID Connect Core 1.0, authorization code, PKCE).

Authlib speaks the protocol; here stands what this site believes of what it is told: the issuer
that it has named, over verified TLS, signed with a public key, and the roles that it has mapped.
"""

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.django_client import OAuth
from authlib.integrations.django_client.apps import DjangoOAuth2App
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from joserfc.errors import JoseError
from requests import RequestException

from soc.access import audit, roles
from soc.access.models import Identity

TIMEOUT = 10
"""Seconds that the provider has for each answer."""

SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "Ed25519")
"""Signatures that a token may have: by a public key, as who knows our secret must not make one."""

_BACKEND = "django.contrib.auth.backends.ModelBackend"
_NEXT = "oidc_next"
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")

logger = logging.getLogger(__name__)


class Untrusted(Exception):
    """The provider's answer is not to be believed; the message says why."""


class Refused(Exception):
    """The person is known to the provider, but may not come in; the message says what to do."""


@never_cache
@require_safe
@login_not_required
def start(request: HttpRequest) -> HttpResponse:
    """Send the browser to the provider."""
    if not settings.OIDC_ISSUER:
        return redirect("login")
    target = request.GET.get("next", "")
    safe = url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=True)
    request.session[_NEXT] = target if safe else ""
    try:
        return _client().authorize_redirect(
            request, request.build_absolute_uri(reverse("oidc-callback"))
        )
    except (AuthlibBaseError, RequestException, Untrusted, ValueError) as error:
        return _unreachable(request, error)


@never_cache
@require_safe
@login_not_required
def callback(request: HttpRequest) -> HttpResponse:
    """Take the provider's answer and sign the person in."""
    if not settings.OIDC_ISSUER:
        return redirect("login")
    target = request.session.pop(_NEXT, "")
    try:
        claims = _claims(request)
        user = user_of(claims)
    except Refused as refusal:
        audit.note(f"Sign-in by provider refused: {refusal}", request)
        return render(request, "oidc_refused.html", {"why": str(refusal)}, status=403)
    except (AuthlibBaseError, JoseError, RequestException, Untrusted, ValueError) as error:
        return _unreachable(request, error)
    auth.login(request, user, _BACKEND)
    return HttpResponseRedirect(target or resolve_url(settings.LOGIN_REDIRECT_URL))


def _unreachable(request: HttpRequest, error: Exception) -> HttpResponse:
    # The browser learns nothing of it: an answer of the provider may hold what is not for it.
    logger.warning(
        "Sign-in by %s failed: %s: %s", settings.OIDC_ISSUER, type(error).__name__, error
    )
    return render(request, "oidc_failed.html", {"issuer": settings.OIDC_ISSUER}, status=502)


def _client() -> DjangoOAuth2App:
    """Return a client of the provider as the provider describes itself now.

    Raises:
        Untrusted: the description is of another issuer, or leads away from https.
    """
    issuer = settings.OIDC_ISSUER
    client = OAuth().register(
        "site",
        client_id=settings.OIDC_CLIENT_ID,
        client_secret=settings.OIDC_CLIENT_SECRET,
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid profile email",
            "code_challenge_method": "S256",
            "verify": settings.OIDC_AUTHORITIES or True,
            # A variable of the environment would win over the authorities.
            "trust_env": False,
            "default_timeout": TIMEOUT,
        },
    )
    metadata = client.load_server_metadata()
    # OpenID Connect Discovery 1.0, 4.3: else one provider could speak for another.
    if metadata.get("issuer") != issuer:
        raise Untrusted(f"it says to be {metadata.get('issuer')!r}")
    for name in _ENDPOINTS:
        if urlsplit(str(metadata.get(name))).scheme != "https":
            raise Untrusted(f"its {name} is {metadata.get(name)!r} and not https")
    metadata["id_token_signing_alg_values_supported"] = list(SIGNATURES)
    return client


def _claims(request: HttpRequest) -> Mapping[str, Any]:
    """Return what the provider says of a person.

    Raises:
        Untrusted: another issuer answers, or the answer names no person.
    """
    # RFC 9207: the answer of one provider must not be taken for that of another.
    if request.GET.get("iss", settings.OIDC_ISSUER) != settings.OIDC_ISSUER:
        raise Untrusted("the answer is of another issuer")
    client = _client()
    token = client.authorize_access_token(
        request, claims_options={"iss": {"essential": True, "value": settings.OIDC_ISSUER}}
    )
    claims = token.get("userinfo")
    if not claims or not claims.get("sub"):
        raise Untrusted("the answer holds no id_token")
    if settings.OIDC_GROUPS_CLAIM in claims:
        return claims
    more = client.userinfo(token=token)
    # OpenID Connect Core 1.0, 5.3.2: a user info of somebody else must not be used.
    if more.get("sub") != claims["sub"]:
        raise Untrusted("the user info is of another person")
    return {**claims, **more}


def user_of(claims: Mapping[str, Any]) -> User:
    """Return the user of a person with the roles that the provider's groups give now.

    Raises:
        Refused: no group gives a role, the user is disabled, or its name is another's.
    """
    groups = claims.get(settings.OIDC_GROUPS_CLAIM) or ()
    groups = [groups] if isinstance(groups, str) else groups
    given = {settings.OIDC_ROLES[group] for group in groups if group in settings.OIDC_ROLES}
    known = Identity.objects.select_related("user").filter(
        issuer=settings.OIDC_ISSUER, subject=claims["sub"]
    )
    identity = known.first()
    if identity is not None and not identity.user.is_active:
        raise Refused("Your account here is disabled.")
    if not given:
        if identity is not None:
            roles.assign(identity.user, ())
        raise Refused("None of your groups has a role here. Ask an administrator for one.")
    user = identity.user if identity is not None else _create(claims)
    roles.assign(user, given)
    return user


@transaction.atomic
def _create(claims: Mapping[str, Any]) -> User:
    name = str(claims.get("preferred_username") or claims.get("email") or claims["sub"])
    # A name proves nothing: whoever may choose theirs at the provider could become anybody here.
    if User.objects.filter(username__iexact=name).exists():
        raise Refused(
            f"A local account is named {name}. An administrator can link it to you, under Users."
        )
    user = User(username=name, email=str(claims.get("email") or "")[:254])
    user.set_unusable_password()
    try:
        user.full_clean()
    except ValidationError:
        raise Refused("Your name or mail address at the provider cannot be used here.") from None
    user.save()
    Identity.objects.create(user=user, issuer=settings.OIDC_ISSUER, subject=claims["sub"])
    return user
