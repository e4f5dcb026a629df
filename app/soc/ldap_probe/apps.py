"""Django's entry to the directory probes."""

from django.apps import AppConfig


class LdapProbeConfig(AppConfig):
    """Probes directory servers: do they answer, rightly, and soon enough."""

    name = "soc.ldap_probe"
    verbose_name = "Directory servers"

    def ready(self) -> None:
        """Keep alerts and refusals in step with what an operator changes."""
        from django.db.models.signals import post_delete, pre_save

        from soc.ldap_probe import conditions, credentials
        from soc.ldap_probe.models import Credential, DirectoryServer

        pre_save.connect(conditions.before_save, sender=DirectoryServer)
        post_delete.connect(conditions.after_delete, sender=DirectoryServer)
        pre_save.connect(credentials.forget_refusals, sender=Credential)
        post_delete.connect(conditions.after_delete_of_credential, sender=Credential)
