"""Shippers: who publishes events from outside, each as a user of its own with a folder of its own.

    env/<site>/shippers/<name>/   certificate, key, CAs, password, key store, configuration, test

The folder registers the shipper: the broker's definitions follow from what is there. A user's name
is never used again, since its certificate stays valid until its end and the broker asks no CRL: a
shipper that is made again under its old name is another user.
"""

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = "shippers"
USER = "shipper-"
"""How the broker users of shippers begin."""

EXCHANGE = "shipper."
"""How their exchanges begin: what came through one came from its user, whatever it says."""

_REGISTER = "shipper.json"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_FILES = Path(__file__).with_name("shipper_files")

KINDS = {
    "logstash": ("pipeline.conf",),
    "syslog-ng": ("syslog-ng.conf",),
    "amqplib": ("publish.js",),
    "other": (),
}
"""The configuration that each kind of shipper gets; each gets the self-test too."""

_SELF_TEST = "test.sh"


class ShipperProblem(Exception):
    """What is asked of a shipper cannot be done; the text says why, to a person."""


@dataclass(frozen=True)
class RegisteredShipper:
    """A shipper, by its folder."""

    folder: Path
    kind: str
    user: str

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.folder.name

    @property
    def exchange(self) -> str:
        """Where it publishes, and nobody else."""
        return EXCHANGE + self.name


def registered(site_folder: Path) -> list[RegisteredShipper]:
    """Return the shippers of a site by their names."""
    found = sorted((site_folder / FOLDER).glob(f"*/{_REGISTER}"))
    return [_read(path) for path in found]


def _read(path: Path) -> RegisteredShipper:
    values = json.loads(path.read_text(encoding="utf-8"))
    return RegisteredShipper(path.parent, values["kind"], values["user"])


def new(site_folder: Path, name: str, kind: str) -> RegisteredShipper:
    """Return a shipper that is not registered yet.

    Raises:
        ShipperProblem: the name or the kind is none, or the name is taken.
    """
    if not _NAME.fullmatch(name):
        raise ShipperProblem(
            f"Invalid NAME {name!r}: use a small letter first, then small letters, digits and "
            "hyphens, 40 at most."
        )
    if kind not in KINDS:
        raise ShipperProblem(f"Invalid KIND {kind!r}: use one of {', '.join(KINDS)}.")
    folder = site_folder / FOLDER / name
    if folder.exists():
        raise ShipperProblem(f"There is a shipper {name} already: {folder} holds its files.")
    return RegisteredShipper(folder, kind, f"{USER}{name}-{secrets.token_hex(3)}")


def find(site_folder: Path, name: str) -> RegisteredShipper:
    """Return the shipper of a name.

    Raises:
        ShipperProblem: there is none.
    """
    for shipper in registered(site_folder):
        if shipper.name == name:
            return shipper
    known = ", ".join(shipper.name for shipper in registered(site_folder)) or "none"
    raise ShipperProblem(f"There is no shipper {name!r}; there are: {known}.")


def register(shipper: RegisteredShipper) -> tuple[str, str]:
    """Return the name and the text of the file that registers a shipper."""
    return _REGISTER, json.dumps({"kind": shipper.kind, "user": shipper.user}) + "\n"


def files(shipper: RegisteredShipper) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file that is derived from what the shipper is."""
    values: Mapping[str, str] = {
        "@NAME@": shipper.name,
        "@USER@": shipper.user,
        "@EXCHANGE@": shipper.exchange,
    }
    for name in (*KINDS[shipper.kind], _SELF_TEST):
        text = (_FILES / name).read_text(encoding="utf-8")
        for mark, value in values.items():
            text = text.replace(mark, value)
        yield name, text
