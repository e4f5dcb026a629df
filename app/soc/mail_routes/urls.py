"""The addresses of the mail routes."""

from django.urls import path

from soc.mail_routes import views
from soc.mail_routes.linked import LINKED

urlpatterns = [
    path(LINKED["mail-routes"], views.mail_routes, name="mail-routes"),
    path("mail/routes/live/", views.mail_routes_live, name="mail-routes-live"),
    path(LINKED["mail-route"], views.mail_route, name="mail-route"),
    path("mail/routes/<int:key>/live/", views.mail_route_live, name="mail-route-live"),
    path("mail/routes/<int:key>/check/", views.check_route, name="mail-route-check"),
]
