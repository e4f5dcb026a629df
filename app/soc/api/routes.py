"""The API's addresses; nothing here waits on the broker."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pydantic_core
from django.contrib.auth.decorators import login_not_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from ninja import Body, NinjaAPI, Path, Query, Router
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation
from ninja.parser import Parser

from soc.alerts import actions, engine, notified
from soc.alerts.conditions import Condition
from soc.alerts.models import Alert
from soc.alerts.selection import select
from soc.api import problems
from soc.api.auth import OPERATE, REPORT, VIEW, VIEW_ROTA, Token, TokenRequest
from soc.api.intake import ForeignAlerts, Sender
from soc.api.intake import conditions as conditions_of
from soc.api.problems import ProblemDetails
from soc.api.schemas import (
    LARGEST_KEY,
    AcknowledgeIn,
    AlertDetailOut,
    AlertFilter,
    AlertOut,
    AlertsOut,
    Conditions,
    EventOut,
    NoteIn,
    OnCallOut,
    ProblemOut,
    ReportOut,
    ResultOut,
    RotaOut,
)
from soc.core.links import with_host
from soc.oncall import pages

MOST_EVENTS = 500

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_SUMMARY = """Lists and operates alerts, and takes reports of conditions from outside.

Every request needs an API token: `Authorization: Bearer soc_…`. Errors are problem details
(RFC 9457)."""


class _JSON(Parser):
    def parse_body(self, request: HttpRequest) -> Any:
        """Read JSON as the standard has it: no NaN, no lone surrogates, no endless nesting."""
        return pydantic_core.from_json(request.body, allow_inf_nan=False)


class _Api(NinjaAPI):
    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        """Return the description, with this site and the media type that errors really have."""
        schema = super().get_openapi_schema(**options)
        schema["servers"] = [{"url": with_host("/")}]
        for path in schema["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    if status >= 400:
                        content = response["content"]
                        content[problems.CONTENT_TYPE] = content.pop(self.renderer.media_type)
        return schema

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """Name operations as generated clients should name their methods."""
        return operation.view_func.__name__


api = _Api(
    title="SOC Automation Server",
    version="1",
    description=_SUMMARY,
    openapi_url=None,
    docs_url=None,
    urls_namespace="api",
    parser=_JSON(),
)
problems.install(api)
_v1 = Router(tags=["alerts"])
_rest = Router()
api.add_router("/v1", _v1)
# Takes what no other address has taken, and so comes last.
api.add_router("", _rest)

AlertId = Path(ge=1, le=LARGEST_KEY, description="The alert's id.")
Note = Body(None, description="May be left out.")


def _or(*statuses: int) -> dict[int, type[ProblemOut]]:
    return dict.fromkeys((401, 403, *statuses, 429, 500, 503), ProblemOut)


# --- Alerts -------------------------------------------------------------------------------------


@_v1.get("/alerts", auth=Token(VIEW), response={200: AlertsOut, **_or(422)}, summary="List alerts")
def list_alerts(request: HttpRequest, chosen: Query[AlertFilter]) -> AlertsOut:
    """Returns the open alerts, or others if a state is asked for, the newest first.

    Pages hang together by ids: while alerts open and end, none is left out and none comes twice.
    """
    # A filter with a typing error would otherwise pass for one that matches everything.
    if unknown := set(request.GET) - set(AlertFilter.model_fields):
        known = ", ".join(AlertFilter.model_fields)
        raise ProblemDetails(422, f"There is no filter {min(unknown)!r}; the filters are {known}.")
    alerts = select(**chosen.model_dump(exclude={"limit", "before"}, exclude_none=True))
    if chosen.before:
        alerts = alerts.filter(pk__lt=chosen.before)
    count = alerts.count()
    items = [AlertOut.of(alert) for alert in alerts.defer("facts")[: chosen.limit]]
    following = None
    if count > len(items):
        query = {**request.GET.dict(), "before": items[-1].id}
        following = f"{request.path}?{urlencode(query)}"
    return AlertsOut(count=count, next=following, items=items)


@_v1.get(
    "/alerts/{int:alert_id}",
    auth=Token(VIEW),
    response={200: AlertDetailOut, **_or(404, 422)},
    summary="One alert with its timeline",
)
def get_alert(request: HttpRequest, alert_id: int = AlertId) -> AlertDetailOut:
    """Returns what the alert was raised on and what happened to it."""
    return _detail(_alert(alert_id))


@_v1.post(
    "/alerts/{int:alert_id}/acknowledge",
    auth=Token(OPERATE),
    response={200: AlertDetailOut, **_or(400, 404, 409, 413, 422)},
    summary="Acknowledge an alert",
)
def acknowledge(
    request: TokenRequest, alert_id: int = AlertId, note: AcknowledgeIn = Note
) -> AlertDetailOut:
    """Takes note of an alert that fires or flaps, in the name of the token's user.

    With `minutes` the acknowledgement expires: the alert then fires again.
    """
    lasting = timedelta(minutes=note.minutes) if note and note.minutes else None
    which = "Only alerts that fire or flap can be acknowledged."
    act = partial(actions.acknowledge, lasting=lasting)
    return _operated(request, alert_id, note, act, which)


@_v1.post(
    "/alerts/{int:alert_id}/resolve",
    auth=Token(OPERATE),
    response={200: AlertDetailOut, **_or(400, 404, 409, 413, 422)},
    summary="Resolve an alert",
)
def resolve(request: TokenRequest, alert_id: int = AlertId, note: NoteIn = Note) -> AlertDetailOut:
    """Ends an open alert by hand; the next bad reports open a new one."""
    which = "Only open alerts can be resolved; GET /api/v1/alerts lists them."
    return _operated(request, alert_id, note, actions.resolve, which)


def _operated(
    request: TokenRequest,
    key: int,
    note: NoteIn | None,
    act: Callable[[QuerySet[Alert], str, str], int],
    which: str,
) -> AlertDetailOut:
    by = request.auth.user.get_username()
    if not act(Alert.objects.filter(pk=key), by, note.note if note else ""):
        raise ProblemDetails(
            409, f"Alert {key} is {_alert(key).get_state_display().lower()}. {which}"
        )
    return _detail(_alert(key))


def _alert(key: int) -> Alert:
    alert = Alert.objects.select_related("rule", "subject").filter(pk=key).first()
    if alert is None:
        raise ProblemDetails(404, f"There is no alert {key}: GET /api/v1/alerts lists them.")
    return alert


def _detail(alert: Alert) -> AlertDetailOut:
    newest = list(alert.events.order_by("-at", "-pk")[: MOST_EVENTS + 1])
    left_out = alert.events.count() - MOST_EVENTS if len(newest) > MOST_EVENTS else 0
    shown = newest[:MOST_EVENTS][::-1]
    notified_of = notified.of_events(alert, shown, notified.mails_of(alert))
    return AlertDetailOut.of(
        alert,
        facts=alert.facts,
        runbook=alert.rule.runbook,
        timeline=[EventOut.of(event, notified_of[event.pk]) for event in shown],
        timeline_left_out=left_out,
    )


# --- Conditions ---------------------------------------------------------------------------------


@_v1.post(
    "/conditions",
    auth=Token(REPORT),
    response={200: ReportOut, **_or(400, 413, 422)},
    summary="Report conditions",
    tags=["conditions"],
)
def report_conditions(request: HttpRequest, conditions: Body[Conditions]) -> ReportOut:
    """Takes one condition or a list of them; all are taken, or none if one is wrong.

    A condition that is not newer than the last one of its subject changes nothing, so a program
    that got no answer may send the same again.
    """
    sent = conditions if isinstance(conditions, list) else [conditions]
    return _reported([one.condition() for one in sent])


def _reported(conditions: Sequence[Condition]) -> ReportOut:
    try:
        results = engine.report(conditions)
    except engine.UnknownRule as unknown:
        detail = f"{unknown} Nothing was reported: name one of them, or add the rule in the admin."
        raise ProblemDetails(422, detail) from None
    return ReportOut(results=[ResultOut(outcome=one.outcome, mails=one.mails) for one in results])


@_v1.post(
    "/alertmanager",
    auth=Token(REPORT),
    response={200: ReportOut, **_or(400, 413, 422)},
    summary="Take an Alertmanager's webhook",
    tags=["conditions"],
)
def take_alertmanager(request: HttpRequest, group: Body[ForeignAlerts]) -> ReportOut:
    """Takes what an Alertmanager posts, version 4: each alert becomes a condition.

    What it repeats while an alert fires changes nothing; what it says is resolved ends the alert.
    """
    return _take(Sender.ALERTMANAGER, group)


@_v1.post(
    "/grafana",
    auth=Token(REPORT),
    response={200: ReportOut, **_or(400, 413, 422)},
    summary="Take a Grafana's webhook",
    tags=["conditions"],
)
def take_grafana(request: HttpRequest, group: Body[ForeignAlerts]) -> ReportOut:
    """Takes what a contact point of the type Webhook posts: each alert becomes a condition."""
    return _take(Sender.GRAFANA, group)


def _take(sender: Sender, group: ForeignAlerts) -> ReportOut:
    return _reported(conditions_of(sender, group, timezone.now()))


# --- On call ------------------------------------------------------------------------------------


@_v1.get(
    "/oncall",
    auth=Token(VIEW_ROTA),
    response={200: OnCallOut, **_or()},
    summary="Who is on call",
    tags=["on call"],
)
def list_oncall(request: HttpRequest) -> OnCallOut:
    """Returns who is on call now at each rota, who follows, and the gaps of four weeks."""
    return OnCallOut(items=[RotaOut.of(view) for view in pages.views(timezone.now())])


# --- The API itself -----------------------------------------------------------------------------


@_rest.get("/openapi.json", auth=Token(), include_in_schema=False)
def openapi(request: HttpRequest) -> OpenAPISchema:
    """Describes the API (OpenAPI 3.1)."""
    return api.get_openapi_schema(path_prefix="api/")


@_rest.api_operation(_METHODS, "/{path:rest}", auth=Token(), include_in_schema=False)
def nowhere(request: HttpRequest, rest: str) -> HttpResponse:
    """Answers for addresses that do not exist."""
    raise ProblemDetails(
        404, f"There is no {request.path}: GET /api/openapi.json lists what there is."
    )


def _opened(pattern: URLPattern) -> URLPattern:
    """Let an address see to its visitors itself, and refuse a method as it refuses the rest."""
    operate = pattern.callback

    @csrf_exempt
    @never_cache
    @login_not_required
    def view(request: HttpRequest, **arguments: object) -> HttpResponse:
        # RFC 9110, 9.3.2: HEAD answers as GET does; the server leaves the content out.
        method = request.method
        if method == "HEAD":
            request.method = "GET"
        response: HttpResponse = operate(request, **arguments)
        request.method = method
        if not isinstance(response, HttpResponseNotAllowed):
            return response
        if Token()(request) is None:
            return problems.unauthorized()
        allowed = response["Allow"].replace("GET", "GET, HEAD")
        detail = f"This address takes {allowed} and not {method}."
        return problems.answer(ProblemDetails(405, detail), {"Allow": allowed})

    pattern.callback = view
    return pattern


# The framework's last address is its start page, which would show an unknown client an error page.
urlpatterns = [
    _opened(pattern)
    for pattern in api.urls[0]
    if isinstance(pattern, URLPattern) and pattern.name != "api-root"
]
