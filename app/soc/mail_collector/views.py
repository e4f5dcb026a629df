"""The page of the mail between domains."""

from django.http import HttpRequest
from django.utils import timezone

from soc.common import live
from soc.mail_collector import matrix


def _matrix(request: HttpRequest) -> dict[str, object]:
    return {"matrix": matrix.read(timezone.now(), request.user.has_perm)}


mail, mail_live = live.pages("mail_collector/matrix.html", "alerts.view_alert", _matrix)
