"""What asks whether the site lives."""

from django.urls import path

from soc.core import readiness, views

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", readiness.readyz, name="readyz"),
]
