"""The inventory's pages that mails link to."""

LINKED = {"inventory": "inventory/", "inventory-source": "inventory/<int:key>/"}
