"""The admin's pages of the application."""

from django.contrib import admin
from soc.demo.models import DemoCounter
from unfold.admin import ModelAdmin


@admin.register(DemoCounter)
class DemoCounterAdmin(ModelAdmin):
    """The counters."""

    list_display = ("name", "value", "limit", "enabled")
    search_fields = ("name",)
