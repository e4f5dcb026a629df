"""A backup is proven complete, a restore starts from nothing, a failed upgrade replaces nothing."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Stack, new_name, run
from soc.provision import environment

TABLE = "a_table_that_cannot_be_read"


def as_root(stack: Stack, sql: str) -> str:
    script = "MYSQL_PWD=$(cat /run/site/root_password) mariadb --user=root --protocol=socket -N soc"
    return stack.compose("exec", "-T", "mariadb", "sh", "-c", script, stdin=sql)


def image_of(stack: Stack) -> str:
    return environment.parse(stack.env_file.read_text())[0]["APP_IMAGE"]


def backups(stack: Stack) -> set[Path]:
    return set((stack.folder / "backups").glob(f"soc-{stack.site}-*.tar"))


@pytest.fixture(scope="module")
def backup(stack: Stack) -> Path:
    assert "is complete" in stack.make("backup")
    (archive,) = backups(stack)
    return archive


def test_a_backup_holds_the_site_and_is_nobody_elses(stack: Stack, backup: Path) -> None:
    with tarfile.open(backup) as archive:
        assert set(archive.getnames()) == {"site", "tables", "site.tar", "soc.sql.gz"}
        with tarfile.open(fileobj=archive.extractfile("site.tar")) as site:
            names = set(site.getnames())
    assert {f"{stack.site}.env", f"{stack.site}/web/sealing_keys"} <= names
    assert backup.stat().st_mode & 0o077 == 0


def test_a_backup_that_fails_leaves_the_last_good_one(stack: Stack, backup: Path) -> None:
    as_root(stack, f"CREATE TABLE {TABLE} (id INT); ALTER TABLE {TABLE} DISCARD TABLESPACE;")
    before = backup.read_bytes()
    try:
        said = stack.make("backup", check=False)
    finally:
        as_root(stack, f"DROP TABLE {TABLE}")
    assert TABLE in said
    assert "could not be dumped" in said
    assert backups(stack) == {backup}
    assert backup.read_bytes() == before


def test_a_damaged_backup_and_a_site_that_is_there_are_refused(
    stack: Stack, backup: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.tar"
    short.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
    assert "is damaged" in stack.make("restore", f"FROM={short}", check=False)
    containers = stack.services()
    said = stack.make("restore", f"FROM={backup}", check=False)
    assert f"env/{stack.site}.env is there" in said
    assert "nothing was changed" in said
    assert stack.services() == containers


@pytest.fixture(scope="module")
def site(stack: Stack) -> Iterator[Stack]:
    """A second site beside the one that all tests share."""
    second = Stack(stack.folder, new_name())
    try:
        second.create()
        second.make("up")
        yield second
    finally:
        second.remove()


MIGRATION = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = (("core", "{leaf}"),)
    operations = (migrations.RunSQL("{sql}"),)
"""


@contextlib.contextmanager
def migration(site: Stack, sql: str) -> Iterator[None]:
    """Let the tree have one more migration."""
    folder = site.folder / "app/soc/core/migrations"
    leaf = max(one.stem for one in folder.glob("0*.py"))
    added = folder / "9999_added.py"
    added.write_text(MIGRATION.format(leaf=leaf, sql=sql))
    try:
        yield
    finally:
        added.unlink()


def id_of(image: str) -> str:
    return run("docker", "image", "inspect", image, "--format={{.Id}}").strip()


@pytest.mark.drill
def test_a_failed_migration_replaces_nothing(site: Stack) -> None:
    ran = site.inspect("web")
    with migration(site, "SELECT no_such_column"):
        said = site.make("up", check=False)
    assert "no_such_column" in said
    assert "the old version runs on" in said
    assert site.inspect("web")["Id"] == ran["Id"]
    assert site.health("web") == "healthy"
    assert id_of(image_of(site)) == ran["Image"]
    run("docker", "compose", "up", "--detach", "--no-deps", "web", cwd=site.folder)
    assert site.inspect("web")["Image"] == ran["Image"]
    site.make("up")
    assert site.health("web") == "healthy"


