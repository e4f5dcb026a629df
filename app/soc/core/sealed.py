"""Credentials that the database keeps for us, encrypted with keys that it does not have.

A thief of a dump, or of the database's login, gets tokens. The keys stand one a line, newest
first, in the file ``sealing_keys`` of the services that read or write such fields, and of no
other. Tokens are Fernet's (its specification: AES-128-CBC and HMAC-SHA256, authenticated).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django import forms
from django.apps import apps
from django.conf import settings
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from soc.provision.identity import secret

KEYS = "sealing_keys"
_PREFIX = "sealed:"
_MASK = "••••••••"


class SealProblem(Exception):
    """A sealed value cannot be opened or made; the message says what to do."""


def _keys() -> MultiFernet:
    """Return the site's keys, read again each time: a rotation needs no restart."""
    path = settings.IDENTITY / KEYS
    try:
        return MultiFernet([Fernet(key) for key in secret(KEYS).split()])
    except OSError as error:
        raise SealProblem(
            f"{path}: {error.strerror}. This service has no sealing keys; if it should read "
            "stored credentials, declare SEALS in its application's __init__.py and run `make up`."
        ) from None
    except ValueError:
        raise SealProblem(
            f"{path} holds no usable key: put the file of the last backup back."
        ) from None


class Sealed:
    """A secret that shows itself only to who asks for it with ``reveal``.

    It is opened when it is asked for, so that a service without the keys can load its row.
    """

    __slots__ = ("_plain", "_token")

    def __init__(self, plain: str = "", *, token: str = "") -> None:
        self._plain, self._token = plain, token

    def reveal(self) -> str:
        """Return the secret itself.

        Raises:
            SealProblem: the keys of this service do not open it.
        """
        if not self._token:
            return self._plain
        try:
            return _keys().decrypt(self._token.removeprefix(_PREFIX)).decode()
        except InvalidToken:
            raise SealProblem(
                f"A stored credential was sealed with a key that is not in "
                f"{settings.IDENTITY / KEYS}: put the file of the backup that belongs to this "
                "database back, or type the credential in again."
            ) from None

    def token(self) -> str:
        """Return what the database keeps, sealed with the newest key; of nothing, nothing.

        Raises:
            SealProblem: this service has no keys.
        """
        if self._plain and not self._token:
            self._token = _PREFIX + _keys().encrypt(self._plain.encode()).decode()
            self._plain = ""
        return self._token

    def resealed(self) -> "Sealed":
        """Return the same secret sealed with the newest key.

        Raises:
            SealProblem: the keys of this service do not open it.
        """
        return Sealed(self.reveal())

    def __bool__(self) -> bool:
        return bool(self._plain or self._token)

    def __str__(self) -> str:
        return _MASK if self else ""

    def __repr__(self) -> str:
        return f"<Sealed {'set' if self else 'empty'}>"

    def __reduce__(self) -> Any:
        return _with_token, (self.token(),)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sealed):
            return NotImplemented
        return (self._plain, self._token) == (other._plain, other._token)

    def __hash__(self) -> int:
        return hash((self._plain, self._token))


def _with_token(token: str) -> Sealed:
    return Sealed(token=token)


class _Attribute(DeferredAttribute):
    """Makes a ``Sealed`` of what is assigned to the field, so that no plain text stays there."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = self.field.to_python(value)


if TYPE_CHECKING:
    _SealedText = models.TextField[Sealed | str, Sealed]
else:
    _SealedText = models.TextField


class SealedField(_SealedText):
    """A text that is encrypted at rest and shown nowhere.

    The attribute is a ``Sealed``; plain text may be assigned to it. A form never holds the stored
    value, and an empty answer keeps it. It cannot be searched by its value.
    """

    description = "A sealed credential"
    descriptor_class = _Attribute

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("blank", True)
        super().__init__(*args, **kwargs)

    def from_db_value(self, value: str | None, *_: Any) -> Sealed:
        """Return what the database keeps, unopened.

        Raises:
            SealProblem: it is not sealed; somebody wrote it past this field.
        """
        if value and not value.startswith(_PREFIX):
            raise SealProblem(f"{self} holds a value that is not sealed: save it again.")
        return Sealed(token=value or "")

    def to_python(self, value: Any) -> Sealed:
        """Take plain text, or a token as a dump of the rows holds it."""
        if isinstance(value, Sealed):
            return value
        text = str(value or "")
        return Sealed(token=text) if text.startswith(_PREFIX) else Sealed(text)

    def get_prep_value(self, value: Any) -> Any:
        """Return the token; plain text never leaves the process."""
        if value is None or hasattr(value, "resolve_expression"):
            return value
        return self.to_python(value).token()

    def value_to_string(self, obj: models.Model) -> str:
        """Return the token for a dump of the rows."""
        return self.to_python(self.value_from_object(obj)).token()

    def validate(self, value: Sealed, model_instance: models.Model | None) -> None:
        """Ask for a value where the field may not be blank."""
        super().validate(str(value), model_instance)

    def run_validators(self, value: Sealed) -> None:
        """Run the validators on the plain text."""
        super().run_validators(value.reveal() if self.validators else "")

    def save_form_data(self, instance: models.Model, data: Any) -> None:
        """Take what a form was given; an empty answer keeps what is stored."""
        if data:
            super().save_form_data(instance, data)

    def formfield(self, **kwargs: Any) -> forms.Field:
        """Return a password field that is always empty."""
        from unfold.widgets import UnfoldAdminPasswordWidget

        return _SealedFormField(
            required=False,
            strip=False,
            label=self.verbose_name.capitalize(),
            help_text=f"{self.help_text} Stored encrypted; leave it empty to keep it.".strip(),
            # Whatever ``kwargs`` name: the admin would give it a text area.
            widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        )


class _SealedFormField(forms.CharField):
    """A field that has changed if anything was typed into it."""

    def prepare_value(self, value: Any) -> str:
        """Show nothing."""
        return ""

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether anything was typed."""
        return bool(data)


def reseal() -> int:
    """Seal every stored credential with the newest key; return how many there are.

    Each is replaced only if nobody has changed it meanwhile, who then used the newest key anyway.

    Raises:
        SealProblem: one cannot be opened; those before it are done.
    """
    return sum(_reseal(model, field) for model, field in sealed_fields())


def sealed_fields() -> Iterator[tuple[type[models.Model], SealedField]]:
    """Yield every sealed field with its model."""
    for model in apps.get_models():
        for field in model._meta.local_fields:
            if isinstance(field, SealedField):
                yield model, field


def _reseal(model: type[models.Model], field: SealedField) -> int:
    rows = model._default_manager.exclude(**{field.name: Sealed()})
    count = 0
    for key, sealed in rows.values_list("pk", field.name).iterator():
        unchanged = model._default_manager.filter(pk=key, **{field.name: sealed})
        count += unchanged.update(**{field.name: sealed.resealed()})
    return count
