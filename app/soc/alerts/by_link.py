"""The page behind a message's link: one alert, and one question (docs/security.md).

Reading it changes nothing: mail scanners follow links. Only its form acknowledges.
"""

from datetime import timedelta

from django import forms
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from soc.access import audit
from soc.alerts import actions, lists
from soc.alerts.models import Alert
from soc.notify import tickets
from soc.notify.models import OutboundMail

PERMISSION = "alerts.operate_alert"
LONGEST_NOTE = 500
CHOICES = ((30, "30 minutes"), (60, "1 hour"), (120, "2 hours"), (240, "4 hours"), (480, "8 hours"))
"""An acknowledgement by link always expires: nobody knows who has the message by then."""

_TOPIC = "alert:"


class Question(forms.Form):
    """Who acknowledges, for how long, and what there is to say."""

    name = forms.CharField(label="Your name", max_length=60)
    minutes = forms.TypedChoiceField(label="For", choices=CHOICES, coerce=int, initial=60)
    note = forms.CharField(required=False, max_length=LONGEST_NOTE)


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def acknowledge(request: HttpRequest, key: str, secret: str) -> HttpResponse:
    """Show the alert of a link and ask; acknowledge it once the form is sent."""
    try:
        mail = tickets.find(key, secret)
    except tickets.Expired:
        return _over(request, 410)
    except LookupError:
        return _over(request, 404)
    alert = _alert(mail)
    if alert is None:
        return _over(request, 410)
    signed_in = request.user.is_authenticated
    if signed_in and not request.user.has_perm(PERMISSION):
        return _page(request, alert, None, status=403)
    given = {"name": request.user.get_username()} if signed_in else {}
    sent = {**request.POST.dict(), **given} if request.method == "POST" else None
    form = Question(sent, initial=given)
    if request.method == "POST" and form.is_valid():
        _acknowledge(request, mail, alert, form)
        return redirect(request.path)
    open_question = Alert.objects.filter(actions.ACKNOWLEDGEABLE, pk=alert.pk).exists()
    return _page(request, alert, form if open_question else None, status=200)


def _alert(mail: OutboundMail) -> Alert | None:
    number = mail.topic.removeprefix(_TOPIC)
    known = Alert.objects.select_related("rule", "subject")
    return known.filter(pk=number).first() if number.isdecimal() else None


def _acknowledge(request: HttpRequest, mail: OutboundMail, alert: Alert, form: Question) -> None:
    by = form.cleaned_data["name"]
    if not request.user.is_authenticated:
        by = f"{by} (link of {mail.subscription})"[:150]
    lasting = timedelta(minutes=form.cleaned_data["minutes"])
    chosen = Alert.objects.filter(pk=alert.pk)
    if actions.acknowledge(chosen, by, form.cleaned_data["note"], lasting):
        audit.note_about(alert, f"Acknowledged by the link of message {mail.pk}", request, by)


def _page(
    request: HttpRequest, alert: Alert, form: Question | None, *, status: int
) -> HttpResponse:
    row = lists.AlertRow(alert, timezone.now())
    context = {"alert": alert, "row": row, "form": form, "refused": status == 403}
    return render(request, "alerts/by_link.html", context, status=status)


def _over(request: HttpRequest, status: int) -> HttpResponse:
    return render(request, "alerts/by_link.html", {"gone": True}, status=status)
