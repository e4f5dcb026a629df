"""What tests of pages share."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client


@pytest.fixture
def plain_static_files(settings: Any) -> None:
    """Serve static files as they are: no collected copies exist in a test."""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture
def browser(db: None, plain_static_files: None) -> Client:
    """A browser in which an administrator has signed in."""
    client = Client()
    client.force_login(User.objects.create_superuser("ann"))
    return client
