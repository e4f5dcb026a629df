"""The application's addresses."""

from django.urls import path
from soc.demo import views
from soc.demo.linked import LINKED

urlpatterns = [
    path(LINKED["demo"], views.demo, name="demo"),
    path("demo/live/", views.demo_live, name="demo-live"),
]
