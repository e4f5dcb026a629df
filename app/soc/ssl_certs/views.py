"""The certificates' pages: the list, one endpoint, imports, and the calendar."""

from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from soc.access import feeds
from soc.common import live
from soc.ssl_certs import feed, imports, pages, searches, verification
from soc.ssl_certs.models import Endpoint, Group
from soc.trust.models import Authority

VIEW = "ssl_certs.view_endpoint"
LONGEST_LIST = 1_000_000
SHOWN_LINES = 500
ASKED_LATELY = timedelta(minutes=2)
"""A question whose task was lost keeps nobody from asking again after this."""

_may_scan = permission_required("ssl_certs.scan_endpoint", raise_exception=True)
_may_add = permission_required("ssl_certs.add_endpoint", raise_exception=True)


def _listing(request: HttpRequest) -> dict[str, object]:
    query = pages.EndpointFilter.of(request.GET)
    listing = pages.read_page(query, request.GET.get("page", ""), timezone.now())
    here = f"{reverse('certificates')}?{query.query}"
    number = listing.page.number
    return {"listing": listing, "here": f"{here}&page={number}" if number > 1 else here}


def _around_list(request: HttpRequest) -> dict[str, object]:
    return {"choices": pages.choices(pages.EndpointFilter.of(request.GET))}


def _detail(_: HttpRequest, key: int) -> dict[str, object]:
    now = timezone.now()
    related = Endpoint.objects.select_related("certificate", "authority", "group")
    found = get_object_or_404(related.defer("certificate__pem", "authority__pem"), pk=key)
    return {"endpoint": found, "detail": pages.read_detail(found, now), "now": now}


certificates, certificates_live = live.pages("certificates/list.html", VIEW, _listing, _around_list)
endpoint, endpoint_live = live.pages("certificates/endpoint.html", VIEW, _detail)


@require_POST
@_may_scan
def verify(request: HttpRequest, key: int) -> HttpResponse:
    """Ask whether a certificate has been renewed; a worker answers."""
    found = get_object_or_404(Endpoint.objects.select_related("certificate"), pk=key)
    recently = timezone.now() - ASKED_LATELY
    if found.verifications.filter(finished_at=None, requested_at__gt=recently).exists():
        messages.warning(request, "That is being verified already: the answer comes below.")
    else:
        verification.ask(found, request.user.get_username())
        messages.success(request, "Every address is asked now: the answer comes below.")
    return redirect("endpoint", key=key)


# --- Import -------------------------------------------------------------------------------------


class EndpointImportForm(forms.Form):
    """A list of endpoints, and what holds for lines that do not say otherwise."""

    text = forms.CharField(max_length=LONGEST_LIST, required=False)
    file = forms.FileField(required=False)
    port = forms.IntegerField(min_value=1, max_value=65535, initial=443)
    starttls = forms.ChoiceField(choices=Endpoint.StartTls, required=False)
    authority = forms.ModelChoiceField(Authority.objects.defer("pem"), required=False)
    group = forms.ModelChoiceField(Group.objects.all(), required=False)

    def clean(self) -> dict[str, object]:
        """Take the file's text instead of the field's, if there is a file."""
        data = self.cleaned_data
        if file := data.get("file"):
            if file.size > LONGEST_LIST:
                self.add_error("file", f"It has more than {LONGEST_LIST:,} bytes.")
                return data
            try:
                data["text"] = file.read().decode("utf-8-sig")
            except UnicodeDecodeError:
                self.add_error("file", "It is no text in UTF-8.")
        return data

    def plan(self) -> imports.ImportPlan:
        """Return what the import would do."""
        data = self.cleaned_data
        defaults = imports.Defaults(
            data["port"], data["starttls"], data["authority"], data["group"]
        )
        return imports.plan(data["text"], defaults)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@_may_add
def import_endpoints(request: HttpRequest) -> HttpResponse:
    """Judge a list line by line, and import it when the person has seen that."""
    form = EndpointImportForm(request.POST or None, request.FILES or None, initial={"port": 443})
    plan = form.plan() if form.is_bound and form.is_valid() else None
    if plan and request.POST.get("action") == "import" and plan.does_something:
        search = imports.carry_out(plan, request.user.get_username())
        messages.success(request, _told(plan, bool(search)))
        return redirect("certificates-import" if search else "certificates")
    lines = [*plan.problems, *(line for line in plan.lines if not line.problem)] if plan else []
    context = {
        "form": form,
        "plan": plan,
        "lines": lines[:SHOWN_LINES],
        "left_out": max(0, len(lines) - SHOWN_LINES),
        "searches": pages.searches(),
        "most": searches.MOST_ADDRESSES,
        "columns": imports.COLUMNS,
    }
    return render(request, "certificates/import.html", context)


def _told(plan: imports.ImportPlan, searched: bool) -> str:
    new = len(plan.new)
    text = f"{new} endpoint{' is' if new == 1 else 's are'} watched from now on."
    if searched:
        text += f" {len(plan.targets)} addresses are searched: the result comes below."
    return text


# --- Calendar -----------------------------------------------------------------------------------


@login_not_required
@require_safe
@never_cache
def calendar(request: HttpRequest) -> HttpResponse:
    """Return the expiries as a calendar, to who has an API token or has signed in."""
    if refusal := feeds.refusal(request, VIEW):
        return refusal
    link = request.build_absolute_uri(reverse("certificates"))
    body = feed.calendar(settings.SITE["SOC_SITE"], link, timezone.now())
    return feeds.answer(body, "certificates")
