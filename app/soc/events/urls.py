"""The addresses of the event stream's pages."""

from django.urls import path

from soc.events import views
from soc.events.linked import LINKED

urlpatterns = [
    path(LINKED["queues"], views.queues, name="queues"),
    path("shippers/", views.all_shippers, name="shippers"),
    path("shippers/live/", views.all_shippers_live, name="shippers-live"),
    path("shippers/<int:key>/", views.one_shipper, name="shipper"),
    path("shippers/<int:key>/live/", views.one_shipper_live, name="shipper-live"),
]
