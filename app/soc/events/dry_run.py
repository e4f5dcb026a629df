"""A process with a database in its memory, in which a recording is replayed.

    python3 -m soc.events.dry_run COPIED FILE [AS_OF]

COPIED is a file with what is copied of the site; a FILE - is the standard input.
"""

import os
import sys
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command


def main(copied: str, file: str, as_of: str = "") -> int:
    """Replay a recording; return the exit status."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "soc.settings"
    # Before anything asks the site's: its rows are never touched.
    settings.DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    django.setup()
    from soc.events import replay

    call_command("migrate", verbosity=0)
    replay.load(Path(copied).read_text(encoding="utf-8"))
    end = datetime.fromisoformat(as_of) if as_of else None
    try:
        with nullcontext(sys.stdin) if file == "-" else Path(file).open(encoding="utf-8") as lines:
            replay.replay(replay.recorded(lines), end, lambda text: print(text, flush=True))
    except (replay.ReplayProblem, OSError, UnicodeDecodeError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
