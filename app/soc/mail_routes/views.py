"""The pages of the mail routes."""

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from soc.common import live
from soc.mail_routes import accounts, pages, trips
from soc.mail_routes.models import MailRoute

VIEW = "mail_routes.view_mailroute"
_may_check = permission_required("mail_routes.check_mailroute", raise_exception=True)


def _listing(_: HttpRequest) -> dict[str, object]:
    rows = pages.read_list()
    failing = sum(row.tone in ("bad", "warn") for row in rows)
    return {"rows": rows, "failing": failing, "now": timezone.now()}


def _detail(_: HttpRequest, key: int) -> dict[str, object]:
    related = ("smtp_account", "imap_account", "smtp_authority", "imap_authority")
    route = get_object_or_404(MailRoute.objects.select_related(*related), pk=key)
    ends = dict.fromkeys((route.smtp_account, route.imap_account))
    return {
        "route": route,
        "detail": pages.read_detail(route, timezone.now()),
        "held": [account for account in ends if accounts.is_held(account)],
        "phases": list(pages.PHASES.values()),
    }


mail_routes, mail_routes_live = live.pages("mail_routes/list.html", VIEW, _listing)
mail_route, mail_route_live = live.pages("mail_routes/route.html", VIEW, _detail)


@require_POST
@_may_check
def check_route(request: HttpRequest, key: int) -> HttpResponse:
    """Make a route due, and allow an account that is not tried any more one login."""
    route = get_object_or_404(MailRoute, pk=key)
    if not route.enabled:
        messages.warning(request, f"{route} is not watched: enable it first.")
    else:
        used = [key for key in (route.smtp_account_id, route.imap_account_id) if key]
        accounts.try_now(used)
        trips.check_now([route.pk])
        messages.success(request, f"{route} is checked within 15 s.")
    return redirect("mail-route", key)
