"""What certificates are judged by; the rows belong to the application ssl_certs as ever."""

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from soc.core.models import Retention


def validate_bundle(pem: str) -> None:
    """Check that a text holds at least one PEM certificate.

    Raises:
        ValidationError: it does not.
    """
    # Not every process that has the models needs a TLS library.
    from soc.trust import chain

    try:
        chain.parse_trust(pem.encode())
    except chain.TrustError as error:
        raise ValidationError(str(error)) from error


class Authority(models.Model):
    """A named bundle of CA certificates that endpoints and directories are verified against."""

    name = models.CharField(max_length=100, unique=True)
    pem = models.TextField("PEM bundle", validators=[validate_bundle])

    class Meta:
        app_label = "ssl_certs"
        ordering = ("name",)
        verbose_name_plural = "authorities"

    def __str__(self) -> str:
        return self.name


class RevocationList(models.Model):
    """A CRL that trusted certificates name, and the last body that was fetched."""

    url = models.CharField(max_length=255, unique=True)
    body = models.BinaryField(null=True)
    fetched_at = models.DateTimeField(null=True)
    next_fetch_at = models.DateTimeField(default=timezone.now, db_index=True)
    wanted_at = models.DateTimeField(default=timezone.now)
    error = models.TextField(blank=True)

    retention = Retention("wanted_at", days=14)

    class Meta:
        app_label = "ssl_certs"
        indexes = (models.Index(fields=["wanted_at"], name="revocation_list_age"),)

    def __str__(self) -> str:
        return self.url
