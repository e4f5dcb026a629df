"""The addresses of the event stream's pages."""

from django.urls import path

from soc.events import views

urlpatterns = [path("queues/", views.queues, name="queues")]
