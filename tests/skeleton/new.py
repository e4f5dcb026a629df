"""Makes a new application of the skeleton next to this file: ``make app NAME=demo``.

It is a folder under ``app/soc`` and one under ``tests/unit``; outside of them it adds a line to the
settings, its name to the queue ``shared``, and a line to the list of landed migrations.
"""

from __future__ import annotations

import hashlib
import keyword
import re
import subprocess
import sys
from pathlib import Path

SKELETON = Path(__file__).parent
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def main(name: str, root: Path) -> str:
    """Make the application in a tree and return what to do next.

    Raises:
        SystemExit: the name cannot be an application's, or is taken.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > 30:
        sys.exit(f"Invalid name {name!r}: use small letters, digits and _, 30 at most")
    application, tests = root / "app" / "soc" / name, root / "tests" / "unit" / name
    for folder in (application, tests):
        if folder.exists() or (root / "app" / "soc" / f"{name}.py").exists():
            sys.exit(f"{name} is taken: choose another name, or remove {folder}")
    made = [*_copy(SKELETON / "app", application, name), *_copy(SKELETON / "tests", tests, name)]
    _settle(root, application, tests)
    _edit(root / "app/soc/settings.py", '    "soc.notify",\n', f'    "soc.{name}",\n', before=True)
    _edit(root / "app/soc/runtime/queues.py", '"core", "alerts", "events"', f', "{name}"')
    migration = application / "migrations" / "0001_initial.py"
    digest = hashlib.sha256(migration.read_bytes()).hexdigest()
    with (root / "tests/unit/core/migrations.sha256").open("a", encoding="utf-8") as landed:
        landed.write(f"{digest}  {migration.relative_to(root)}\n")
    return (
        f"{len(made)} files in app/soc/{name} and tests/unit/{name}. Edit the model and its "
        "migration, then run `make unit`. CONTRIBUTING.md has the rest."
    )


def _copy(source: Path, target: Path, name: str) -> list[Path]:
    title = "".join(part.capitalize() for part in name.split("_"))
    made = []
    for file in sorted(source.rglob("*")):
        if file.is_dir() or file.suffix == ".pyc":
            continue
        text = file.read_text(encoding="utf-8")
        # Of a model's name Django makes one word in small letters.
        text = text.replace("democounter", f"{title.lower()}counter")
        text = text.replace("Demo", title).replace("demo", name)
        place = str(file.relative_to(source)).replace("demo", name)
        copy = target / place.replace("test_application", f"test_{name}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8")
        made.append(copy)
    return made


def _settle(root: Path, *folders: Path) -> None:
    """Sort imports and break lines as the name's length has it."""
    ruff = Path(sys.executable).with_name("ruff")
    for command in (("check", "--quiet", "--fix", "--select", "I"), ("format", "--quiet")):
        subprocess.run((ruff, *command, *folders), cwd=root, check=True)


def _edit(file: Path, anchor: str, new: str, *, before: bool = False) -> None:
    text = file.read_text(encoding="utf-8")
    if text.count(anchor) != 1:
        sys.exit(f"{file} has not exactly one {anchor.strip()!r}: add {new.strip()!r} by hand")
    file.write_text(text.replace(anchor, new + anchor if before else anchor + new), "utf-8")


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else "", SKELETON.parents[1]))
