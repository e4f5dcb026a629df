"""The addresses of alerts."""

from django.urls import path

from soc.alerts import by_link, handover, views
from soc.alerts.linked import LINKED

urlpatterns = [
    path(LINKED["alerts"], views.alerts, name="alerts"),
    path("alerts/live/", views.alerts_live, name="alerts-live"),
    path("alerts/operate/", views.operate, name="alerts-operate"),
    path(LINKED["alert"], views.alert, name="alert"),
    path(LINKED["handover"], handover.handover, name="handover"),
    path(LINKED["acknowledge"], by_link.acknowledge, name="acknowledge"),
    path("alerts/<int:key>/live/", views.alert_live, name="alert-live"),
]
