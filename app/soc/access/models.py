"""Who people are elsewhere."""

from django.db import models
from django.utils import timezone


class Identity(models.Model):
    """A person as an OpenID Connect provider knows them (OpenID Connect Core 1.0, 5.7).

    The provider's address and its subject are the pair that never changes hands; a name or a mail
    address may.
    """

    user = models.ForeignKey("auth.User", on_delete=models.CASCADE)
    issuer = models.URLField(max_length=255)
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name_plural = "identities"
        constraints = (
            models.UniqueConstraint(fields=["issuer", "subject"], name="identity_of_one_user"),
        )

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"
