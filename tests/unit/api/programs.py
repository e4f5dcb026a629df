"""Programs that use the API."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client

from soc.core import tokens

RIGHTS = ("view_alert", "operate_alert", "report_condition", "view_rota")


@dataclass
class Program:
    """A program that sends a token, and no cookies."""

    secret: str

    def get(self, path: str, **query: Any) -> HttpResponse:
        return self._client().get(path, query, secure=True)

    def post(self, path: str, body: object = None, **options: Any) -> HttpResponse:
        content = body if isinstance(body, bytes | str) else json.dumps(body)
        if body is None:
            content = b""
        return self._client().post(path, content, "application/json", secure=True, **options)

    def _client(self) -> Client:
        headers = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        return Client(headers=headers, enforce_csrf_checks=True, raise_request_exception=False)


def make_program(*rights: str) -> Program:
    user = User.objects.create_user(f"user of {' '.join(rights) or 'nothing'}")
    user.user_permissions.set([Permission.objects.get(codename=right) for right in rights])
    return Program(tokens.create(str(user), user))


def problem_of(answer: HttpResponse, status: int) -> str:
    """Return the detail of a problem after checking its form (RFC 9457)."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["title"] == answer.reason_phrase
    return body["detail"]
