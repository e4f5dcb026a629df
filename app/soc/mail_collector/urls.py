"""The mail collector's addresses."""

from django.urls import path

from soc.mail_collector import views
from soc.mail_collector.linked import LINKED

urlpatterns = [
    path(LINKED["mail-matrix"], views.mail, name="mail-matrix"),
    path("mail/live/", views.mail_live, name="mail-matrix-live"),
]
