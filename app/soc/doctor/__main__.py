"""Judges what `docker/containers/doctor.sh` has gathered: python3 -m soc.doctor SITE.

It reads the folder of facts and the site's files, connects to the servers for their certificates,
and changes nothing. The exit status is 0, 1 for warnings, 2 for what is critical.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from soc.doctor import broker, certificates, containers, database, host, work
from soc.doctor.facts import Facts
from soc.doctor.findings import Finding, Level, ordered
from soc.provision.site import Site

# Causes first: what comes later often follows from what comes before.
CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    host.check,
    certificates.check,
    containers.check,
    database.check,
    broker.check,
    work.check,
)
MARKS = {Level.CRITICAL: "!!", Level.WARNING: " !"}


def examine(facts: Facts) -> list[Finding]:
    """Return everything that is wrong, the worst first."""
    return ordered([finding for check in CHECKS for finding in check(facts)])


def as_json(findings: list[Finding], seconds: float) -> str:
    """Return the findings for a monitor."""
    listed = [
        {"level": one.level.name.lower(), "area": one.area, "text": one.text, "todo": one.todo}
        for one in findings
    ]
    return json.dumps(
        {"status": _worst(findings), "seconds": round(seconds, 1), "findings": listed}
    )


def _worst(findings: list[Finding]) -> int:
    return int(max((finding.level for finding in findings), default=Level.OK))


def main() -> int:
    """Print the findings; return the exit status."""
    parser = argparse.ArgumentParser(prog="soc.doctor", description=__doc__.split("\n")[0])
    parser.add_argument("site")
    parser.add_argument("--env", type=Path, default=Path("/env"), help="the folder of the sites")
    parser.add_argument("--facts", type=Path, default=Path("/facts"))
    parser.add_argument("--began", type=float, default=time.time(), help="epoch seconds")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    facts = Facts(Site(options.site, options.env), options.facts, options.began)
    findings = examine(facts)
    seconds = time.time() - options.began
    if options.json:
        print(as_json(findings, seconds))
    else:
        for one in findings:
            print(f"{MARKS[one.level]} {one.area}: {one.text}\n     -> {one.todo}")
        count = f"{len(findings)} findings" if findings else "nothing is wrong"
        print(f"== {count} in {seconds:.0f} s")
    return _worst(findings)


if __name__ == "__main__":
    sys.exit(main())
