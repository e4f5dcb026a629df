"""Chooses alerts by what programs and command lines ask for."""

from django.db.models import QuerySet

from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity

ANY_STATE = "any"


def select(
    *,
    application: str = "",
    rule: str = "",
    site: str = "",
    severity: str = "",
    state: str = "",
    subject: str = "",
) -> QuerySet[Alert]:
    """Return the alerts that agree with all that is asked for, the newest first.

    ``severity`` is a word and ``subject`` a part of the name; without a ``state`` only open alerts
    are chosen, with ``ANY_STATE`` all.

    Raises:
        KeyError: there is no such severity.
    """
    alerts = Alert.objects.select_related("rule", "subject").order_by("-pk")
    exact = {"rule__application": application, "rule__name": rule, "site": site}
    alerts = alerts.filter(**{field: value for field, value in exact.items() if value})
    if severity:
        alerts = alerts.filter(severity=Severity[severity.upper()])
    if subject:
        alerts = alerts.filter(subject__name__icontains=subject)
    if state == ANY_STATE:
        return alerts
    return alerts.filter(state=state) if state else alerts.filter(OPEN)
