"""The application's page."""

from django.http import HttpRequest
from django.utils import timezone
from soc.demo.models import DemoCounter

from soc.common import live


def _counters(_: HttpRequest) -> dict[str, object]:
    return {"counters": DemoCounter.objects.filter(enabled=True), "now": timezone.now()}


demo, demo_live = live.pages("demo/list.html", "demo.view_democounter", _counters)
