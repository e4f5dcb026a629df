"""The inventory's place in the navigation."""

from soc.common.nav import Menu, Page

PAGES = (Page("Inventory", "inventory", "inventory.view_inventorysource"),)
MENU = Menu(
    "Watch",
    ("Inventory sources", "inventory_2", "inventory.inventorysource"),
    ("Inventory runs", "checklist", "inventory.inventoryrun"),
)
