"""Django's entry to the certificate tracker."""

from django.apps import AppConfig


class SslCertsConfig(AppConfig):
    """Scans TLS endpoints and warns of certificates that expire or fail verification."""

    name = "soc.ssl_certs"
    verbose_name = "Certificates"

    def ready(self) -> None:
        """Close the alerts of endpoints and authorities that are no longer watched."""
        from django.db.models.signals import post_delete, pre_save

        from soc.ssl_certs import conditions
        from soc.ssl_certs.models import Endpoint
        from soc.trust.models import Authority

        pre_save.connect(conditions.before_save, sender=Endpoint)
        post_delete.connect(conditions.after_delete, sender=Endpoint)
        pre_save.connect(conditions.before_save_of_authority, sender=Authority)
        post_delete.connect(conditions.after_delete_of_authority, sender=Authority)

    def set_up(self) -> None:
        """Register the stack's own endpoints."""
        from soc.ssl_certs import own

        own.register()
