"""The address of a job, and the page of all jobs."""

from django.contrib.auth.decorators import login_not_required
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from soc.access import throttle
from soc.common import live
from soc.cronjobs import pings
from soc.cronjobs.models import LONGEST_TEXT, CronJob
from soc.cronjobs.pages import rows

RETRY_AFTER = 10
"""Seconds."""


def _listing(_: HttpRequest) -> dict[str, object]:
    now = timezone.now()
    return {"rows": rows(CronJob.objects.all(), now), "now": now}


cronjobs, cronjobs_live = live.pages("cronjobs/list.html", "cronjobs.view_cronjob", _listing)


@csrf_exempt
@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def ping(request: HttpRequest, secret: str, outcome: str = "0") -> HttpResponse:
    """Note that a job has run: ``outcome`` is its exit status, or ``fail``."""
    if outcome != "fail" and not (outcome.isascii() and outcome.isdecimal()):
        return _said("Invalid outcome: use nothing, an exit status, or fail.", 404)
    try:
        job = pings.of_secret(secret)
        if job is None:
            if wait := throttle.refuse_token(request):
                text = f"Too many wrong addresses came from yours: try again in {wait} s."
                return _said(text, 429, wait)
            return _said("There is no such job: an administrator gives it an address.", 404)
        text = request.read(4 * LONGEST_TEXT).decode(errors="replace")
        address = request.META.get("REMOTE_ADDR") or None
        pings.take(job, failed=outcome.strip("0") != "", address=address, text=text)
    except OperationalError:
        return _said("The database is busy or away: try again.", 503, RETRY_AFTER)
    return _said("OK", 200)


def _said(text: str, status: int, retry_after: int = 0) -> HttpResponse:
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return HttpResponse(f"{text}\n", "text/plain; charset=utf-8", status, headers=headers)
