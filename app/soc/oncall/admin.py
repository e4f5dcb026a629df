"""The admin's pages of rotas and overrides."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.auth.models import User
from django.db import models
from django.db.models import Count
from django.forms import ModelChoiceField
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from soc.oncall.models import Rota, RotaMember, ShiftOverride


class OffersPeople(BaseModelAdmin):
    """A form whose ``person`` is one who can be notified."""

    def formfield_for_foreignkey(
        self, db_field: models.ForeignKey[Any, Any], request: HttpRequest, **options: Any
    ) -> ModelChoiceField | None:
        """Offer people who have a mail address."""
        if db_field.name == "person":
            options["queryset"] = User.objects.filter(is_active=True).exclude(email="")
        return super().formfield_for_foreignkey(db_field, request, **options)


class MemberInline(OffersPeople, TabularInline):
    """The people, in the order of their turns."""

    model = RotaMember
    extra = 1
    ordering_field = "position"


@admin.register(Rota)
class RotaAdmin(ModelAdmin):
    """Who is on call by turns."""

    list_display = ("name", "turns", "time_zone", "handover_at", "hours")
    inlines = (MemberInline,)
    fieldsets = (
        (None, {"fields": ("name", "time_zone")}),
        (
            "Shifts",
            {
                "description": "The first person's first shift begins on that day. Changes of the "
                "order or the start count for the past as well: use overrides for single days.",
                "fields": (("starts_on", "handover_at", "shift_days"),),
            },
        ),
        (
            "Hours",
            {
                "description": "Out of these nobody is on call.",
                "fields": ("weekdays", ("hours_from", "hours_until")),
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Rota]:
        """Return the rotas with the number of their people."""
        found: models.QuerySet[Rota] = super().get_queryset(request)
        return found.annotate(people=Count("members"))

    @display(description="Turns")
    def turns(self, rota: Rota) -> str:
        """Return how often one follows another."""
        people = getattr(rota, "people", 0)
        return f"{people} people, {rota.shift_days} days each"

    @display(description="Hours")
    def hours(self, rota: Rota) -> str:
        """Return the hours in words."""
        days = rota.weekdays or "every day"
        if rota.hours_from is None or rota.hours_until is None:
            return days
        return f"{days}, {rota.hours_from:%H:%M} to {rota.hours_until:%H:%M}"


@admin.register(ShiftOverride)
class ShiftOverrideAdmin(OffersPeople, ModelAdmin):
    """Who stands in for whom."""

    list_display = ("rota", "person", "starts_at", "ends_at", "note")
    list_filter = ("rota", "person")
    list_select_related = ("rota", "person")
    date_hierarchy = "starts_at"
    fields = (("rota", "person"), ("starts_at", "ends_at"), "note")
