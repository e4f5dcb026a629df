"""Sources of the inventory, what each has brought, and its runs."""

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone

from soc.common.due import slot_after
from soc.core.models import Retention
from soc.core.sealed import SealedField
from soc.trust.models import Authority

LONGEST_KEY = 300


def validate_mapping(mapping: Any) -> None:
    """Refuse a mapping that is not from names to paths.

    Raises:
        ValidationError: it is something else.
    """
    texts = isinstance(mapping, dict) and all(isinstance(path, str) for path in mapping.values())
    if not texts:
        raise ValidationError('Invalid mapping: use {"field": "path", …}.')


class InventoryKind(models.TextChoices):
    """What a list is of."""

    LOCATIONS = "locations"
    ROBOTS = "robots"
    ENDPOINTS = "endpoints"
    DIRECTORIES = "directories", "directory servers"


class InventorySource(models.Model):
    """An address at which a list of objects is, and how to read it."""

    class Shape(models.TextChoices):
        """How the list is written."""

        TABLE = "table", "JSON or CSV"
        NETBOX = "netbox", "NetBox's API"

    class Mode(models.TextChoices):
        """What a run may do."""

        DRY = "dry", "dry run"
        IMPORT = "import"
        ACCEPT = "accept", "accept a shorter list"

    name = models.CharField(max_length=100, unique=True, help_text="What alerts are about.")
    kind = models.CharField("objects", max_length=12, choices=InventoryKind)
    shape = models.CharField(max_length=8, choices=Shape, default=Shape.TABLE)
    enabled = models.BooleanField(
        default=False, help_text="Import by itself. Without it there are dry runs only."
    )
    url = models.CharField(
        "address",
        max_length=500,
        validators=[RegexValidator("^https://", "Use an address that begins with https://.")],
    )
    authorization = SealedField(
        help_text="The value of the header Authorization, such as: Token 0123… or Bearer eyJ…"
    )
    authority = models.ForeignKey(
        Authority,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        help_text="The CA of the address; empty: the system's store.",
    )
    items = models.CharField(
        "path of the list",
        max_length=200,
        blank=True,
        help_text="In JSON, such as data.hosts; empty: the document is the list.",
    )
    mapping = models.JSONField(
        default=dict,
        blank=True,
        validators=[validate_mapping],
        help_text=(
            'Fields and where they are, such as {"host": "name", "site": "site.name", '
            '"expected_minutes": "=15"}; a value after = is the same for all. '
            "Empty: the fields' own names, and for NetBox those of its API."
        ),
    )
    most_missing = models.PositiveSmallIntegerField(
        "most missing (%)",
        default=10,
        validators=[MaxValueValidator(100)],
        help_text="If more of the objects are missing than that, a person is asked first.",
    )
    interval_minutes = models.PositiveIntegerField(
        "interval (min)",
        default=1440,
        validators=[MinValueValidator(5), MaxValueValidator(7 * 24 * 60)],
    )
    requested = models.CharField(max_length=6, choices=Mode, blank=True, editable=False)
    next_run_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("name",)
        permissions = (("run_inventorysource", "Can run inventory sources"),)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """Return the address of the source's page."""
        return reverse("inventory-source", args=[self.pk])

    def slot_after(self, moment: datetime) -> datetime:
        """Return the source's next turn after a moment."""
        return slot_after(self.name, self.interval_minutes, moment)


class InventoryObject(models.Model):
    """An object that a source has brought, by its key."""

    source = models.ForeignKey(InventorySource, on_delete=models.CASCADE, related_name="objects_of")
    key = models.CharField(max_length=LONGEST_KEY)
    missing_since = models.DateTimeField(null=True, help_text="The source has it no more.")

    class Meta:
        ordering = ("key",)
        constraints = (
            models.UniqueConstraint(fields=["source", "key"], name="inventory_object_key"),
        )

    def __str__(self) -> str:
        return self.key


class InventoryRun(models.Model):
    """What a reading of a source has led to, or would lead to."""

    class Outcome(models.TextChoices):
        """How it ended."""

        DONE = "done"
        QUESTION = "question", "a person is asked"
        FAILED = "failed"

    source = models.ForeignKey(InventorySource, on_delete=models.CASCADE, related_name="runs")
    at = models.DateTimeField(default=timezone.now)
    mode = models.CharField(max_length=6, choices=InventorySource.Mode)
    outcome = models.CharField(max_length=8, choices=Outcome)
    created = models.PositiveIntegerField(default=0)
    changed = models.PositiveIntegerField(default=0)
    same = models.PositiveIntegerField(default=0)
    missing = models.PositiveIntegerField(default=0)
    wrong = models.PositiveIntegerField(default=0)
    detail = models.TextField(blank=True)
    lines = models.JSONField(
        default=list, help_text="Action, key and words of what is not the same."
    )

    retention = Retention("at", days=90)

    class Meta:
        ordering = ("-at",)
        indexes = (models.Index(fields=["at"], name="inventory_run_age"),)

    def __str__(self) -> str:
        return f"{self.source} at {self.at:%Y-%m-%d %H:%M}"

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.outcome == self.Outcome.FAILED:
            return "bad"
        return "warn" if self.wrong or self.outcome == self.Outcome.QUESTION else "ok"
