"""Looks up known holes of the packages in requirement locks: audit.py LOCK...

A hole ends it with 1. Where pip-audit reaches none of its data, it says so and ends with 0: a site
behind a package mirror must be able to run its tests.
"""

import json
import subprocess
import sys


def main(locks: list[str]) -> int:
    """Run pip-audit on the locks; return the exit status."""
    options = ["--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json"]
    named = [part for lock in locks for part in ("--requirement", lock)]
    ran = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options, *named],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(ran.stdout)["dependencies"]
    except ValueError:
        why = ran.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        print(f"audit: pip-audit looked nothing up: {why[0]}")
        return 0
    looked_up = [package for package in packages if "vulns" in package]
    holes = [(package, hole) for package in looked_up for hole in package["vulns"]]
    for package, hole in holes:
        fixed = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']}: {hole['id']}, fixed in {fixed}")
    if not looked_up:
        print(f"audit: pip-audit reaches none of its data; {len(packages)} packages not looked up")
    else:
        print(f"audit: {len(looked_up)} of {len(packages)} packages looked up, {len(holes)} holes")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
