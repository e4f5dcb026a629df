"""The API against its own description, with requests that schemathesis makes from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import schemathesis
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client
from hypothesis import HealthCheck, settings
from programs import Program
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from soc.alerts.models import Alert, Rule
from soc.api import routes
from soc.api.schemas import SeverityWord, StateChoice
from soc.core.links import with_host
from soc.core.severity import Severity

HANDLER = WSGIHandler()


def over_tls(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Pass a request on as the server does that ends TLS; plain http is redirected."""
    return HANDLER(environ | {"wsgi.url_scheme": "https"}, start_response)


described = schemathesis.openapi.from_dict(routes.api.get_openapi_schema(path_prefix="api/"))
described.app = over_tls
described.config.update(base_url="https://localhost")


@described.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_answers_as_it_describes(
    case: schemathesis.Case, program: Program, make_alert: Callable[..., Alert]
) -> None:
    # Wrong tokens are throttled: 429 is right.
    left_out = [ignored_auth]
    if case.path == "/api/v1/conditions":
        # Which rules there are is in no description.
        left_out.append(positive_data_acceptance)
    case.call_and_validate(
        headers={"Authorization": f"Bearer {program.secret}"}, excluded_checks=left_out
    )


def test_the_description_names_the_site_and_what_a_subject_needs() -> None:
    schema = described.raw_schema
    assert [server["url"] for server in schema["servers"]] == [with_host("/")]
    parts = schema["components"]["schemas"]
    for part in ("ConditionIn", "ParentIn"):
        assert parts[part]["properties"]["subject"]["minLength"] == 1


def test_an_address_that_answers_get_answers_head(
    program: Program, make_alert: Callable[..., Alert]
) -> None:
    one = f"/api/v1/alerts/{make_alert().pk}"
    client = Client(headers={"Authorization": f"Bearer {program.secret}"})
    for path in (one, "/api/v1/alerts", "/api/openapi.json"):
        got, head = client.get(path, secure=True), client.head(path, secure=True)
        assert (head.status_code, head.content) == (200, b"")
        assert head["Content-Length"] == str(len(got.content))
    assert client.head("/api/v1/alerts/0", secure=True).status_code == 422
    assert client.head("/api/v1/nowhere", secure=True).status_code == 404
    refused = client.head("/api/v1/conditions", secure=True)
    assert (refused.status_code, refused["Allow"]) == (405, "POST")
    assert client.post("/api/v1/alerts", secure=True)["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("moment", ["2026-11-22T18:00:00z", "2026-11-22t18:00:00Z"])
def test_a_time_with_small_letters_is_taken(program: Program, rule: Rule, moment: str) -> None:
    """RFC 3339, 5.6."""
    answer = program.post(
        "/api/v1/conditions",
        {"application": "tests", "rule": "works", "subject": "a", "severity": "ok"}
        | {"observed_at": moment},
    )
    assert answer.status_code == 200, answer.content


def test_the_words_of_the_schema_are_those_of_the_models() -> None:
    assert [(one.name, one.value) for one in SeverityWord] == [
        (one.name, one.label) for one in Severity
    ]
    states = [(one.name, one.value) for one in StateChoice if one != StateChoice.ANY]
    assert states == [(one.name, one.value) for one in Alert.State]
