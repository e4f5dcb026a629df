"""A site whose directories had authorities of their own keeps them through the upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models

from soc.ldap_probe.models import DirectoryServer
from soc.trust.models import Authority

repair = import_module("soc.ldap_probe.migrations.0006_repair_authorities")
BOUND = DirectoryServer._meta.get_field("authority")


@pytest.fixture
def old_form(transactional_db: None) -> Iterator[type[models.Model]]:
    """The tables as the first form of ldap_probe.0001 made them."""

    class Old(models.Model):
        name = models.CharField(max_length=100, unique=True)
        pem = models.TextField()

        class Meta:
            app_label = "ldap_probe"
            db_table = repair.OLD_TABLE
            managed = False

        def __str__(self) -> str:
            return self.name

    to_old = models.ForeignKey(Old, models.PROTECT, null=True, blank=True)
    to_old.set_attributes_from_name("authority")
    to_old.model = DirectoryServer
    with connection.schema_editor() as editor:
        editor.create_model(Old)
        editor.alter_field(DirectoryServer, BOUND, to_old)
    yield Old
    with connection.schema_editor() as editor:
        editor.execute(f"DROP TABLE IF EXISTS {repair.OLD_TABLE}")
    del apps.all_models["ldap_probe"]["old"]
    apps.clear_cache()


def migrate() -> None:
    with connection.schema_editor() as editor:
        repair.repair(apps, editor)


def referred() -> str:
    with connection.cursor() as cursor:
        keys = connection.introspection.get_relations(cursor, DirectoryServer._meta.db_table)
    return keys["authority_id"][1]


def trusts() -> dict[str, str | None]:
    servers = DirectoryServer.objects.select_related("authority")
    return {one.host: one.authority and one.authority.pem for one in servers}


def server(host: str, authority: Any) -> None:
    with connection.constraint_checks_disabled():
        DirectoryServer.objects.create(host=host, authority_id=authority and authority.pk)


def test_the_old_authorities_are_the_certificates_own_now(old_form: Any) -> None:
    # Numbers that mean another authority in the other table.
    Authority.objects.create(name="staff", pem="of certificates")
    Authority.objects.create(name="known", pem="same")
    with connection.constraint_checks_disabled():
        staff, same = (
            old_form.objects.create(name=n, pem=p) for n, p in (("staff", "old"), ("x", "same"))
        )
        server("a", staff)
        server("b", same)
        server("c", None)
    assert referred() == repair.OLD_TABLE
    migrate()
    assert trusts() == {"a": "old", "b": "same", "c": None}
    assert set(Authority.objects.values_list("name", flat=True)) == {"staff", "known", "staff (2)"}
    assert referred() == Authority._meta.db_table
    assert repair.OLD_TABLE not in connection.introspection.table_names()


def test_a_repair_may_be_run_again(old_form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """MariaDB keeps what was done before the end; here the table itself is left."""
    with connection.constraint_checks_disabled():
        server("a", old_form.objects.create(name="staff", pem="old"))
    with connection.schema_editor() as editor:
        with monkeypatch.context() as patch:
            patch.setattr(
                editor,
                "execute",
                lambda sql, *rest: (
                    None
                    if "DROP TABLE ldap" in str(sql)
                    else type(editor).execute(editor, sql, *rest)
                ),
            )
            repair.repair(apps, editor)
        assert repair.OLD_TABLE in connection.introspection.table_names()
        repair.repair(apps, editor)
    assert trusts() == {"a": "old"}
    assert Authority.objects.count() == 1


def test_a_site_of_the_present_form_is_left_alone(transactional_db: None) -> None:
    with connection.schema_editor(collect_sql=True) as editor:
        repair.repair(apps, editor)
    assert editor.collected_sql == []
