from collections.abc import Iterable
from typing import Any

from django.apps.registry import Apps
from django.db import migrations, models, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

OLD_TABLE = "ldap_probe_authority"
LONGEST_NAME = 100


def repair(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Move a site from the first form of 0001, which was edited in place, to the present one.

    There the directories had authorities of their own. They become authorities of ssl_certs, the
    servers refer to those, and the old table goes. Each step may be repeated: the old table's
    rows end with the servers that refer to them, the table itself is dropped last.
    """
    connection = schema_editor.connection
    if OLD_TABLE not in connection.introspection.table_names():
        return
    server = apps.get_model("ldap_probe", "DirectoryServer")
    bound = server._meta.get_field("authority")
    loose = _unconstrained(server, bound)
    schema_editor.alter_field(server, bound, loose)
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SELECT id, name, pem FROM ldap_probe_authority ORDER BY id")
        _move(apps, cursor.fetchall())
        cursor.execute("DELETE FROM ldap_probe_authority")
    schema_editor.alter_field(server, loose, bound)
    schema_editor.execute("DROP TABLE ldap_probe_authority")


def _unconstrained(server: type[models.Model], field: Any) -> Any:
    loose = field.clone()
    loose.db_constraint = False
    loose.set_attributes_from_name(field.name)
    loose.model = server
    loose.remote_field.model = field.remote_field.model
    return loose


def _move(apps: Apps, rows: Iterable[tuple[int, str, str]]) -> None:
    authority = apps.get_model("ssl_certs", "Authority")
    server = apps.get_model("ldap_probe", "DirectoryServer")
    changes = []
    for old, name, pem in rows:
        new = authority.objects.filter(pem=pem).first() or authority.objects.create(
            name=_free(authority, name), pem=pem
        )
        changes.append(models.When(authority_id=old, then=models.Value(new.pk)))
    if changes:
        # In one statement: an old number may be another's new one.
        server.objects.filter(authority__isnull=False).update(
            authority_id=models.Case(
                *changes, default=models.F("authority_id"), output_field=models.BigIntegerField()
            )
        )


def _free(authority: Any, name: str) -> str:
    number, free = 1, name
    while authority.objects.filter(name=free).exists():
        number += 1
        end = f" ({number})"
        free = name[: LONGEST_NAME - len(end)] + end
    return free


class Migration(migrations.Migration):
    dependencies = (("ldap_probe", "0005_security_rule"), ("ssl_certs", "0001_initial"))
    operations = (migrations.RunPython(repair, migrations.RunPython.noop, atomic=False),)
