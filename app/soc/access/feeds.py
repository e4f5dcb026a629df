"""Who may read a calendar: calendar programs can send nothing but an address."""

from django.http import HttpRequest, HttpResponse

from soc.access import throttle
from soc.core import tokens


def refusal(request: HttpRequest, permission: str) -> HttpResponse | None:
    """Return the answer to a reader who may not see a calendar, or None to one who may.

    An API token stands in the header or the address; who has signed in needs none. Make a token
    for each calendar, with a user who may do nothing else.
    """
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip() if scheme.lower() == "bearer" else request.GET.get("token", "")
    token = tokens.of_secret(secret) if secret else None
    user = token.user if token else request.user
    if (token or not secret) and user.has_perm(permission):
        return None
    if secret and token is None and (wait := throttle.refuse_token(request)):
        text = f"Too many wrong tokens came from your address. Try again in {wait} seconds.\n"
        return HttpResponse(text, "text/plain", 429, headers={"Retry-After": str(wait)})
    text = "This calendar needs an API token: ?token=soc_… or the header Authorization: Bearer.\n"
    return HttpResponse(text, "text/plain", 401, headers={"WWW-Authenticate": "Bearer"})


def answer(body: bytes, name: str) -> HttpResponse:
    """Return a calendar as a file of a name without its suffix."""
    headers = {"Content-Disposition": f'inline; filename="{name}.ics"'}
    return HttpResponse(body, "text/calendar; charset=utf-8", headers=headers)
