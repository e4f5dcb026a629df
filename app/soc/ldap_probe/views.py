"""The pages of the directory servers: the list, one server, a site, and the import."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from soc.common import live
from soc.common.listing import LONGEST_TERM
from soc.ldap_probe import credentials, importing, lists, pictures
from soc.ldap_probe.models import Credential, DirectoryServer

VIEW = "ldap_probe.view_directoryserver"
_may_probe = permission_required("ldap_probe.probe_directoryserver", raise_exception=True)
_may_import = permission_required(
    ("ldap_probe.add_directoryserver", "ldap_probe.change_directoryserver"), raise_exception=True
)


def _listing(request: HttpRequest) -> dict[str, object]:
    query = lists.DirectoryFilter.of(request.GET)
    return {"listing": lists.read_page(query, request.GET.get("page", ""), timezone.now())}


def _around_list(request: HttpRequest) -> dict[str, object]:
    return {"held": credentials.held(request.GET.get("credential", ""))}


def _detail(request: HttpRequest, key: int) -> dict[str, object]:
    now = timezone.now()
    known = DirectoryServer.objects.select_related("credential", "profile", "authority")
    server = get_object_or_404(known, pk=key)
    return {
        "server": server,
        "detail": lists.read_detail(server, request.GET.get("hours", ""), now),
        "phases": list(pictures.LABELS.values()),
        "spans": {"3": "3 hours", "24": "24 hours", "168": "7 days", "336": "14 days"},
        "now": now,
    }


directories, directories_live = live.pages("ldap_probe/list.html", VIEW, _listing, _around_list)
directory, directory_live = live.pages("ldap_probe/server.html", VIEW, _detail)


@live.page(VIEW)
def directories_compared(request: HttpRequest) -> HttpResponse:
    """Show the servers of a site side by side."""
    site = request.GET.get("site", "")[:LONGEST_TERM]
    context = {
        "site": site,
        "rows": lists.compare(site, timezone.now()),
        "phases": pictures.LABELS,
        "hours": int(lists.COMPARED_FOR.total_seconds() // 3600),
        "most": lists.MOST_COMPARED,
    }
    return render(request, "ldap_probe/compare.html", context)


@require_POST
@_may_probe
def probe_directory(request: HttpRequest, key: int) -> HttpResponse:
    """Make a server due: the next round, within seconds, takes it."""
    server = get_object_or_404(DirectoryServer, pk=key)
    if not server.enabled:
        messages.warning(request, f"{server} is not watched: enable it first.")
    else:
        DirectoryServer.objects.filter(pk=key).update(next_probe_at=timezone.now())
        messages.success(request, f"{server} is due: the next round, within 10 s, takes it.")
    return redirect("directory", key)


@require_POST
@_may_probe
def try_credential(request: HttpRequest, key: int) -> HttpResponse:
    """Allow one more bind with a credential that is not tried any more."""
    credential = get_object_or_404(Credential, pk=key)
    credentials.try_now([credential.pk])
    messages.success(
        request, f"The next round, within 10 s, tries {credential} at one server, then at the rest."
    )
    return redirect(f"{reverse('directories')}?credential={credential.pk}")


# --- Import -------------------------------------------------------------------------------------


class DirectoryImportForm(forms.Form):
    """A table of servers, as a file or as text."""

    file = forms.FileField(required=False)
    text = forms.CharField(required=False, max_length=importing.MOST_BYTES, strip=False)

    def clean(self) -> dict[str, Any]:
        """Read the table from where it is.

        Raises:
            ValidationError: it is nowhere, too long, or not UTF-8.
        """
        data = self.cleaned_data
        upload = data.get("file")
        if upload is None:
            if not data.get("text", "").strip():
                raise forms.ValidationError("There is nothing to import: choose a file.")
            return data
        if upload.size > importing.MOST_BYTES:
            raise forms.ValidationError(
                f"The file has more than {importing.MOST_BYTES:,} bytes: import it in parts."
            )
        try:
            data["text"] = upload.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise forms.ValidationError("The file is not UTF-8: save it as that.") from error
        return data


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@_may_import
def import_directories(request: HttpRequest) -> HttpResponse:
    """Show what an import would do line by line, and do it when that was seen."""
    form = DirectoryImportForm(request.POST or None, request.FILES or None)
    report = None
    if request.method == "POST" and form.is_valid():
        text = form.cleaned_data["text"]
        if request.POST.get("action") == "import":
            report = importing.run(text)
            if report.done:
                messages.success(request, report.in_words)
                return redirect("directories")
        else:
            report = importing.run(text, dry=True)
        form = DirectoryImportForm({"text": text})
    context = {"form": form, "report": report, "columns": importing.COLUMNS}
    return render(request, "ldap_probe/import.html", context)
