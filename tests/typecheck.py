"""Type checks of the application, as `make lint` runs them.

mypy reads Django's models through the settings, and those are refused without a site: a temporary
one is made.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from harness import REPOSITORY
from local_site import become_a_process_of_a_site


def main() -> int:
    """Run mypy and return what it ended with."""
    root = become_a_process_of_a_site()
    try:
        return subprocess.run(
            (sys.executable, "-m", "mypy", "app/soc"), cwd=REPOSITORY, check=False
        ).returncode
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
