"""The stack's own TLS endpoints: the first things that a new site watches."""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from django.conf import settings

from soc.provision import environment
from soc.provision.identity import OWN_CERTIFICATE
from soc.ssl_certs.models import Endpoint, Group
from soc.trust.models import Authority

RENEWED_BY_HAND = "renewed by hand"
"""The group of endpoints of whose end people want to know a fixed number of days before."""

NOTES = "Part of this stack; registered at its first start."

_WEB_SERVERS = (("web", 8443), ("flower", 5555))
_CONTAINERS = (
    *((host, port, Endpoint.StartTls.NONE) for host, port in _WEB_SERVERS),
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
    if first:
        _register_all(authority)
    if not settings.EMBEDDED:
        for host, port in _WEB_SERVERS:
            _expect_what_it_presents(host, port, authority)


def _register_all(authority: Authority) -> None:
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
                "notes": NOTES,
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


def _expect_what_it_presents(host: str, port: int, authority: Authority) -> None:
    """Expect a certificate that the site brought for the name that browsers use, else ours.

    The issuers that came with it vouch for it, or the system's if it came alone. An operator who
    rewrote the notes of an endpoint has taken it over.
    """
    name = ""
    voucher: Authority | None = authority
    brought = settings.IDENTITY / f"{host}-{OWN_CERTIFICATE}"
    if brought.exists():
        name = next(iter(environment.public_hostnames(settings.SITE)), "")
        voucher = _issuers(host, brought.read_bytes())
    same = Endpoint.objects.filter(host=host, port=port)
    if not same.filter(server_name=name).exclude(notes=NOTES).exists():
        same.filter(notes=NOTES).update(server_name=name, authority=voucher)


def _issuers(service: str, brought: bytes) -> Authority | None:
    _, *issuers = x509.load_pem_x509_certificates(brought)
    if not issuers:
        return None
    pem = b"".join(issuer.public_bytes(Encoding.PEM) for issuer in issuers).decode()
    return Authority.objects.update_or_create(
        name=f"issuers of what {service} presents", defaults={"pem": pem}
    )[0]
