"""Waits until every program of the embedded stack does its work."""

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
    """Return whether a program does its work, which takes longer than being started."""
    name = program["name"]
    if program["statename"] != "RUNNING":
        return False
    if name == "web":
        return _answers(f"{os.environ['SOC_WEB_PORT']}/healthz")
    if name == "flower":
        return _answers(f"{os.environ['SOC_FLOWER_PORT']}/healthcheck")
    if name == "beat" or name.startswith("worker-"):
        return (Path(os.environ["SOC_STATE"]) / f"alive-{name}").exists()
    return True


def _answers(port_and_path: str) -> bool:
    authority = Path(os.environ["SOC_IDENTITY"]).parent / "ca" / "ca.pem"
    context = ssl.create_default_context(cafile=authority)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"https://localhost:{port_and_path}", timeout=5):
            return True
    except OSError:
        return False


def _show(failed: Iterable[dict[str, Any]]) -> None:
    for program in failed:
        state = f"{program['statename']}, {program['description']}"
        print(f"!! {program['name']} does not work ({state}); the end of its log:")
        log = Path(program["stdout_logfile"]).read_text(encoding="utf-8", errors="replace")
        print("\n".join(log.splitlines()[-LOG_LINES:]))


def main() -> int:
    """Name each program as it comes up, and show the log of those that do not."""
    end = time.monotonic() + PATIENCE
    named: set[str] = set()
    while True:
        # A program that this site does not use is stopped from the start.
        programs = [p for p in _programs() if p["statename"] != "STOPPED"]
        up = {program["name"] for program in programs if _is_up(program)}
        for name in sorted(up - named):
            print(f"   {name} runs", flush=True)
        named |= up
        down = [program for program in programs if program["name"] not in up]
        if not down:
            return 0
        failed = [program for program in down if program["statename"] == "FATAL"]
        if failed or time.monotonic() > end:
            _show(failed or down)
            return 1
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
