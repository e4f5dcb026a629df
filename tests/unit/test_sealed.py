"""Stored credentials: encrypted at rest, shown nowhere, and sealed anew when the keys change."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django import forms
from django.apps import apps
from django.contrib.admin.utils import construct_change_message
from django.core import serializers
from django.core.management import CommandError, call_command
from django.db import connection, models

from soc.core import sealed
from soc.core.sealed import Sealed, SealedField, SealProblem

SECRET = "Tr0ub4dor&3 über alles"


class Directory(models.Model):
    """A model of this test alone, in a table that lives as long as one test."""

    host = models.CharField(max_length=50)
    password = SealedField(help_text="Of the bind user.")

    class Meta:
        app_label = "core"

    def __str__(self) -> str:
        return self.host


# Registered by the class statement; only these tests are to see it.
_REGISTERED = apps.all_models["core"].pop("directory")
apps.clear_cache()


class DirectoryForm(forms.ModelForm):
    class Meta:
        model = Directory
        fields = ("host", "password")


@pytest.fixture
def table(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The model's table, made outside of a transaction, as SQLite asks.

    Not by ``transactional_db``, which takes at its end what the migrations wrote.
    """
    apps.all_models["core"]["directory"] = _REGISTERED
    apps.clear_cache()
    with django_db_blocker.unblock():
        with connection.schema_editor() as editor:
            editor.create_model(Directory)
        yield
        with connection.schema_editor() as editor:
            editor.delete_model(Directory)
    del apps.all_models["core"]["directory"]
    apps.clear_cache()


@pytest.fixture
def keys(settings: Any, tmp_path: Path) -> Path:
    """The key file of a service, with one key."""
    settings.IDENTITY = tmp_path
    path = tmp_path / "sealing_keys"
    path.write_bytes(Fernet.generate_key())
    return path


def column(directory: Directory) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT password FROM core_directory WHERE id = %s", [directory.pk])
        return cursor.fetchone()[0]


def stored(password: str = SECRET) -> Directory:
    return Directory.objects.get(pk=Directory.objects.create(host="a", password=password).pk)


@pytest.mark.usefixtures("table", "keys")
def test_what_is_stored_opens_again_and_is_not_in_the_table() -> None:
    directory = stored()
    assert directory.password.reveal() == SECRET
    assert column(directory).startswith("sealed:gAAAA")
    assert "Tr0ub4dor" not in column(directory)


@pytest.mark.usefixtures("table", "keys")
def test_nothing_stays_nothing() -> None:
    directory = stored("")
    assert column(directory) == ""
    assert not directory.password
    assert directory.password.reveal() == ""


@pytest.mark.usefixtures("table", "keys")
def test_saving_again_keeps_the_token() -> None:
    directory = stored()
    token = column(directory)
    directory.host = "b"
    directory.save()
    assert column(directory) == token
    assert Directory.objects.defer("password").get().password.reveal() == SECRET


@pytest.mark.usefixtures("table", "keys")
def test_nothing_that_prints_or_pickles_a_model_shows_its_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    directory = Directory(host="a", password=SECRET)
    logging.getLogger("test").warning("%s %r %r", directory.password, directory.password, directory)
    shown = [str(vars(directory)), f"{directory.password}", caplog.text, str([directory.password])]
    assert [text for text in shown if "Tr0ub4dor" in text] == []
    assert f"{directory.password!s:.4}" == "••••"
    assert b"Tr0ub4dor" not in pickle.dumps(directory)
    assert pickle.loads(pickle.dumps(directory)).password.reveal() == SECRET


@pytest.mark.usefixtures("table", "keys")
def test_a_form_shows_nothing_and_an_empty_answer_keeps_what_is_stored() -> None:
    directory = stored()
    assert "Tr0ub4dor" not in DirectoryForm(instance=directory).as_p()
    assert "sealed:" not in DirectoryForm(instance=directory).as_p()
    form = DirectoryForm({"host": "b", "password": ""}, instance=directory)
    assert form.is_valid(), form.errors
    assert form.changed_data == ["host"]
    form.save()
    assert Directory.objects.get().password.reveal() == SECRET


@pytest.mark.usefixtures("table", "keys")
def test_a_form_changes_a_secret_and_the_change_log_names_only_the_field() -> None:
    form = DirectoryForm({"host": "a", "password": " new one "}, instance=stored())
    assert form.is_valid(), form.errors
    form.save()
    assert Directory.objects.get().password.reveal() == " new one "
    (entry,) = construct_change_message(form, [], add=False)
    assert entry == {"changed": {"fields": ["Password"]}}


@pytest.mark.usefixtures("table", "keys")
def test_a_dump_of_the_rows_holds_tokens_and_can_be_loaded() -> None:
    stored()
    text = serializers.serialize("json", Directory.objects.all())
    assert "Tr0ub4dor" not in text
    Directory.objects.all().delete()
    for row in serializers.deserialize("json", text):
        row.save()
    assert Directory.objects.get().password.reveal() == SECRET


@pytest.mark.usefixtures("table")
def test_every_credential_is_sealed_anew_with_the_newest_key(keys: Path) -> None:
    old = keys.read_text()
    directories = [stored(), stored("second"), stored("")]
    before = [column(directory) for directory in directories]
    new = Fernet.generate_key().decode()
    keys.write_text(f"{new}\n{old}\n")
    assert directories[0].password.reveal() == SECRET
    out = io.StringIO()
    call_command("reseal", stdout=out)
    assert out.getvalue().startswith("2 stored credentials")
    keys.write_text(new)
    after = [column(directory) for directory in directories]
    assert [new == old for new, old in zip(after, before, strict=True)] == [False, False, True]
    revealed = [d.password.reveal() for d in Directory.objects.order_by("pk")]
    assert revealed == [SECRET, "second", ""]


@pytest.mark.usefixtures("table")
def test_a_value_changed_while_it_is_sealed_anew_is_not_lost(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = stored()
    resealed = Sealed.resealed

    def slow(value: Sealed) -> Sealed:
        Directory.objects.update(password="typed meanwhile")
        return resealed(value)

    monkeypatch.setattr(Sealed, "resealed", slow)
    assert sealed.reseal() == 0
    directory.refresh_from_db()
    assert directory.password.reveal() == "typed meanwhile"


@pytest.mark.usefixtures("table")
def test_another_key_is_told_with_what_to_do(keys: Path) -> None:
    directory = stored()
    keys.write_bytes(Fernet.generate_key())
    with pytest.raises(SealProblem, match=r"sealing_keys: put the file of the backup"):
        directory.password.reveal()
    with pytest.raises(CommandError, match="type the credential in again"):
        call_command("reseal")


@pytest.mark.usefixtures("table")
def test_a_service_without_keys_loads_the_row_but_not_the_secret(keys: Path) -> None:
    pk = stored().pk
    keys.unlink()
    directory = Directory.objects.get(pk=pk)
    assert directory.password
    with pytest.raises(SealProblem, match="has no sealing keys"):
        directory.password.reveal()


def test_a_damaged_key_file_is_told(keys: Path) -> None:
    keys.write_text("no key at all")
    with pytest.raises(SealProblem, match="holds no usable key"):
        Sealed("x").token()


@pytest.mark.usefixtures("table", "keys")
def test_a_value_written_past_the_field_is_refused() -> None:
    directory = stored()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_directory SET password = 'plain'")
    with pytest.raises(SealProblem, match="is not sealed"):
        Directory.objects.get(pk=directory.pk)
