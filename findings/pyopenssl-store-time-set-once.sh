#!/bin/sh
# The time of a pyOpenSSL X509Store can be set once. A later set_time is ignored without an error, so
# that a long-lived store judges certificates by the time of its first use.
#
# Software: pyOpenSSL 26.4.0, cryptography 50.0.2 (OpenSSL 4.0.3); 2026-11-27.
# Guess: set_time replaces the time that was set before, as the word "set" and its documentation say.
# Expected: a certificate that is valid from 12:00 on is refused at 11:00 and accepted at 13:00 by one
#   store whose time is set before each verification.
# Seen: refused both times ("certificate is not yet valid"): the store keeps 11:00. The cause is
#   X509_STORE_set1_param, which merges: what is set already is not replaced.
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

import OpenSSL
from cryptography import x509
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto

NOON = dt.datetime(2026, 11, 27, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "young")])
key = ec.generate_private_key(ec.SECP256R1())
young = (
    x509.CertificateBuilder(name, name, key.public_key(), 1, NOON, NOON + 99 * HOUR)
    .sign(key, hashes.SHA256())
)
certificate = crypto.X509.from_cryptography(young)


def judged(store, at):
    store.set_time(at)
    try:
        crypto.X509StoreContext(store, certificate).verify_certificate()
    except crypto.X509StoreContextError as error:
        return error.errors[2]
    return "valid"


def fresh():
    store = crypto.X509Store()
    store.add_cert(certificate)
    return store


one = fresh()
same = [judged(one, NOON - HOUR), judged(one, NOON + HOUR)]
each = [judged(fresh(), NOON - HOUR), judged(fresh(), NOON + HOUR)]
print("version: ", OpenSSL.__version__, backend.openssl_version_text())
print("expected:", each, "(a store for each time)")
print("seen:    ", same, "(one store)")
sys.exit(0 if each[1] == "valid" and same[1] == same[0] != "valid" else 1)
END
