"""Django's entry to the mail routes."""

from django.apps import AppConfig


class MailRoutesConfig(AppConfig):
    """Sends mail on its way and looks for it at the other end."""

    name = "soc.mail_routes"
    verbose_name = "Mail routes"

    def ready(self) -> None:
        """Keep alerts and refusals in step with what an operator changes."""
        from django.db.models.signals import post_delete, pre_save

        from soc.mail_routes import accounts, conditions
        from soc.mail_routes.models import MailAccount, MailRoute

        pre_save.connect(conditions.before_save, sender=MailRoute)
        post_delete.connect(conditions.after_delete, sender=MailRoute)
        pre_save.connect(accounts.clear_refusals, sender=MailAccount)
