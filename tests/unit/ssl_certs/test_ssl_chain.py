"""What the certificate tracker says of certificates and of chains."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto

import pki
from soc.trust import chain
from soc.trust.chain import Validity
from soc.trust.description import Description, describe

NEEDS_OPENSSL = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")

HOST = "www.example.org"
ROOT = pki.issue("Test Root", ca=True, organization="Test Org")
INTERMEDIATE = pki.issue("Test Issuing CA", ROOT, ca=True, organization="Test Org")
LEAF = pki.issue(HOST, INTERMEDIATE, san=[HOST])
STRANGER = pki.issue("Stranger Root", ca=True)
EXPIRED = {"not_before": pki.NOW - 60 * pki.DAY, "not_after": pki.NOW - pki.DAY}
FUTURE = {"not_before": pki.NOW + pki.DAY}
GARBAGE = bytes.fromhex("3082") + b"garbage"


def eku(*purposes: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage(purposes), False


def key_usage(*allowed: str) -> tuple[x509.ExtensionType, bool]:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        " key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in allowed for name in names.split()}), True


def undecodable(oid: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(oid, GARBAGE), False


def raw(oid: x509.ObjectIdentifier, value: str) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(oid, bytes.fromhex(value))


def trust_in(*anchors: pki.Issued) -> chain.TrustStore:
    certs = tuple(issued.cert for issued in anchors)
    return chain.TrustStore(certs, tuple(crypto.X509.from_cryptography(cert) for cert in certs))


@dataclass(frozen=True)
class Case:
    """A presented chain, what is trusted, and what has to be said of it."""

    presented: list[pki.Issued]
    expected: Validity
    anchors: list[pki.Issued] = field(default_factory=lambda: [ROOT])
    name: str = HOST
    says: str = ""
    # RFC 9525 forbids the common name, which `openssl verify` still takes when there is no SAN.
    openssl_agrees: bool = True


def leaf(issuer: pki.Issued | None = INTERMEDIATE, **options: object) -> pki.Issued:
    return pki.issue(HOST, issuer, **{"san": [HOST], **options})


def cases() -> dict[str, Case]:
    bare_root = pki.issue("Bare Root", ca=True, key_identifiers=False)
    bare_ca = pki.issue("Bare CA", bare_root, ca=True, key_identifiers=False)
    expired_ca = pki.issue("Old CA", ROOT, ca=True, **EXPIRED)
    crossed = pki.issue(
        "Test Issuing CA", STRANGER, ca=True, key=INTERMEDIATE.key, organization="Test Org"
    )
    impostor = pki.issue("Test Issuing CA", STRANGER, ca=True, organization="Test Org")
    forger = pki.issue("Bare CA", ca=True, key_identifiers=False)
    short = pki.issue("Short CA", ROOT, ca=True, path_length=0)
    below = pki.issue("Below CA", short, ca=True)
    own = leaf(None)
    constrained = pki.issue(
        "Constrained CA",
        ROOT,
        ca=True,
        extensions=[(x509.NameConstraints([x509.DNSName("example.com")], None), True)],
    )
    client_ca = pki.issue(
        "Client CA", ROOT, ca=True, extensions=[eku(ExtendedKeyUsageOID.CLIENT_AUTH)]
    )
    unknown_critical = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b""), True)
    # CA:FALSE with a path length of 0; an issuer's name without its serial number.
    path_length = raw(ExtensionOID.BASIC_CONSTRAINTS, "3003020100")
    half_identifier = raw(ExtensionOID.AUTHORITY_KEY_IDENTIFIER, "3006a104a4023000")
    odd_root = pki.issue(
        "Odd Root", ca=True, key_identifiers=False, extensions=[(half_identifier, False)]
    )
    valid, invalid = Validity.VALID, Validity.INVALID
    return {
        "server with a path length": Case([leaf(constraints=path_length), INTERMEDIATE], valid),
        "root with half an identifier": Case([leaf(odd_root)], valid, [odd_root]),
        "good": Case([LEAF, INTERMEDIATE], valid, says="trust anchor CN=Test Root"),
        "with the root": Case([LEAF, INTERMEDIATE, ROOT], valid),
        "in the wrong order": Case([LEAF, ROOT, INTERMEDIATE], valid),
        "with strangers": Case([LEAF, STRANGER, bare_root, INTERMEDIATE], valid),
        "without key identifiers": Case(
            [leaf(bare_ca, key_identifiers=False), bare_ca], valid, [bare_root]
        ),
        "cross-signed": Case([LEAF, crossed], valid, [ROOT, STRANGER]),
        "cross-signed, both presented": Case([LEAF, INTERMEDIATE, crossed], valid),
        "intermediate as anchor": Case([LEAF], valid, [INTERMEDIATE]),
        "server's own certificate as anchor": Case([own], valid, [own]),
        "EKU server": Case(
            [leaf(extensions=[eku(ExtendedKeyUsageOID.SERVER_AUTH)]), INTERMEDIATE], valid
        ),
        "key usage of a server": Case(
            [leaf(extensions=[key_usage("digital_signature")]), INTERMEDIATE], valid
        ),
        "Ed25519": Case([leaf(key=ed25519.Ed25519PrivateKey.generate()), INTERMEDIATE], valid),
        "expired": Case(
            [leaf(**EXPIRED), INTERMEDIATE],
            Validity.EXPIRED,
            says=f"The server's certificate (depth 0, CN={HOST}) expired on",
        ),
        "expired intermediate": Case(
            [leaf(expired_ca), expired_ca], Validity.EXPIRED, says="(depth 1, CN=Old CA) expired"
        ),
        "expired root": Case(
            [leaf(STRANGER)],
            Validity.EXPIRED,
            [pki.issue("Stranger Root", ca=True, key=STRANGER.key, **EXPIRED)],
            says="(depth 1, CN=Stranger Root) expired",
        ),
        "not yet valid": Case(
            [leaf(**FUTURE), INTERMEDIATE], Validity.NOT_YET_VALID, says="is valid from"
        ),
        "self-signed": Case([own], Validity.SELF_SIGNED, says="is self-signed"),
        "unknown root presented": Case(
            [LEAF, INTERMEDIATE, ROOT],
            Validity.UNKNOWN_ISSUER,
            [STRANGER],
            says="ends at the CA certificate (depth 2, CN=Test Root",
        ),
        "unknown root not presented": Case(
            [LEAF, INTERMEDIATE], Validity.UNKNOWN_ISSUER, [STRANGER], says="issued by CN=Test Root"
        ),
        "issued by an unknown root": Case([leaf(STRANGER)], Validity.UNKNOWN_ISSUER),
        "intermediate missing, organisation known": Case(
            [LEAF], Validity.MISSING_INTERMEDIATE, says="issued by CN=Test Issuing CA"
        ),
        "intermediate missing, download offered": Case(
            [leaf(ca_issuers="http://ca.example/ca.cer")],
            Validity.MISSING_INTERMEDIATE,
            [STRANGER],
        ),
        "intermediate missing, others presented": Case(
            [LEAF, bare_ca], Validity.MISSING_INTERMEDIATE, [STRANGER]
        ),
        "intermediate of another key": Case(
            [LEAF, impostor], Validity.MISSING_INTERMEDIATE, says="has another key"
        ),
        "forged": Case(
            [leaf(forger, key_identifiers=False), bare_ca],
            invalid,
            [bare_root],
            says="signature failure",
        ),
        "path too long": Case([leaf(below), below, short], invalid, says="path length"),
        "leaf used as CA": Case([leaf(LEAF), LEAF, INTERMEDIATE], invalid),
        "name constraint": Case([leaf(constrained), constrained], invalid, says="subtree"),
        "unknown critical extension": Case(
            [leaf(extensions=[unknown_critical]), INTERMEDIATE], invalid
        ),
        "EKU client": Case(
            [leaf(extensions=[eku(ExtendedKeyUsageOID.CLIENT_AUTH)]), INTERMEDIATE],
            invalid,
            says="lacks serverAuth",
        ),
        "EKU any": Case(
            [leaf(extensions=[eku(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)]), INTERMEDIATE],
            invalid,
        ),
        "EKU of the intermediate": Case(
            [leaf(client_ca), client_ca], invalid, says="(depth 1, CN=Client CA) is not meant"
        ),
        "key usage of a CA": Case(
            [leaf(extensions=[key_usage("key_cert_sign")]), INTERMEDIATE],
            invalid,
            says="neither signatures",
        ),
        "undecodable SAN": Case(
            [
                leaf(san=[], extensions=[undecodable(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)]),
                INTERMEDIATE,
            ],
            invalid,
            says="cannot be decoded",
        ),
        "wrong name": Case(
            [LEAF, INTERMEDIATE],
            Validity.NAME_MISMATCH,
            name="mail.example.org",
            says=f"is not for mail.example.org, its names are: {HOST}.",
        ),
        "common name only": Case(
            [leaf(san=[]), INTERMEDIATE],
            Validity.NAME_MISMATCH,
            says="its names are: none",
            openssl_agrees=False,
        ),
    }


CASES = cases()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_verdict(case: Case) -> None:
    verdict = chain.verify(
        [issued.cert for issued in case.presented],
        name=case.name,
        trust=trust_in(*case.anchors),
        at=pki.NOW,
    )
    assert verdict.result is case.expected, verdict.reason
    assert case.says in verdict.reason


@NEEDS_OPENSSL
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_openssl_agrees(case: Case, tmp_path: Path) -> None:
    finished = openssl_verify(case, tmp_path)
    accepted = case.expected is Validity.VALID or not case.openssl_agrees
    assert (finished.returncode == 0) is accepted, finished.stderr


NUMBERS = {
    Validity.EXPIRED: "10",
    Validity.NOT_YET_VALID: "9",
    Validity.SELF_SIGNED: "18",
    Validity.NAME_MISMATCH: "62",
}


@NEEDS_OPENSSL
@pytest.mark.parametrize(
    "options",
    [
        {"issuer": None, "name": "other.example", **EXPIRED},
        {"name": "other.example", **EXPIRED},
        {"name": "other.example", **FUTURE},
        EXPIRED,
    ],
    ids=["self-signed, name, time", "name, expired", "name, not yet valid", "expired"],
)
def test_the_first_of_several_faults_is_the_one_openssl_names(
    options: dict[str, object], tmp_path: Path
) -> None:
    options = dict(options)
    name = str(options.pop("name", HOST))
    case = Case([leaf(**options), INTERMEDIATE], Validity.INVALID, name=name)
    verdict = chain.verify(
        [issued.cert for issued in case.presented],
        name=name,
        trust=trust_in(ROOT),
        at=pki.NOW,
    )
    assert f"error {NUMBERS[verdict.result]} at" in openssl_verify(case, tmp_path).stderr


def openssl_verify(case: Case, folder: Path) -> subprocess.CompletedProcess[str]:
    anchors = pki.write_bundle(folder / "anchors.pem", *case.anchors)
    others = pki.write_bundle(folder / "others.pem", *case.presented[1:])
    first = pki.write_bundle(folder / "leaf.pem", case.presented[0])
    command = ["openssl", "verify", "-no-CAfile", "-no-CApath", "-partial_chain"]
    command += ["-purpose", "sslserver", "-verify_hostname", case.name, "-CAfile", str(anchors)]
    if len(case.presented) > 1:
        command += ["-untrusted", str(others)]
    return subprocess.run([*command, str(first)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("issuer", "result"),
    [(None, Validity.SELF_SIGNED), (INTERMEDIATE, Validity.NAME_MISMATCH)],
)
def test_all_faults_are_told_once(issuer: pki.Issued | None, result: Validity) -> None:
    verdict = chain.verify(
        [leaf(issuer, **EXPIRED).cert, INTERMEDIATE.cert],
        name="other.example",
        trust=trust_in(ROOT),
        at=pki.NOW,
    )
    assert verdict.result is result
    assert "is not for other.example" in verdict.reason
    assert verdict.reason.count("expired on") == 1


def test_the_time_is_the_one_given() -> None:
    presented = [LEAF.cert, INTERMEDIATE.cert]
    trust = trust_in(ROOT)
    east = dt.timezone(dt.timedelta(hours=14))
    last = LEAF.cert.not_valid_after_utc
    for at, expected in [
        (last, Validity.VALID),
        (last.astimezone(east), Validity.VALID),
        (last + dt.timedelta(seconds=1), Validity.EXPIRED),
        (LEAF.cert.not_valid_before_utc - dt.timedelta(seconds=1), Validity.NOT_YET_VALID),
    ]:
        assert chain.verify(presented, name=HOST, trust=trust, at=at).result is expected


def test_a_time_in_the_past() -> None:
    at = EXPIRED["not_after"] - pki.DAY
    root = pki.issue("Test Root", ca=True, not_before=at - pki.DAY)
    presented = [leaf(root, **EXPIRED).cert]
    assert chain.verify(presented, name=HOST, trust=trust_in(root), at=at).result is Validity.VALID


def test_nothing_presented() -> None:
    verdict = chain.verify([], name=HOST, trust=trust_in(ROOT), at=pki.NOW)
    assert verdict.result is Validity.INVALID


@pytest.mark.parametrize(
    ("names", "name", "matches"),
    [
        (["*.example.org"], "www.example.org", True),
        (["*.example.org"], "WWW.Example.ORG.", True),
        (["*.example.org"], "a.www.example.org", False),
        (["*.example.org"], "example.org", False),
        (["w*.example.org"], "www.example.org", False),
        (["www.*.org"], "www.example.org", False),
        (["*.org"], "example.org", False),
        (["*"], "localhost", False),
        (["example.org", "Other.Example"], "other.example", True),
        (["xn--bcher-kva.example"], "bücher.example", True),
        (["xn--bcher-kva.example"], "xn--bcher-kva.example", True),
        (["xn--bcher-kva.example"], "bucher.example", False),
        (["*.example.org"], "xn--bcher-kva.example.org", True),
        (["192.0.2.7"], "192.0.2.7", True),
        (["192.0.2.7"], "192.0.2.8", False),
        (["2001:db8::7"], "2001:DB8:0::7", True),
        ([x509.DNSName("192.0.2.7")], "192.0.2.7", False),
        (["192.0.2.7"], "www.example.org", False),
        ([x509.RFC822Name("www.example.org")], "www.example.org", False),
        ([x509.DNSName("www.example.org\0.evil.example")], "www.example.org", False),
        (["www.example.org"], "www..example.org", False),
        (["www.example.org"], "", False),
    ],
)
def test_names(names: list[str | x509.GeneralName], name: str, matches: bool) -> None:
    presented = [leaf(san=names).cert, INTERMEDIATE.cert]
    verdict = chain.verify(presented, name=name, trust=trust_in(ROOT), at=pki.NOW)
    assert verdict.result is (Validity.VALID if matches else Validity.NAME_MISMATCH)


# --- describe ------------------------------------------------------------------------------------


def test_describe() -> None:
    cert = leaf(san=[HOST, "192.0.2.7", x509.RFC822Name("a@example.org")]).cert
    der = cert.public_bytes(Encoding.DER)
    assert describe(cert) == Description(
        subject=f"CN={HOST}",
        issuer="CN=Test Issuing CA,O=Test Org",
        serial=f"{cert.serial_number:X}",
        not_before=pki.NOW - pki.DAY,
        not_after=pki.NOW + 30 * pki.DAY,
        san=(HOST, "192.0.2.7"),
        key="EC secp256r1",
        signature="ECDSA_WITH_SHA256",
        fingerprint_sha256=hashlib.sha256(der).hexdigest().upper(),
        is_ca=False,
        self_signed=False,
        problems=(),
    )


def test_describe_tells_authorities_and_self_signed() -> None:
    root, intermediate = describe(ROOT.cert), describe(INTERMEDIATE.cert)
    assert (root.is_ca, root.self_signed) == (True, True)
    assert (intermediate.is_ca, intermediate.self_signed) == (True, False)
    same_name = pki.issue("Test Root", ROOT, organization="Test Org")
    described = describe(same_name.cert)
    assert (described.self_signed, described.problems) == (False, ())


@NEEDS_OPENSSL
def test_sha1(tmp_path: Path) -> None:
    path = tmp_path / "sha1.pem"
    command = ["openssl", "req", "-x509", "-sha1", "-newkey", "rsa:2048", "-noenc"]
    command += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    trust = chain.load_trust([path])
    described = describe(trust.anchors[0])
    assert (described.signature, described.self_signed) == ("RSA_WITH_SHA1", True)
    assert described.problems == ()
    at = dt.datetime.now(dt.UTC)
    for store, expected in [(trust, Validity.VALID), (trust_in(ROOT), Validity.SELF_SIGNED)]:
        assert chain.verify(trust.anchors, name=HOST, trust=store, at=at).result is expected


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (rsa.generate_private_key(65537, 2048), "RSA 2048"),
        (ec.generate_private_key(ec.SECP384R1()), "EC secp384r1"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
)
def test_describe_key(key: pki.Key, text: str) -> None:
    assert describe(leaf(key=key).cert).key == text


def patched(issued: pki.Issued, old: bytes, new: bytes) -> x509.Certificate:
    der = issued.cert.public_bytes(Encoding.DER)
    assert der.count(old) == 1
    return x509.load_der_x509_certificate(der.replace(old, new))


def test_describe_unknown_key_type() -> None:
    issued = leaf(key=ed25519.Ed25519PrivateKey.generate())
    # The object identifiers 1.3.101.112 (Ed25519) and 1.3.101.127 (nothing).
    cert = patched(issued, bytes.fromhex("06032b6570"), bytes.fromhex("06032b657f"))
    described = describe(cert)
    assert described.key == "unknown (1.3.101.127)"
    assert described.san == (HOST,)


def test_describe_undecodable_key() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    x = key.public_key().public_numbers().x.to_bytes(32, "big")
    described = describe(patched(leaf(key=key, key_identifiers=False), x, bytes(32)))
    assert described.key == ""
    assert described.san == (HOST,)
    assert [problem.partition(":")[0] for problem in described.problems] == ["key"]


def test_describe_undecodable_extension() -> None:
    issued = leaf(san=[], extensions=[undecodable(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)])
    described = describe(issued.cert)
    assert (described.subject, described.san) == (f"CN={HOST}", ())
    assert [problem.partition(":")[0] for problem in described.problems] == ["extensions"]


def test_what_openssl_accepts_and_our_parser_does_not_is_remarked_on() -> None:
    constraints = raw(ExtensionOID.BASIC_CONSTRAINTS, "3003020100")
    cert = leaf(constraints=constraints).cert
    assert describe(cert).san == (HOST,)
    assert "path_length must be None" in " ".join(describe(cert).problems)
    verdict = chain.verify([cert], name=HOST, trust=trust_in(INTERMEDIATE), at=pki.NOW)
    assert verdict.result is Validity.VALID
    assert "could not be read" in verdict.remarks[0]


@pytest.mark.parametrize("presented", [[], ["root"]], ids=["leaf alone", "with its root"])
def test_a_trusted_root_that_our_parser_cannot_read_is_trusted(presented: list[str]) -> None:
    # A serial number without the issuer it is of: RFC 5280, 4.2.1.1 wants both or neither.
    identifier = raw(ExtensionOID.AUTHORITY_KEY_IDENTIFIER, "3003820105")
    root = pki.issue("Odd Root", ca=True, key_identifiers=False, extensions=[(identifier, False)])
    certs = [leaf(root).cert, *(root.cert for _ in presented)]
    verdict = chain.verify(certs, name=HOST, trust=trust_in(root), at=pki.NOW)
    assert verdict.result is Validity.VALID
    assert "could not be read" in verdict.remarks[0]


def test_duplicate_extension() -> None:
    first, second = bytes.fromhex("06032a0304"), bytes.fromhex("06032a0305")
    extensions = [
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b""), False)
        for oid in ("1.2.3.4", "1.2.3.5")
    ]
    cert = patched(leaf(extensions=extensions), second, first)
    assert "Duplicate" in describe(cert).problems[0]
    verdict = chain.verify([cert], name=HOST, trust=trust_in(INTERMEDIATE), at=pki.NOW)
    assert verdict.result is Validity.INVALID


def test_undecodable_subject() -> None:
    # A UTF8String that becomes a NULL with contents.
    subject = bytes.fromhex("0c0f") + HOST.encode()
    cert = patched(leaf(san=[]), subject, b"\x05" + subject[1:])
    assert describe(cert).problems[0].startswith("subject: ")
    verdict = chain.verify([cert], name=HOST, trust=trust_in(INTERMEDIATE), at=pki.NOW)
    assert verdict.result is Validity.INVALID


def test_describe_nul_and_control_characters() -> None:
    fooling = "www.example.org\0.evil.example"
    in_san = describe(leaf(san=[x509.DNSName(fooling)]).cert)
    assert in_san.san == (r"www.example.org\x00.evil.example",)
    assert "NUL" in in_san.problems[0]
    in_subject = describe(pki.issue(fooling, ROOT).cert)
    assert "\0" not in in_subject.subject
    assert "NUL" in in_subject.problems[0]
    line_break = describe(pki.issue("a\r\nb", ROOT).cert)
    assert line_break.subject == r"CN=a\r\nb"


@settings(max_examples=300, deadline=None)
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_damage_raises(position: int, mask: int) -> None:
    der = bytearray(LEAF.cert.public_bytes(Encoding.DER))
    der[position % len(der)] ^= mask
    try:
        cert = x509.load_der_x509_certificate(bytes(der))
    except (ValueError, x509.InvalidVersion):
        return
    describe(cert)
    verdict = chain.verify([cert, INTERMEDIATE.cert], name=HOST, trust=trust_in(ROOT), at=pki.NOW)
    assert verdict.result is not Validity.VALID


# --- trust ---------------------------------------------------------------------------------------


def test_trust_of_several_files(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pem", tmp_path / "b.pem"]
    pki.write_bundle(paths[0], STRANGER)
    pki.write_bundle(paths[1], ROOT, INTERMEDIATE)
    trust = chain.load_trust(paths)
    assert trust.anchors == (STRANGER.cert, ROOT.cert, INTERMEDIATE.cert)


def test_trust_follows_the_file(tmp_path: Path) -> None:
    path = pki.write_bundle(tmp_path / "ca.pem", ROOT)
    first = chain.load_trust([path])
    assert chain.load_trust([path]).openssl_anchors[0] is first.openssl_anchors[0]
    pki.write_bundle(path, STRANGER)
    assert chain.load_trust([path]).anchors == (STRANGER.cert,)


@pytest.mark.parametrize("content", [b"", b"no certificate", ROOT.key_pem, ROOT.cert_pem[:200]])
def test_trust_without_certificates(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(chain.TrustError, match=r"ca\.pem: no usable CA certificates"):
        chain.load_trust([path])


def test_trust_in_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(chain.TrustError, match=r"none\.pem: No such file"):
        chain.load_trust([tmp_path / "none.pem"])


def test_system_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pki.write_bundle(tmp_path / "system.pem", ROOT)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert chain.system_bundle() == path
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(chain.TrustError, match="SSL_CERT_FILE"):
        chain.system_bundle()


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_a_certificate_without_an_end_has_one_that_every_zone_can_tell(zone: str) -> None:
    without_end = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    told = describe(pki.issue("device", not_after=without_end).cert).not_after
    assert told is not None
    assert told.astimezone(ZoneInfo(zone)).year == 9999
