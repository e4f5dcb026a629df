"""Who may use the API: bearers of a token whose user has the permission, and nobody else."""

from collections.abc import Callable
from functools import wraps

from django.contrib.auth.decorators import login_not_required
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from ninja.security import HttpBearer

from soc.access import throttle
from soc.api import problems
from soc.core import tokens
from soc.core.models import ApiToken

VIEW = "alerts.view_alert"
OPERATE = "alerts.operate_alert"
REPORT = "alerts.report_condition"
VIEW_ROTA = "oncall.view_rota"

View = Callable[..., HttpResponse]


class Token(HttpBearer):
    """Takes the secret of an API token (RFC 6750, 2.1); a session's cookie is none."""

    def __init__(self, permission: str = "") -> None:
        super().__init__()
        self.permission = permission

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        """Return the token of a secret, or None.

        Raises:
            Problem: its user lacks the permission, or too many wrong ones came from the address.
        """
        found = tokens.of_secret(token)
        if found is None and (wait := throttle.refuse_token(request)):
            raise problems.too_many(wait)
        if found and self.permission and not found.user.has_perm(self.permission):
            raise problems.forbidden(found, self.permission)
        return found


class TokenRequest(HttpRequest):
    """A request that showed a token."""

    auth: ApiToken


def token_required(permission: str) -> Callable[[View], View]:
    """Protect a view outside of the API as the API is protected."""
    bearer = Token(permission)

    def decorate(view: View) -> View:
        @login_not_required
        @wraps(view)
        def protected(request: HttpRequest, *arguments: object) -> HttpResponse:
            try:
                if bearer(request) is None:
                    return problems.unauthorized()
                return view(request, *arguments)
            except problems.ProblemDetails as problem:
                return problems.answer(problem)
            except OperationalError:
                return problems.unavailable()

        return protected

    return decorate
