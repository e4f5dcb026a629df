"""Type checks of the application: `make lint` calls it, `make baselines` updates the baseline.

mypy reads Django's models through the settings, and those are refused without a site: a temporary
one is made. Known errors stand in tests/mypy-baseline.txt; a new one fails, and the file only
shrinks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from harness import REPOSITORY
from local_site import become_a_process_of_a_site

MYPY = (sys.executable, "-m", "mypy", "app/soc")
BASELINE = (sys.executable, "-m", "mypy_baseline")


def main(action: str = "filter") -> int:
    """Compare mypy's errors with the baseline, or write it; return what the process ends with."""
    root = become_a_process_of_a_site()
    try:
        checked = subprocess.run(
            MYPY, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False
        )
    finally:
        shutil.rmtree(root)
    crashed = 2
    if checked.returncode >= crashed:
        print(checked.stdout)
        return checked.returncode
    compared = subprocess.run(
        (*BASELINE, action), cwd=REPOSITORY, input=checked.stdout, text=True, check=False
    )
    return compared.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
