"""What the API answers when it cannot do what is asked: problem details (RFC 9457)."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar, cast

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from soc.api.schemas import MANY, ONE
from soc.core.models import ApiToken

CONTENT_TYPE = "application/problem+json"
MOST_ERRORS = 20
"""Errors of one request that are reported: of 500 wrong conditions a few need to be seen."""

RETRY_AFTER = 5
"""Seconds after which a program may ask again."""

Error = Mapping[str, str]

_Error = TypeVar("_Error", bound=Exception)

logger = logging.getLogger(__name__)


class ProblemDetails(Exception):
    """Ends a request with a status and a sentence that says what to do next."""

    def __init__(
        self, status: int, detail: str, errors: Sequence[Error] = (), *, retry_after: int = 0
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after


def answer(problem: ProblemDetails, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return the response that reports a problem."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    headers = dict(headers or {})
    if problem.retry_after:
        headers["Retry-After"] = str(problem.retry_after)
    return HttpResponse(
        json.dumps(body), status=problem.status, content_type=CONTENT_TYPE, headers=headers
    )


def unauthorized() -> HttpResponse:
    """Return the answer to an unknown client (RFC 6750, 3)."""
    detail = (
        "This needs an API token that works: send the header 'Authorization: Bearer', a blank and "
        "the token's secret. An administrator makes tokens in the admin."
    )
    return answer(ProblemDetails(401, detail), {"WWW-Authenticate": 'Bearer realm="soc"'})


def forbidden(token: ApiToken, permission: str) -> ProblemDetails:
    """Return the problem of a token whose user lacks a permission."""
    return ProblemDetails(
        403,
        f"The token {token} acts for {token.user}, who lacks the permission {permission}: an "
        f"administrator can give it in the admin, under Users or Groups.",
    )


def too_many(seconds: int) -> ProblemDetails:
    """Return the problem of an address that sent too many wrong tokens."""
    detail = (
        f"Too many wrong API tokens came from your address; wrong ones are not looked at for "
        f"{seconds} s. A token that works is taken now as ever."
    )
    return ProblemDetails(429, detail, retry_after=seconds)


def unavailable() -> HttpResponse:
    """Return the answer while the database does not do its part."""
    # Of a list of conditions, the first may have been taken: each is carried through by itself.
    detail = (
        f"The database is busy or away. Send the same again in {RETRY_AFTER} s: what was done "
        "already is not done twice."
    )
    return answer(ProblemDetails(503, detail, retry_after=RETRY_AFTER))


def install(api: NinjaAPI) -> None:
    """Let an API answer with problem details whatever happens."""
    _handle(api, ProblemDetails, lambda _, problem: answer(problem))
    _handle(api, AuthenticationError, lambda *_: unauthorized())
    _handle(api, HttpError, _unreadable)
    _handle(api, RequestDataTooBig, _too_big)
    _handle(api, ValidationError, _invalid)
    _handle(api, OperationalError, _database)
    _handle(api, Exception, _unexpected)


def _handle(
    api: NinjaAPI, kind: type[_Error], respond: Callable[[HttpRequest, _Error], HttpResponse]
) -> None:
    def handler(request: HttpRequest, error: _Error | type[_Error]) -> HttpResponse:
        # The framework's signature allows for classes; what it hands over was raised.
        return respond(request, cast("_Error", error))

    api.add_exception_handler(kind, handler)


def _unreadable(_: HttpRequest, error: HttpError) -> HttpResponse:
    """Answer to a body that is no JSON, which is all that the framework says by itself."""
    why = f": {error.__cause__}" if error.__cause__ else ""
    return answer(
        ProblemDetails(error.status_code, f"The body is no JSON (RFC 8259){why}. Correct it.")
    )


def _too_big(request: HttpRequest, _: RequestDataTooBig) -> HttpResponse:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    detail = f"The body is larger than {most:,} bytes: send fewer conditions or smaller facts."
    return answer(ProblemDetails(413, detail))


def _invalid(_: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = [_located(one["loc"], one["msg"]) for one in error.errors[:MOST_ERRORS]]
    rest = len(error.errors) - len(errors)
    more = f" There are {rest} more." if rest else ""
    detail = f"Nothing was done: correct what 'errors' names and send it again.{more}"
    return answer(ProblemDetails(422, detail, errors))


def _located(location: Sequence[str | int], message: str) -> dict[str, str]:
    source, argument, *path = location
    if source != "body":
        return {"detail": message, "parameter": str(argument)}
    if message == "Field required" and not path:
        message = "A body is required, with its length told (Content-Length)."
    within = path[1:] if path[:1] in ([ONE], [MANY]) else path
    return {"detail": message, "pointer": _pointer(within)}


def _pointer(path: Iterable[str | int]) -> str:
    """Return the place of an error in the body, as a JSON pointer in a fragment (RFC 6901, 6)."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "#" + "".join(f"/{part}" for part in escaped)


def _database(_: HttpRequest, error: OperationalError) -> HttpResponse:
    logger.warning("The API could not use the database: %s", error)
    return unavailable()


def _unexpected(request: HttpRequest, _: Exception) -> HttpResponse:
    logger.exception("%s %s failed", request.method, request.path)
    return answer(
        ProblemDetails(500, "This is a fault of the server; its log says more. Report it.")
    )
