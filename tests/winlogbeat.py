"""Documents as Winlogbeat ships them, in the shapes of both generations."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from soc.events import shapes

PROVIDER, CHANNEL = "Test Robot", "Application"


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"


def of_6(**changes: Any) -> dict[str, Any]:
    """A document in the shape of Winlogbeat 6; its computer is its host unless changed too."""
    host = changes.get("host", {"name": "ROBOT-01"})
    name = str(host.get("name") if isinstance(host, dict) else host).strip()
    return {
        "@timestamp": stamp(timezone.now() - timedelta(seconds=5)),
        "source_name": PROVIDER,
        "log_name": CHANNEL,
        "record_number": "4711",
        "event_id": 1000,
        "level": "Information",
        "host": {"name": "ROBOT-01"},
        "computer_name": f"{name}.example.org",
        "event_data": {"param1": "a value"},
        "message": "Something happened",
        "beat": {"version": "6.8.23"},
    } | changes


def of_8(winlog: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A document in the shape of Winlogbeat 8."""
    return {
        "@timestamp": stamp(timezone.now() - timedelta(seconds=5)),
        "winlog": {
            "provider_name": PROVIDER,
            "channel": CHANNEL,
            "record_id": 4711,
            "event_id": "1000",
            "event_data": {"param1": "a value"},
        }
        | (winlog or {}),
        "event": {"code": "1000"},
        "log": {"level": "information"},
        "host": {"name": "robot-01", "ip": ["192.0.2.1"]},
        "message": "Something happened",
        "agent": {"type": "winlogbeat", "version": "8.17.0"},
    } | changes


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


def event(document: Any) -> shapes.WindowsEvent:
    return shapes.read(body(document))
