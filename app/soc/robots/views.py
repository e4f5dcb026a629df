"""The pages of robots and their sites."""

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils import timezone

from soc.common import live
from soc.events.models import Site
from soc.robots import data

VIEW = "alerts.view_alert"


def _overview(_: HttpRequest) -> dict[str, object]:
    return {"overview": data.read_overview(timezone.now())}


def _site(_: HttpRequest, key: int) -> dict[str, object]:
    return {"page": data.read_site(get_object_or_404(Site, pk=key), timezone.now())}


robots, robots_live = live.pages("robots/list.html", VIEW, _overview)
site, site_live = live.pages("robots/site.html", VIEW, _site)
