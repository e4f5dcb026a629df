"""The addresses of robots and their sites."""

from django.urls import path

from soc.robots import views
from soc.robots.linked import LINKED

urlpatterns = [
    path(LINKED["robots"], views.robots, name="robots"),
    path("robots/live/", views.robots_live, name="robots-live"),
    path(LINKED["robots-site"], views.site, name="robots-site"),
    path("robots/site/<int:key>/live/", views.site_live, name="robots-site-live"),
]
