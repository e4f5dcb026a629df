"""Judges certificates that others have made for tests, beside ``openssl verify``.

make conformance; it fetches the package cryptography_vectors, of the version of the library that is
in use, and needs the command openssl. Not part of `make test`: it needs a package registry.

1. PKITS (NIST, Public Key Interoperability Test Suite): the path of each signed message.
2. Every certificate of the vectors: none may raise, whatever is wrong with it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from soc.trust import chain
from soc.trust.description import describe

PACKAGE = "cryptography_vectors"
AT = datetime(2020, 1, 1, tzinfo=UTC)
"""Within the lifetime of PKITS' certificates, 2010 to 2030."""


def fetch(folder: Path) -> Path:
    """Fetch the package and return the folder of its X.509 vectors."""
    wanted = f"{PACKAGE}=={version('cryptography')}"
    command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder)
    subprocess.run((*command, wanted), check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / PACKAGE / "x509"


# --- PKITS ---------------------------------------------------------------------------------------


def messages(vectors: Path) -> Iterator[tuple[str, list[x509.Certificate]]]:
    """Yield each signed message's test and certificates, none where the library reads them not."""
    for message in sorted((vectors / "PKITS_data" / "smime").glob("*.eml")):
        signature = subprocess.run(
            ("openssl", "smime", "-pk7out", "-in", message), capture_output=True, check=True
        ).stdout
        listed = subprocess.run(
            ("openssl", "pkcs7", "-print_certs"), input=signature, capture_output=True, check=True
        ).stdout
        try:
            found = x509.load_pem_x509_certificates(listed)
        except ValueError:
            found = []
        yield message.stem.removeprefix("Signed"), found


def anchor_of(vectors: Path) -> bytes:
    """Return PKITS' trust anchor (PEM)."""
    anchor = (vectors / "PKITS_data" / "certs" / "TrustAnchorRootCertificate.crt").read_bytes()
    return x509.load_der_x509_certificate(anchor).public_bytes(Encoding.PEM)


def openssl_takes(path: Sequence[x509.Certificate], root: Path, folder: Path) -> str:
    """Return why ``openssl verify`` refuses a path, nothing if it does not."""
    leaf, others = folder / "leaf.pem", folder / "others.pem"
    leaf.write_bytes(path[0].public_bytes(Encoding.PEM))
    others.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in path[1:]))
    untrusted = ("-untrusted", others) if path[1:] else ()
    command = ("openssl", "verify", "-attime", str(int(AT.timestamp())), "-CAfile", root)
    answer = subprocess.run((*command, *untrusted, leaf), capture_output=True, text=True)
    if answer.returncode == 0:
        return ""
    said = [line for line in answer.stderr.splitlines() if "error " in line]
    return said[0].partition("error ")[2] if said else answer.stderr.strip()


def ours_takes(path: Sequence[x509.Certificate], trust: chain.TrustStore) -> str:
    """Return why the product finds no path from the leaf to the anchor."""
    _, findings = chain._build_path(path, trust, AT)
    return " ".join(finding.reason for finding in findings)


def leaf_first(certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Put the signer's certificate in front, which PKITS names "... EE Certificate ..."."""
    leaf = next(
        (one for one in certificates if " EE " in one.subject.rfc4514_string()), certificates[0]
    )
    return [leaf, *(one for one in certificates if one is not leaf)]


def pkits(vectors: Path, folder: Path) -> list[str]:
    """Compare the verdicts of all paths, print the counts, and return where they differ."""
    root = folder / "root.pem"
    root.write_bytes(anchor_of(vectors))
    trust = chain.parse_trust(root.read_bytes())
    counts: Counter[str] = Counter()
    differ = []
    for name, certificates in messages(vectors):
        if not certificates:
            counts["not read by the library"] += 1
            continue
        path = leaf_first(certificates)
        theirs, ours = openssl_takes(path, root, folder), ours_takes(path, trust)
        counts["paths"] += 1
        counts["taken by both" if not theirs and not ours else "refused by both"] += bool(
            theirs
        ) == bool(ours)
        if bool(theirs) != bool(ours):
            differ.append(f"{name}: openssl {theirs or 'takes it'}; we {ours or 'take it'}")
    agreed = counts["taken by both"] + counts["refused by both"]
    print(f"PKITS: {agreed} of {counts['paths']} paths alike ({dict(counts)})")
    return differ


# --- All vectors ---------------------------------------------------------------------------------


def certificates(vectors: Path) -> Iterator[tuple[str, x509.Certificate]]:
    """Yield every certificate of the vectors that the library loads."""
    for file in sorted(vectors.rglob("*")):
        if file.suffix not in (".pem", ".der", ".crt", ".cer"):
            continue
        content = file.read_bytes()
        load = x509.load_pem_x509_certificates if b"-----BEGIN CERT" in content else _one
        try:
            found = load(content)
        except (ValueError, x509.InvalidVersion):
            continue
        yield from ((str(file.relative_to(vectors)), one) for one in found)


def _one(content: bytes) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(content)]


def none_raises(vectors: Path) -> list[str]:
    """Describe and judge every certificate, print their number, and return what has raised."""
    trust = chain.parse_trust(anchor_of(vectors))
    raised, number = [], 0
    for name, cert in certificates(vectors):
        number += 1
        try:
            describe(cert)
            chain.verify([cert], name="www.example.org", trust=trust, at=AT)
        except Exception as error:
            raised.append(f"{name}: {error!r}")
    print(f"cryptography-vectors: {number} certificates, {len(raised)} have raised")
    return raised


def main() -> int:
    """Run both, print what differs, and return 1 if anything does."""
    version_of_openssl = subprocess.run(("openssl", "version"), capture_output=True, check=True)
    # The library warns of what some vectors are about: names and serial numbers out of bounds.
    warnings.simplefilter("ignore")
    print(f"{PACKAGE} {version('cryptography')}, {version_of_openssl.stdout.decode().strip()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vectors = fetch(folder)
        wrong = pkits(vectors, folder) + none_raises(vectors)
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
