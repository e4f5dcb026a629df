"""Django's entry to the inventory."""

from django.apps import AppConfig


class InventoryConfig(AppConfig):
    """Reads lists of what is to be watched."""

    name = "soc.inventory"
    verbose_name = "Inventory"

    def ready(self) -> None:
        """Keep alerts in step with what an operator changes."""
        from django.db.models.signals import post_delete, pre_save

        from soc.inventory import conditions
        from soc.inventory.models import InventorySource

        pre_save.connect(conditions.before_save, sender=InventorySource)
        post_delete.connect(conditions.after_delete, sender=InventorySource)
