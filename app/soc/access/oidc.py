"""Sign-in with an OpenID Connect provider (OpenID Connect Core 1.0, authorization code, PKCE).

Authlib speaks the protocol; here stands what this site believes of what comes: the issuer
that it has named, over verified TLS, signed with a public key, and the roles that it has mapped.
"""

import logging
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

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

from soc.access import audit, groups, roles
from soc.access.models import Identity

TIMEOUT = 10
"""Seconds that the provider has for each answer."""

SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "Ed25519")
"""Signatures that a token may have: by a public key, as who knows our secret must not make one."""

_BACKEND = "django.contrib.auth.backends.ModelBackend"
_NEXT = "oidc_next"
_SIGN_OUT = "oidc_sign_out"
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
        away: HttpResponse = _client().authorize_redirect(
            request, request.build_absolute_uri(reverse("oidc-callback"))
        )
    except (AuthlibBaseError, RequestException, Untrusted, ValueError) as error:
        return _unreachable(request, error)
    return away


@never_cache
@require_safe
@login_not_required
def callback(request: HttpRequest) -> HttpResponse:
    """Take the provider's answer and sign the person in."""
    if not settings.OIDC_ISSUER:
        return redirect("login")
    target = request.session.pop(_NEXT, "")
    try:
        client = _client()
        claims, id_token = _claims(client, request)
        user = user_of(claims)
    except Refused as refusal:
        audit.note(f"Sign-in by provider refused: {refusal}", request)
        return render(request, "oidc_refused.html", {"why": str(refusal)}, status=403)
    except (AuthlibBaseError, JoseError, RequestException, Untrusted, ValueError) as error:
        return _unreachable(request, error)
    auth.login(request, user, _BACKEND)
    end = str(client.server_metadata.get("end_session_endpoint"))
    if urlsplit(end).scheme == "https":
        request.session[_SIGN_OUT] = {"endpoint": end, "id_token": id_token}
    return HttpResponseRedirect(target or resolve_url(settings.LOGIN_REDIRECT_URL))


def sign_out_url(request: HttpRequest) -> str:
    """Return where a person ends their session at the provider, or nothing.

    OpenID Connect RP-Initiated Logout 1.0, 2. It is known since sign-in, so that signing out
    here asks nobody.
    """
    known = request.session.get(_SIGN_OUT)
    if not known:
        return ""
    query = {
        "id_token_hint": known["id_token"],
        "client_id": settings.OIDC_CLIENT_ID,
        "post_logout_redirect_uri": request.build_absolute_uri(reverse("login")),
    }
    joint = "&" if urlsplit(known["endpoint"]).query else "?"
    return f"{known['endpoint']}{joint}{urlencode(query)}"


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
    client: DjangoOAuth2App = OAuth().register(
        "site",
        client_id=settings.OIDC_CLIENT_ID,
        client_secret=settings.OIDC_CLIENT_SECRET,
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": " ".join(settings.OIDC_SCOPES),
            "code_challenge_method": "S256",
            "token_endpoint_auth_method": _authenticate,
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


def _authenticate(
    client: Any, method: str, uri: str, headers: dict[str, str], body: str
) -> tuple[str, dict[str, str], str]:
    """Add our name and secret to a request, form-encoded (RFC 6749, 2.3.1); Authlib's are not."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return uri, headers, body


def _claims(client: DjangoOAuth2App, request: HttpRequest) -> tuple[Mapping[str, Any], str]:
    """Return what the provider says of a person, and the id_token that says who it is.

    Raises:
        Untrusted: another issuer answers, or the answer names no person.
    """
    # RFC 9207: the answer of one provider must not be taken for that of another.
    if request.GET.get("iss", settings.OIDC_ISSUER) != settings.OIDC_ISSUER:
        raise Untrusted("the answer is of another issuer")
    token = client.authorize_access_token(
        request, claims_options={"iss": {"essential": True, "value": settings.OIDC_ISSUER}}
    )
    claims = token.get("userinfo")
    if not claims or not claims.get("sub"):
        raise Untrusted("the answer holds no id_token")
    # OpenID Connect Core 1.0, 3.1.3.7. Authlib looks at azp, and at the audience only by that.
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if settings.OIDC_CLIENT_ID not in audience:
        raise Untrusted(
            f"its id_token is for {audience} and not for {settings.OIDC_CLIENT_ID}: "
            "the client's audience there lacks the client itself"
        )
    if groups.in_claims(claims, settings.OIDC_GROUPS_CLAIM):
        return claims, token["id_token"]
    more = client.userinfo(token=token)
    # OpenID Connect Core 1.0, 5.3.2: a user info of somebody else must not be used.
    if more.get("sub") != claims["sub"]:
        raise Untrusted("the user info is of another person")
    return {**claims, **more}, token["id_token"]


def user_of(claims: Mapping[str, Any]) -> User:
    """Return the user of a person with the roles that the provider's groups give now.

    Raises:
        Refused: no group gives a role, the provider sends no groups for their number and there
            are no roles to keep, the user is disabled, or its name is another's.
    """
    known = Identity.objects.select_related("user").filter(
        issuer=settings.OIDC_ISSUER, subject=claims["sub"]
    )
    identity = known.first()
    if identity is not None and not identity.user.is_active:
        raise Refused("Your account here is disabled.")
    try:
        named = groups.of(claims, settings.OIDC_GROUPS_CLAIM)
    except groups.Unsent:
        return _with_kept_roles(identity)
    given = groups.roles(named, settings.OIDC_ROLES)
    if not given:
        if identity is not None:
            roles.assign(identity.user, ())
        logger.warning(
            "No group of %.150r has a role here. The claim %s %s",
            claims["sub"],
            settings.OIDC_GROUPS_CLAIM,
            f"names {len(named)} groups: {', '.join(sorted(named)[:5])}"
            if groups.in_claims(claims, settings.OIDC_GROUPS_CLAIM)
            else "is not sent: some providers send it for a scope of its own (SOC_OIDC_SCOPES)",
        )
        raise Refused("None of your groups has a role here. Ask an administrator for one.")
    user = identity.user if identity is not None else _create(claims)
    roles.assign(user, given)
    return user


def _with_kept_roles(identity: Identity | None) -> User:
    logger.warning(
        "%s sends no groups of %s, because there are too many for its answer",
        settings.OIDC_ISSUER,
        identity.user if identity is not None else "a new person",
    )
    if identity is None or not roles.of(identity.user):
        raise Refused(
            "You are in more groups than your provider sends. An administrator of the provider "
            "can limit them to the groups that this application needs."
        )
    return identity.user


@transaction.atomic
def _create(claims: Mapping[str, Any]) -> User:
    name = str(claims.get("preferred_username") or claims.get("email") or claims["sub"])
    # A name proves nothing: anyone who may choose theirs at the provider could become anybody here.
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
