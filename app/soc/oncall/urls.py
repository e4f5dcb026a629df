"""The addresses of rotas."""

from django.urls import path

from soc.oncall import views
from soc.oncall.linked import LINKED

urlpatterns = [
    path(LINKED["oncall"], views.oncall, name="oncall"),
    path("oncall/live/", views.oncall_live, name="oncall-live"),
    path("oncall/<int:key>/calendar.ics", views.calendar, name="oncall-calendar"),
]
