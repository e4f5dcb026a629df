#!/bin/sh
# One extension with a frequent mistake (basicConstraints CA:FALSE with a path length) costs a reader
# who uses pyca/cryptography all extensions of the certificate, its names included, while OpenSSL
# accepts the certificate.
#
# Software: cryptography 50.0.2, pyOpenSSL 26.4.0 (OpenSSL 4.0.3); 2026-11-27.
# Guess: reading the subject alternative name of a certificate that TLS clients accept works, as
#   another extension has nothing to do with it.
# Expected: OpenSSL verifies the certificate, and its names are [www.example.org].
# Seen: OpenSSL verifies it; Certificate.extensions raises ValueError, whichever extension is wanted.
# Exit 0: still so. Exit 1: the behaviour has changed.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pyOpenSSL==26.4.0 cryptography==50.0.2
"$folder/venv/bin/python" - <<'END'
import datetime as dt
import sys

import cryptography
from cryptography import x509
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def issue(name, issuer, signer, key, constraints, *names):
    subject, signed_by = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, issuer)
    )
    builder = x509.CertificateBuilder(
        signed_by, subject, key.public_key(), x509.random_serial_number(), NOW - DAY, NOW + DAY
    ).add_extension(constraints, critical=True)
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        builder = builder.add_extension(san, critical=False)
    return builder.sign(signer, hashes.SHA256())


ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
root = issue("root", "root", ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=None))
# SEQUENCE { INTEGER 0 }: CA:FALSE, which DER leaves out, with a path length.
constraints = x509.UnrecognizedExtension(
    x509.ExtensionOID.BASIC_CONSTRAINTS, bytes.fromhex("3003020100")
)
leaf = issue("www.example.org", "root", ca_key, key, constraints, "www.example.org")
store = crypto.X509Store()
store.add_cert(crypto.X509.from_cryptography(root))
try:
    crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf)).verify_certificate()
    verified = "valid"
except crypto.X509StoreContextError as error:
    verified = error.errors[2]
try:
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = str(san.get_values_for_type(x509.DNSName))
except ValueError as error:
    names = f"ValueError: {error}"
print("version: ", cryptography.__version__, backend.openssl_version_text())
print("expected: valid, ['www.example.org']")
print(f"seen:     {verified}, {names}")
sys.exit(0 if verified == "valid" and names.startswith("ValueError") else 1)
END
