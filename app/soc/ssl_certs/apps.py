"""Django's entry to the certificate tracker."""

from django.apps import AppConfig


class SslCertsConfig(AppConfig):
    """Scans TLS endpoints and warns of certificates that expire or fail verification."""

    name = "soc.ssl_certs"
    verbose_name = "Certificates"

    def set_up(self) -> None:
        """Register the stack's own endpoints."""
        from soc.ssl_certs import own

        own.register()
