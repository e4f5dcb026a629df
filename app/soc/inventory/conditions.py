"""What runs report to the alerts."""

from typing import Any

from soc.alerts import actions, engine
from soc.alerts.conditions import Condition
from soc.core.severity import Severity
from soc.inventory.models import InventoryRun, InventorySource

APPLICATION = "inventory"
SOURCE = "source"
MISSING = "missing"


def report(run: InventoryRun) -> int:
    """Report what a run has led to; return how many mails that makes."""
    failed = run.outcome == InventoryRun.Outcome.FAILED
    conditions = [_condition(run, SOURCE, bad=failed or run.wrong > 0)]
    if not failed:
        conditions.append(_condition(run, MISSING, bad=run.outcome == run.Outcome.QUESTION))
    return sum(result.mails for result in engine.report(conditions))


def _condition(run: InventoryRun, rule: str, *, bad: bool) -> Condition:
    counts = ("created", "changed", "same", "missing", "wrong")
    return Condition(
        application=APPLICATION,
        rule=rule,
        subject=run.source.name,
        severity=Severity.WARNING if bad else Severity.OK,
        observed_at=run.at,
        summary=run.detail if bad else "",
        facts={name.title(): str(getattr(run, name)) for name in counts},
        link=run.source.get_absolute_url(),
    )


def before_save(instance: InventorySource, **_: Any) -> None:
    """Close alerts that no run will close: of a source that is renamed or disabled."""
    stored = InventorySource.objects.filter(pk=instance.pk).first()
    if stored and (stored.name != instance.name or not instance.enabled):
        actions.retire(APPLICATION, stored.name)


def after_delete(instance: InventorySource, **_: Any) -> None:
    """Close the alerts of a source that is gone."""
    actions.retire(APPLICATION, instance.name)
