"""The pages of the inventory: its sources, and the runs of one."""

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from soc.common import live
from soc.inventory import importing
from soc.inventory.models import InventoryRun, InventorySource

VIEW = "inventory.view_inventorysource"
MOST_RUNS = 20
MOST_MISSING = 200
_may_run = permission_required("inventory.run_inventorysource", raise_exception=True)


def _listing(_: HttpRequest) -> dict[str, object]:
    newest = InventoryRun.objects.filter(source=OuterRef("pk")).order_by("-at").values("pk")[:1]
    sources = list(InventorySource.objects.annotate(newest=Subquery(newest)))
    runs = InventoryRun.objects.defer("lines").in_bulk([source.newest for source in sources])
    rows = [(source, runs.get(source.newest)) for source in sources]
    return {"rows": rows, "now": timezone.now()}


def _detail(_: HttpRequest, key: int) -> dict[str, object]:
    source = get_object_or_404(InventorySource, pk=key)
    missing = source.objects_of.exclude(missing_since=None)
    runs = source.runs.defer("lines")[:MOST_RUNS]
    return {
        "source": source,
        "last": source.runs.first(),
        "runs": list(runs),
        "missing": list(missing[:MOST_MISSING]),
        "now": timezone.now(),
    }


inventory, inventory_live = live.pages("inventory/list.html", VIEW, _listing)
inventory_source, inventory_source_live = live.pages("inventory/source.html", VIEW, _detail)


@require_POST
@_may_run
def run_source(request: HttpRequest, key: int) -> HttpResponse:
    """Have a source run in the mode that was chosen."""
    source = get_object_or_404(InventorySource, pk=key)
    mode = request.POST.get("mode", "")
    if mode not in InventorySource.Mode.values:
        return HttpResponse("Invalid mode: use a button of the page.", status=400)
    importing.ask(source, InventorySource.Mode(mode))
    messages.success(request, f"{source} runs within 30 s: {InventorySource.Mode(mode).label}.")
    return redirect("inventory-source", key)
