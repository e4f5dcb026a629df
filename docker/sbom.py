"""Writes what is in an image as a CycloneDX list: sbom.py IMAGE FILE.

The image itself is asked: for its Python packages, and for its Debian packages.
"""

import json
import subprocess
import sys
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

_PYTHON = """
import json
from importlib.metadata import distributions
print(json.dumps([[d.metadata["Name"], d.version] for d in distributions()]))
"""
_DEBIAN = "${Package}\t${Version}\t${Architecture}\n"


def main(image: str, target: str) -> int:
    """Ask an image, write the list and check it against CycloneDX's schema."""
    bom = Bom()
    name, _, tag = image.rpartition(":")
    container = Component(name=name, version=tag, bom_ref=image, type=ComponentType.CONTAINER)
    bom.metadata.component = container
    for package, version in json.loads(_run(image, "python3", "-c", _PYTHON)):
        bom.components.add(_component(package, version, PackageURL("pypi", None, package, version)))
    for line in _run(image, "dpkg-query", "--show", f"--showformat={_DEBIAN}").splitlines():
        package, version, architecture = line.split("\t")
        url = PackageURL("deb", "debian", package, version, {"arch": architecture})
        bom.components.add(_component(package, version, url))
    bom.register_dependency(container, bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(f"sbom: {error}", file=sys.stderr)
        return 1
    Path(target).write_text(text, encoding="utf-8")
    print(f"sbom: {len(bom.components)} packages of {image} are in {target}")
    return 0


def _component(name: str, version: str, url: PackageURL) -> Component:
    return Component(
        name=name, version=version, purl=url, bom_ref=str(url), type=ComponentType.LIBRARY
    )


def _run(image: str, *command: str) -> str:
    options = ["--rm", "--network=none", "--cap-drop=ALL"]
    return subprocess.run(
        ["docker", "run", *options, image, *command], capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
