"""Deletes rows past their retention, in batches that never hold a lock for long."""

from datetime import timedelta

from django.apps import apps
from django.db import models
from django.utils import timezone

from soc.core.models import RETENTION_OF_PACKAGES, Retention
from soc.schedules.schedules import forget_finished_runs

BATCH = 1000


def run() -> dict[str, int]:
    """Apply every model's ``retention``; return the number of deleted rows by model."""
    kept = {model: getattr(model, "retention", None) for model in apps.get_models()}
    deleted = {
        model._meta.label: _delete_old(model, retention)
        for model, retention in (kept | RETENTION_OF_PACKAGES).items()
        if isinstance(retention, Retention)
    }
    deleted["finished run requests"] = forget_finished_runs(timedelta(days=1))
    return deleted


def _delete_old(model: type[models.Model], retention: Retention) -> int:
    limit = timezone.now() - timedelta(days=retention.days)
    old = model._default_manager.filter(**{f"{retention.field}__lt": limit})
    total = 0
    while keys := list(old.order_by(retention.field).values_list("pk", flat=True)[:BATCH]):
        total += model._default_manager.filter(pk__in=keys).delete()[0]
    return total
