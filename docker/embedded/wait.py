"""Waits until every program of the embedded stack runs and its web pages answer."""

import os
import ssl
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

PATIENCE = 60.0
LOG_LINES = 20


def _programs() -> list[dict[str, Any]]:
    url = f"unix://{os.environ['CONTROL']}/socket"
    # Supervisor's transport goes to the socket; the address is only for form's sake.
    server: Any = ServerProxy("http://localhost", transport=SupervisorTransport(serverurl=url))
    return server.supervisor.getAllProcessInfo()


def _is_up(program: dict[str, Any]) -> bool:
    """Tell whether a program runs; beat and the workers show by a file when they really do."""
    name = program["name"]
    alive = Path(os.environ["SOC_STATE"]) / f"alive-{name}"
    shows = name == "beat" or name.startswith("worker-")
    return program["statename"] == "RUNNING" and (alive.exists() or not shows)


def _web_answers() -> bool:
    authority = Path(os.environ["SOC_IDENTITY"]).parent / "ca" / "ca.pem"
    url = f"https://localhost:{os.environ['SOC_WEB_PORT']}/healthz"
    context = ssl.create_default_context(cafile=authority)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(url, timeout=5):
            return True
    except OSError:
        return False


def _show(failed: Iterable[dict[str, Any]]) -> None:
    for program in failed:
        print(f"!! {program['name']} does not run: {program['description']}; the end of its log:")
        log = Path(program["stdout_logfile"]).read_text(encoding="utf-8", errors="replace")
        print("\n".join(log.splitlines()[-LOG_LINES:]))


def main() -> int:
    """Name each program as it comes up, and show the log of those that do not."""
    end = time.monotonic() + PATIENCE
    named: set[str] = set()
    while True:
        programs = _programs()
        up = {program["name"] for program in programs if _is_up(program)}
        for name in sorted(up - named):
            print(f"   {name} runs", flush=True)
        named |= up
        # A program that this site does not use was never started.
        down = [p for p in programs if p["name"] not in up and p["statename"] != "STOPPED"]
        if not down and _web_answers():
            return 0
        if any(program["statename"] == "FATAL" for program in down) or time.monotonic() > end:
            _show(down or [program for program in programs if program["name"] == "web"])
            return 1
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
