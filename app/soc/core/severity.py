"""How bad a condition is."""

from django.db import models


class Severity(models.IntegerChoices):
    """Severities in their order, so that a worse one compares as greater."""

    OK = 0, "ok"
    INFO = 10, "info"
    WARNING = 20, "warning"
    CRITICAL = 30, "critical"
