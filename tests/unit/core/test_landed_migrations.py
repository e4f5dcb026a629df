"""A migration that has landed never changes: sites that have applied it would never see the change.

Once `ldap_probe.0001` was edited in place: "no migrations to apply", and a table that the code no
longer knew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness import REPOSITORY

LANDED = Path(__file__).with_name("migrations.sha256")
ADD = f"a new migration is added to the list by: sha256sum FILE >> {LANDED.relative_to(REPOSITORY)}"


def test_every_landed_migration_is_as_it_landed() -> None:
    lines = LANDED.read_text(encoding="utf-8").splitlines()
    landed = {name: digest for digest, name in (line.split() for line in lines)}
    assert len(landed) == len(lines), "a migration stands in the list twice"
    files = (REPOSITORY / "app" / "soc").glob("*/migrations/[0-9]*.py")
    present = {
        str(file.relative_to(REPOSITORY)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    changed = [name for name in landed.keys() & present.keys() if present[name] != landed[name]]
    assert not changed, "a landed migration was edited: undo that and write a new migration"
    assert not landed.keys() - present.keys(), "a landed migration was removed or renamed"
    assert not present.keys() - landed.keys(), ADD
