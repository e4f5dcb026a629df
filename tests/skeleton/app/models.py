"""What the application watches."""

from django.db import models


class DemoCounter(models.Model):
    """A number, and the limit above which it is a problem."""

    name = models.CharField(max_length=100, unique=True)
    value = models.PositiveIntegerField(default=0)
    limit = models.PositiveIntegerField(default=100, help_text="A value above it is a warning.")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def is_above(self) -> bool:
        """Whether the value is above the limit."""
        return self.value > self.limit
