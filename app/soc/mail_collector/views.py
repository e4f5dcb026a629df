"""The page of the mail between domains."""

from django.http import HttpRequest
from django.utils import timezone

from soc.common import live
from soc.mail_collector import matrix


def _matrix(_: HttpRequest) -> dict[str, object]:
    return {"matrix": matrix.read(timezone.now())}


mail, mail_live = live.pages("mail_collector/matrix.html", "alerts.view_alert", _matrix)
