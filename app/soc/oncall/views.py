"""The page of all rotas, and the calendar of one."""

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from soc.access import feeds
from soc.common import live
from soc.oncall import feed, pages, plan

VIEW = "oncall.view_rota"


def _listing(_: HttpRequest) -> dict[str, object]:
    now = timezone.now()
    return {"views": pages.views(now), "now": now}


oncall, oncall_live = live.pages("oncall/list.html", VIEW, _listing)


@login_not_required
@require_safe
@never_cache
def calendar(request: HttpRequest, key: int) -> HttpResponse:
    """Return a rota as a calendar, to who has an API token or has signed in."""
    if refusal := feeds.refusal(request, VIEW):
        return refusal
    now = timezone.now()
    found = plan.read(now, [key])
    if not found:
        return HttpResponse("There is no such rota.\n", "text/plain", 404)
    link = request.build_absolute_uri(reverse("oncall"))
    body = feed.calendar(found[0], settings.SITE["SOC_SITE"], link, now)
    return feeds.answer(body, slugify(found[0].rota.name) or "rota")
