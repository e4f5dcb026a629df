"""The alerts' pages: the list, one alert, and what operators do on them."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from soc.alerts import actions, lists, strips
from soc.alerts.models import Alert
from soc.common import live

LONGEST_NOTE = 2_000
LONGEST_COMMENT = 200
SILENCES = (
    (30, "30 minutes"),
    (60, "1 hour"),
    (120, "2 hours"),
    (240, "4 hours"),
    (480, "8 hours"),
    (1440, "1 day"),
    (10080, "1 week"),
)

VIEW = "alerts.view_alert"
_may_operate = permission_required("alerts.operate_alert", raise_exception=True)


def _listing(request: HttpRequest) -> dict[str, object]:
    query = lists.AlertsFilter.of(request.GET)
    listing = lists.read_page(query, request.GET.get("page", ""), timezone.now())
    here = f"{reverse('alerts')}?{query.query}"
    number = listing.page.number
    return {"listing": listing, "here": f"{here}&page={number}" if number > 1 else here}


def _around_list(request: HttpRequest) -> dict[str, object]:
    query = lists.AlertsFilter.of(request.GET)
    return {"choices": lists.choices(query, timezone.now()), "silences": SILENCES}


def _detail(_: HttpRequest, key: int) -> dict[str, object]:
    now = timezone.now()
    found = get_object_or_404(Alert.objects.select_related("rule", "subject"), pk=key)
    return {
        "detail": lists.read_detail(found, now),
        "alert": found,
        "strip": strips.of_subject(found.subject, now),
        "now": now,
    }


def _around_alert(*_: object, **__: object) -> dict[str, object]:
    return {"silences": SILENCES}


alerts, alerts_live = live.pages("alerts/list.html", VIEW, _listing, _around_list)
alert, alert_live = live.pages("alerts/alert.html", VIEW, _detail, _around_alert)


# --- Operating ----------------------------------------------------------------------------------


class Operation(forms.Form):
    """What an operator wants done."""

    action = forms.ChoiceField(
        choices=[(name, name) for name in ("acknowledge", "resolve", "silence", "note")]
    )
    note = forms.CharField(required=False, max_length=LONGEST_NOTE)
    minutes = forms.TypedChoiceField(choices=SILENCES, coerce=int, required=False, empty_value="60")
    lasting = forms.TypedChoiceField(
        choices=[("", "it is over"), *SILENCES], coerce=int, required=False, empty_value="0"
    )
    scope = forms.ChoiceField(choices=[("", "selected"), ("all", "all")], required=False)
    newest = forms.IntegerField(required=False)
    back = forms.CharField(required=False)

    def clean(self) -> dict[str, Any]:
        """Refuse an action without the words that it needs."""
        data = self.cleaned_data
        action, note = data.get("action"), data.get("note", "")
        if action == "note" and not note:
            self.add_error("note", "An empty note says nothing.")
        if action == "silence" and not 0 < len(note) <= LONGEST_COMMENT:
            self.add_error(
                "note", f"A silence needs a reason of at most {LONGEST_COMMENT} letters."
            )
        if data.get("scope") == "all" and data.get("newest") is None:
            self.add_error("newest", "It is not said which alerts all are.")
        return data


@require_POST
@_may_operate
def operate(request: HttpRequest) -> HttpResponse:
    """Do something with the selected alerts, or with all that match the address's filter."""
    form = Operation(request.POST)
    if form.is_valid():
        level, text = _done(request, form.cleaned_data)
        messages.add_message(request, level, text)
    else:
        reasons = [str(error) for errors in form.errors.values() for error in errors]
        messages.error(request, f"Nothing was done. {' '.join(reasons)}")
    return redirect(_way_back(request))


def _way_back(request: HttpRequest) -> str:
    back = request.POST.get("back", "")
    # A path of this site and nothing else: a form from elsewhere must not send people away.
    if back.startswith("/") and url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        return back
    return reverse("alerts")


def _chosen(request: HttpRequest, data: dict[str, Any]) -> QuerySet[Alert]:
    if data["scope"] == "all":
        matching = lists.AlertsFilter.of(request.GET).matching(timezone.now())
        # What has opened since the page was read was not looked at.
        return matching.filter(pk__lte=data["newest"])
    keys = [key for key in request.POST.getlist("alert") if key.isdecimal() and len(key) < 19]
    return Alert.objects.filter(pk__in=keys)


def _done(request: HttpRequest, data: dict[str, Any]) -> tuple[int, str]:
    """Do it, and tell what was done."""
    chosen, by, note = _chosen(request, data), request.user.get_username(), data["note"]
    asked = chosen.count()
    if not asked:
        return messages.WARNING, "Nothing was done: no alert was selected."
    match data["action"]:
        case "acknowledge":
            lasting = timedelta(minutes=int(data["lasting"])) or None
            done = actions.acknowledge(chosen, by, note, lasting)
            return _told(asked, done, "acknowledged")
        case "resolve":
            return _told(asked, actions.resolve(chosen, by, note), "resolved")
        case "silence":
            duration = timedelta(minutes=int(data["minutes"]))
            count = actions.silence(chosen, by, note, duration)
            until = timezone.localtime(timezone.now() + duration)
            subjects = "1 subject is" if count == 1 else f"{count:,} subjects are"
            return messages.SUCCESS, f"{subjects} silent until {until:%H:%M on %d %B}."
    for one in chosen[:1]:
        actions.add_note(one, by, note)
    return messages.SUCCESS, "The note is in the timeline."


def _told(asked: int, done: int, what: str) -> tuple[int, str]:
    alerts = "1 alert was" if done == 1 else f"{done:,} alerts were"
    text = f"{alerts} {what}."
    if done == asked:
        return messages.SUCCESS, text
    rest = asked - done
    others = "1 could not be" if rest == 1 else f"{rest:,} could not be"
    return messages.WARNING if done == 0 else messages.SUCCESS, f"{text} {others}: see their state."
