"""Rotas: who is on call by turns, and who stands in for whom."""

from datetime import date
from datetime import time as clock_time
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from soc.provision.environment import split

WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
"""As an RRULE names them (RFC 5545, 3.3.10), in the order of ``date.weekday``."""


def site_zone() -> str:
    """Return the site's time zone."""
    return settings.TIME_ZONE


def today() -> date:
    """Return the date at the site."""
    return timezone.localdate()


def validate_zone(name: str) -> None:
    """Check the name of a time zone.

    Raises:
        ValidationError: there is none of that name.
    """
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValidationError(
            f"Invalid time zone {name!r}: use one such as Europe/Berlin"
        ) from None


def validate_weekdays(value: str) -> None:
    """Check weekdays, comma separated.

    Raises:
        ValidationError: one is none.
    """
    wrong = [day for day in split(value) if day not in WEEKDAYS]
    if wrong:
        raise ValidationError(f"Invalid weekdays {', '.join(wrong)}: use {', '.join(WEEKDAYS)}")


class Rota(models.Model):
    """People who are on call by turns, each for a shift of whole days."""

    name = models.CharField(max_length=100, unique=True)
    time_zone = models.CharField(
        max_length=60,
        default=site_zone,
        validators=[validate_zone],
        help_text="In which its times are, such as Europe/Berlin.",
    )
    starts_on = models.DateField(
        default=today, help_text="When the first shift of the first person begins."
    )
    handover_at = models.TimeField(default=clock_time(9), help_text="When one follows another.")
    shift_days = models.PositiveSmallIntegerField(
        "shift (days)",
        default=7,
        validators=[MinValueValidator(1), MaxValueValidator(366)],
    )
    weekdays = models.CharField(
        max_length=30,
        blank=True,
        validators=[validate_weekdays],
        help_text="Comma separated, such as MO,TU,WE,TH,FR; empty: every day.",
    )
    hours_from = models.TimeField(null=True, blank=True, help_text="Empty: round the clock.")
    hours_until = models.TimeField(
        null=True, blank=True, help_text="May lie after midnight: 18:00 to 08:00."
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse hours without a start or an end.

        Raises:
            ValidationError: one of them is missing, or they are the same.
        """
        if (self.hours_from is None) != (self.hours_until is None):
            raise ValidationError({"hours_until": "Hours need a start and an end."})
        if self.hours_from is not None and self.hours_from == self.hours_until:
            raise ValidationError({"hours_until": "Round the clock: leave both empty."})

    @property
    def zone(self) -> ZoneInfo:
        """Its time zone."""
        return ZoneInfo(self.time_zone)


class RotaMember(models.Model):
    """A person of a rota; they take turns in the order of their positions."""

    rota = models.ForeignKey(Rota, on_delete=models.CASCADE, related_name="members")
    person = models.ForeignKey("auth.User", on_delete=models.CASCADE)
    position = models.PositiveSmallIntegerField(default=1)

    class Meta:
        ordering = ("position", "pk")
        verbose_name = "member"

    def __str__(self) -> str:
        return f"{self.rota}: {self.person}"


class ShiftOverride(models.Model):
    """A time in which another person is on call in place of who has the turn."""

    rota = models.ForeignKey(Rota, on_delete=models.CASCADE, related_name="overrides")
    person = models.ForeignKey("auth.User", on_delete=models.CASCADE)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(db_index=True)
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("-starts_at",)
        verbose_name = "override"
        constraints = (
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")),
                name="override_has_a_length",
                violation_error_message="It ends before it starts.",
            ),
        )

    def __str__(self) -> str:
        return f"{self.rota}: {self.person}"
