"""Django's entry to the directory probes."""

from django.apps import AppConfig


class LdapProbeConfig(AppConfig):
    """Probes directory servers and tells what keeps them from answering."""

    name = "soc.ldap_probe"
    verbose_name = "Directory servers"
