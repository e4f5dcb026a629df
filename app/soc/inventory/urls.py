"""The addresses of the inventory."""

from django.urls import path

from soc.inventory import views
from soc.inventory.linked import LINKED

urlpatterns = [
    path(LINKED["inventory"], views.inventory, name="inventory"),
    path("inventory/live/", views.inventory_live, name="inventory-live"),
    path(LINKED["inventory-source"], views.inventory_source, name="inventory-source"),
    path("inventory/<int:key>/live/", views.inventory_source_live, name="inventory-source-live"),
    path("inventory/<int:key>/run/", views.run_source, name="inventory-run"),
]
