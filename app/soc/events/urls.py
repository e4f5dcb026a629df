"""The addresses of the event stream's pages."""

from django.urls import path

from soc.events import views
from soc.events.linked import LINKED

urlpatterns = [path(LINKED["queues"], views.queues, name="queues")]
