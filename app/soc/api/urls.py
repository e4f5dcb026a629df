"""The addresses for programs."""

from django.urls import include, path

from soc.api import routes
from soc.metrics import metrics

urlpatterns = [
    path("metrics", metrics, name="metrics"),
    path("api/", include((routes.urlpatterns, "api"))),
]
