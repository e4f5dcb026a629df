"""What unit tests share: pages, a relay that may be down, a clock that is moved."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from harness import REPOSITORY
from mailing import Outage
from soc.provision import site


@pytest.fixture
def new_site(tmp_path: Path) -> site.Site:
    """A site of containers, as `make site` leaves it."""
    shutil.copy(REPOSITORY / "env" / "example.env", tmp_path)
    made = site.Site("local", tmp_path)
    site.create(made, "containers", {})
    site.render(made)
    return made


def pytest_itemcollected(item: pytest.Item) -> None:
    """Refuse the mark by which pytest-django empties the tables, and with them later tests'."""
    for mark in item.iter_markers("django_db"):
        if mark.kwargs.get("transaction") or "transactional_db" in item.fixturenames:
            raise pytest.UsageError(
                f"{item.nodeid}: use the fixture transactional_db, without the mark django_db"
            )


@pytest.fixture
def transactional_db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Work outside of a transaction, as a change of the schema does on SQLite.

    pytest-django's empties every table at the end, and with it what the migrations wrote for all
    later tests of the process; this one puts the database back as it was.
    """
    with django_db_blocker.unblock(), contextlib.closing(sqlite3.connect(":memory:")) as kept:
        connection.ensure_connection()
        connection.connection.backup(kept)
        yield
        kept.backup(connection.connection)


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


@pytest.fixture
def outage(settings: Any) -> Iterator[Outage]:
    """A relay that is down until it is started."""
    relay = Outage(settings)
    yield relay
    relay.stop()
