"""The addresses of cron jobs."""

from django.urls import path

from soc.cronjobs import views
from soc.cronjobs.linked import LINKED

urlpatterns = [
    path(LINKED["cronjobs"], views.cronjobs, name="cronjobs"),
    path("cronjobs/live/", views.cronjobs_live, name="cronjobs-live"),
    # As curl asks for it: no redirect to an address with a slash.
    path(LINKED["ping"], views.ping, name="ping"),
    path("ping/<str:secret>/<str:outcome>", views.ping, name="ping-outcome"),
]
