"""An embedded site in a temporary folder, for processes that import the application."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from harness import REPOSITORY
from soc.provision import site as sites


def become_a_process_of_a_site() -> Path:
    """Create an embedded site and put its variables into this process's environment.

    Returns the temporary folder; the caller removes it.
    """
    root = Path(tempfile.mkdtemp(prefix="soc-test-"))
    shutil.copy(REPOSITORY / "env" / "example.env", root)
    site = sites.Site("local", root)
    sites.create(site, "embedded", {})
    sites.render(site)
    state = root / "state"
    (state / "static").mkdir(parents=True)
    os.environ |= site.values() | {
        "DJANGO_SETTINGS_MODULE": "soc.settings",
        "SOC_SERVICE": "migrate",
        "SOC_IDENTITY": str(site.folder / "migrate"),
        "SOC_STATE": str(state),
    }
    return root
