from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

VIEWING = {"view_rota", "view_shiftoverride"}
OVERRIDING = {"add_shiftoverride", "change_shiftoverride", "delete_shiftoverride"}


def let_people_see(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Let the roles see rotas, and operators stand in for each other."""
    # Django creates permissions after the last migration, which is too late for the groups.
    application = apps.get_app_config("oncall")
    application.models_module = True
    create_permissions(application, apps=apps, verbosity=0)
    application.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="oncall"
    )
    for name, codenames in {"Viewers": VIEWING, "Operators": VIEWING | OVERRIDING}.items():
        for group in apps.get_model("auth", "Group").objects.filter(name=name):
            group.permissions.add(*permissions.filter(codename__in=codenames))


class Migration(migrations.Migration):
    dependencies = (
        ("oncall", "0001_initial"),
        # The groups.
        ("alerts", "0002_schedules_and_roles"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    )
    operations = (migrations.RunPython(let_people_see, migrations.RunPython.noop),)