@pytest.mark.drill
def test_a_rollback_starts_the_version_of_before_if_it_knows_the_database(site: Stack) -> None:
    first = site.inspect("web")["Image"]
    settings = site.folder / "app/soc/settings.py"
    text = settings.read_text()
    settings.write_text(f"{text}\n# Another version.\n")
    try:
        site.make("up")
        second = site.inspect("web")["Image"]
        assert second != first
        assert "the version of before runs again" in site.make("rollback")
        assert site.inspect("web")["Image"] == first
        assert id_of(image_of(site)) == first
        assert id_of(f"{image_of(site)}-previous") == second
    finally:
        settings.write_text(text)
    with migration(site, "SELECT 1"):
        site.make("up")
    said = site.make("rollback", check=False)
    assert "does not know core.9999_added" in said
    assert site.inspect("web")["Image"] not in (first, second)
    as_root(site, "DELETE FROM django_migrations WHERE name = '9999_added'")
    assert "the version of before runs again" in site.make("rollback")


@pytest.mark.drill
def test_a_server_is_replaced_after_a_backup_and_the_migration(site: Stack) -> None:
    values, _ = environment.parse(site.env_file.read_text())
    other = f"{site.project}-mariadb:other"
    build = f"FROM {values['MARIADB_IMAGE']}\nLABEL other=yes\n"
    run("docker", "build", "--quiet", f"--tag={other}", "-", stdin=build)
    present = site.inspect("mariadb")["Id"]
    before = backups(site)
    text = site.env_file.read_text()
    site.env_file.write_text(text.replace(values["MARIADB_IMAGE"], other))
    try:
        with migration(site, "SELECT no_such_column"):
            assert "the old version runs on" in site.make("up", check=False)
        assert site.inspect("mariadb")["Id"] == present
        (archive,) = backups(site) - before
        site.make("up")
        assert site.inspect("mariadb")["Image"] == id_of(other)
        assert len(backups(site) - before) == 2
    finally:
        site.env_file.write_text(text)
    assert archive.stat().st_mode & 0o077 == 0
    site.make("up", "BACKUP=no")
    assert len(backups(site) - before) == 2
    run("docker", "rmi", other)


@pytest.mark.drill
def test_an_older_server_is_refused_before_it_starts(site: Stack) -> None:
    site.make("down")
    volume = f"{site.project}_rabbitmq"
    image = image_of(site)
    write = ("docker", "run", "--rm", "--user=0", f"--volume={volume}:/volume", image, "sh", "-c")
    run(*write, "cp /volume/soc-series /volume/kept && echo 99.1.0 >/volume/soc-series")
    try:
        said = site.make("up", check=False)
    finally:
        run(*write, "mv /volume/kept /volume/soc-series")
    assert "but 99.1 wrote the volume" in said
    assert site.services() == []
    site.make("up")


@pytest.mark.drill
def test_a_restored_site_has_what_the_backup_had(site: Stack) -> None:
    as_root(site, "UPDATE notify_outboundmail SET state = 'queued' ORDER BY id LIMIT 1")
    count = "SELECT COUNT(*) FROM django_migrations; SELECT COUNT(*) FROM ssl_certs_endpoint;"
    before = as_root(site, count)
    site.compose("stop", "beat", "worker-email")
    password = site.secret("migrate", "admin_password")
    earlier = backups(site)
    site.make("backup")
    (archive,) = backups(site) - earlier
    site.remove()
    run("docker", "run", "--rm", "--user=0", f"--volume={site.folder}/env:/env", image_of(site),
        "rm", "-r", f"/env/{site.site}", f"/env/{site.site}.env")  # fmt: skip
    said = site.make("restore", f"FROM={archive}")
    assert "Nothing runs but the database" in said
    assert site.services() == ["mariadb"]
    assert as_root(site, count) == before
    assert as_root(site, "SELECT COUNT(*) FROM notify_outboundmail WHERE state = 'queued'") == "0\n"
    site.make("up")
    assert site.browser().sign_in(password)[0] == 200
