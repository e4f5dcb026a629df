"""Django's entry to the access application."""

from django.apps import AppConfig
from django.conf import settings


class AccessConfig(AppConfig):
    """Who may come in, what they may do, and the record of it."""

    name = "soc.access"
    verbose_name = "Access"

    def ready(self) -> None:
        """Give the tables of others a retention, and watch what people change."""
        from auditlog.models import LogEntry
        from axes.models import AccessAttempt
        from django.contrib.sessions.models import Session

        from soc.core.models import RETENTION_OF_PACKAGES, Retention

        RETENTION_OF_PACKAGES[LogEntry] = Retention("timestamp", days=settings.AUDIT_DAYS)
        RETENTION_OF_PACKAGES[AccessAttempt] = Retention("attempt_time", days=1)
        RETENTION_OF_PACKAGES[Session] = Retention("expire_date", days=0)
        # Only where people work: watching costs a query for each row that is saved.
        if settings.SERVES_PAGES:
            from soc.access import audit

            audit.watch()

    def set_up(self) -> None:
        """Give the administrators what new code may have brought."""
        from soc.access import roles

        roles.complete()
