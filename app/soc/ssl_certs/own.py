"""The stack's own TLS endpoints: the first things that a new site watches."""

from django.conf import settings

from soc.ssl_certs.models import Authority, Endpoint, Group

RENEWED_BY_HAND = "renewed by hand"
"""The group of endpoints of whose end people want to know a fixed number of days before."""

_CONTAINERS = (
    ("web", 8443, Endpoint.StartTls.NONE),
    ("flower", 5555, Endpoint.StartTls.NONE),
    ("rabbitmq", 5671, Endpoint.StartTls.NONE),
    ("mariadb", 3306, Endpoint.StartTls.MYSQL),
)


def register() -> None:
    """Register the endpoints of this stack at its first start, trusting the site's CA.

    Later starts keep what an operator made of them, and the CA up to date.
    """
    authority, first = Authority.objects.update_or_create(
        name="site CA", defaults={"pem": (settings.IDENTITY / "ca.pem").read_text()}
    )
    if not first:
        return
    shares = dict.fromkeys(("critical_share", "error_share", "warning_share"), 100)
    group, _ = Group.objects.get_or_create(name=RENEWED_BY_HAND, defaults=shares)
    for host, port, starttls in _own():
        Endpoint.objects.get_or_create(
            host=host,
            port=port,
            server_name="",
            defaults={
                "starttls": starttls,
                "authority": authority,
                "group": group,
                "notes": "Part of this stack; registered at its first start.",
            },
        )


def _own() -> list[tuple[str, int, Endpoint.StartTls]]:
    if settings.EMBEDDED:
        ports = (settings.SITE["SOC_WEB_PORT"], settings.SITE["SOC_FLOWER_PORT"])
        own = [("localhost", int(port), Endpoint.StartTls.NONE) for port in ports]
    else:
        own = list(_CONTAINERS)
    if settings.SITE.get("COMPOSE_PROFILES") == "catcher":
        own.append((settings.SMTP_HOST, settings.SMTP_PORT, Endpoint.StartTls.SMTP))
    return own
