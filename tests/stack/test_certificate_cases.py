"""Certificates of every kind behind real servers: our verdicts, the expected, and OpenSSL's."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

import pki
from harness import build_servers, new_name, run, wait_for
from soc.common.net import a_label
from soc.ssl_certs import probe
from soc.ssl_certs.probe import Presented
from soc.ssl_certs.targets import StartTls, Target
from soc.trust import chain
from soc.trust.chain import Validity
from soc.trust.revocation import Evidence

SERVERS = Path(__file__).parent / "peers" / "servers"
LIST = "http://crl.cases.internal/ca.crl"
ADDRESS = "192.0.2.7"
NO_ANSWER = -1
STRANGER = "stranger.elsewhere.internal"
DAY = pki.DAY

ROOT = pki.issue("Case Root", ca=True, organization="Cases")
MIDDLE = pki.issue("Case CA", ROOT, ca=True, organization="Cases")


@dataclass(frozen=True)
class Case:
    """What a server presents, the verdict that is expected, and the one of `openssl s_client`."""

    presented: list[pki.Issued]
    expected: Validity
    name: str
    # The number of X509_V_ERR_...; 0 is "ok".
    openssl: int
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Protocol:
    """A server of the container, and how `openssl s_client` names what it speaks."""

    server: str
    starttls: StartTls
    port: int
    s_client: str = ""
    port_by_case: bool = False


PROTOCOLS = [
    Protocol("openssl", StartTls.NONE, 10000, port_by_case=True),
    Protocol("nginx", StartTls.NONE, 12000, port_by_case=True),
    Protocol("Postfix", StartTls.SMTP, 11000, "smtp", port_by_case=True),
    Protocol("Dovecot", StartTls.IMAP, 143, "imap"),
    Protocol("Dovecot", StartTls.POP3, 110, "pop3"),
    Protocol("PostgreSQL", StartTls.POSTGRESQL, 5432, "postgres"),
]
POSTGRESQL = PROTOCOLS[-1]
OF_ONE_CERTIFICATE = [
    Protocol("Prosody", StartTls.XMPP, 5222, "xmpp"),
    Protocol("Prosody", StartTls.XMPP_SERVER, 5269, "xmpp-server"),
    Protocol("vsftpd", StartTls.FTP, 21, "ftp"),
]


def leaf(name: str, issuer: pki.Issued | None = MIDDLE, **options: object) -> pki.Issued:
    return pki.issue(name, issuer, **{"san": [name], **options})


def cases() -> dict[str, Case]:
    past = {"not_before": pki.NOW - 9 * DAY, "not_after": pki.NOW - DAY}
    future = {"not_before": pki.NOW + DAY, "not_after": pki.NOW + 9 * DAY}
    stranger = pki.issue("Strange Root", ca=True)
    old = pki.issue("Old CA", ROOT, ca=True, **past)
    listed = [x509.DistributionPoint([x509.UniformResourceIdentifier(LIST)], None, None, None)]
    client = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    made = {
        "valid": ([leaf("valid.cases.internal"), MIDDLE], Validity.VALID, 0),
        "wildcard": (
            [leaf("wildcard.cases.internal", san=["*.cases.internal"]), MIDDLE], Validity.VALID, 0,
        ),
        "idna": (
            [leaf("xn--bcher-kva.cases.internal"), MIDDLE], Validity.VALID, 0,
        ),
        "address": ([leaf(ADDRESS), MIDDLE], Validity.VALID, 0),
        "disorder": ([leaf("disorder.cases.internal"), ROOT, MIDDLE], Validity.VALID, 0),
        "whole": ([leaf("whole.cases.internal"), MIDDLE, ROOT], Validity.VALID, 0),
        "expired": ([leaf("expired.cases.internal", **past), MIDDLE], Validity.EXPIRED, 10),
        "future": ([leaf("future.cases.internal", **future), MIDDLE], Validity.NOT_YET_VALID, 9),
        "selfsigned": ([leaf("selfsigned.cases.internal", None)], Validity.SELF_SIGNED, 18),
        "stranger": (
            [leaf("stranger.cases.internal", stranger), stranger], Validity.UNKNOWN_ISSUER, 19,
        ),
        "incomplete": (
            [leaf("incomplete.cases.internal")], Validity.MISSING_INTERMEDIATE, 20,
        ),
        "othername": (
            [leaf("othername.cases.internal", san=["www.elsewhere.internal"]), MIDDLE],
            Validity.NAME_MISMATCH, 62,
        ),
        "deepwildcard": (
            [leaf("deep.wild.cases.internal", san=["*.cases.internal"]), MIDDLE],
            Validity.NAME_MISMATCH, 62,
        ),
        "oldca": ([leaf("oldca.cases.internal", old), old], Validity.EXPIRED, 10),
        "client": (
            [leaf("client.cases.internal", extensions=[(client, False)]), MIDDLE],
            Validity.INVALID, 26,
        ),
        # RFC 9525 does away with the common name, which OpenSSL still takes without a SAN.
        "commonname": ([leaf("commonname.cases.internal", san=[]), MIDDLE],
                       Validity.NAME_MISMATCH, 0),
        "revoked": (
            [leaf("revoked.cases.internal",
                  extensions=[(x509.CRLDistributionPoints(listed), False)]), MIDDLE],
            Validity.REVOKED, 23,
        ),
    }  # fmt: skip
    names = {"address": ADDRESS, "idna": "bücher.cases.internal", "deepwildcard": "deep.wild.cases.internal"}  # fmt: skip  # noqa: E501
    return {
        case: Case(presented, expected, names.get(case, f"{case}.cases.internal"), code)
        for case, (presented, expected, code) in made.items()
    }


CASES = cases()
REVOKED = CASES["revoked"].presented[0].cert


def revocation_list() -> x509.CertificateRevocationList:
    entry = (
        x509.RevokedCertificateBuilder()
        .serial_number(REVOKED.serial_number)
        .revocation_date(pki.NOW - DAY)
        .add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
        .build()
    )
    builder = x509.CertificateRevocationListBuilder().issuer_name(MIDDLE.cert.subject)
    builder = builder.last_update(pki.NOW - DAY).next_update(pki.NOW + DAY)
    return builder.add_revoked_certificate(entry).sign(MIDDLE.key, hashes.SHA256())


def prepare_responder(folder: Path) -> None:
    """Write what `openssl ocsp` needs to answer for the issuer, who has appointed it."""
    folder.mkdir()
    appointed = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    responder = pki.issue("Responder", MIDDLE, extensions=[(appointed, False)])
    (folder / "responder.pem").write_bytes(responder.key_pem + responder.cert_pem)
    (folder / "issuer.pem").write_bytes(MIDDLE.cert_pem)
    moment = "%y%m%d%H%M%SZ"
    (folder / "index").write_text(
        "".join(
            f"{state}\t{cert.not_valid_after_utc:{moment}}\t{since}\t"
            f"{cert.serial_number:040X}\tunknown\t/CN={cert.serial_number}\n"
            for state, since, cert in (
                ("V", "", CASES["valid"].presented[0].cert),
                ("R", f"{pki.NOW - DAY:{moment}},keyCompromise", REVOKED),
            )
        )
    )


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for name, case in CASES.items():
        pems = b"".join(issued.cert_pem for issued in case.presented)
        (folder / f"{name}.pem").write_bytes(case.presented[0].key_pem + pems)
    ascii_names = (f"{name} {_sni(case.name)}\n" for name, case in CASES.items())
    (folder / "cases").write_text("".join(ascii_names))
    (folder / "root.crt").write_bytes(ROOT.cert_pem)
    pem = revocation_list().public_bytes(serialization.Encoding.PEM)
    (folder / "crl.pem").write_bytes(pem)
    prepare_responder(folder / "ocsp")
    folder.chmod(0o755)
    return folder


def _sni(name: str) -> str:
    return name if name == ADDRESS else a_label(name)


@pytest.fixture(scope="module")
def servers(images: dict[str, str], identity: Path) -> Iterator[tuple[str, str]]:
    """A container with every server; its name and its address."""
    image = build_servers(SERVERS, images["python"])
    name = f"soc-{new_name()}-servers"
    run("docker", "run", "--detach", f"--name={name}", f"--volume={identity}:/identity:ro", image)
    try:
        wait_for("the servers", lambda: "ready" in run("docker", "logs", name))
        told = run("docker", "inspect", "--format={{.NetworkSettings.IPAddress}}", name)
        yield name, told.strip()
    finally:
        run("docker", "rm", "--force", name)


@pytest.fixture(scope="module")
def presented(servers: tuple[str, str]) -> dict[tuple[str, Protocol], object]:
    """What every server presents of every case."""
    found: dict[tuple[str, Protocol], object] = {}
    everything = {
        (name, protocol): target(protocol, name, servers[1])
        for name in CASES
        for protocol in PROTOCOLS
        if protocol is not POSTGRESQL
    }
    with closing(probe.collect_many(everything)) as results:
        found |= dict(results)
    return found


def target(protocol: Protocol, name: str, address: str) -> Target:
    port = protocol.port + (list(CASES).index(name) if protocol.port_by_case else 0)
    return Target(address, port, CASES[name].name, protocol.starttls)


def of_postgresql(container: str, name: str, address: str) -> object:
    """Have PostgreSQL present a case; a reload takes it a moment."""
    run("docker", "exec", container, "present", name)
    expected = CASES[name].presented[0].cert
    wanted = {0: target(POSTGRESQL, name, address)}

    def arrived() -> object:
        ((_, result),) = probe.collect_many(wanted)
        return result if isinstance(result, Presented) and result.chain[0] == expected else None

    return wait_for(f"PostgreSQL to present {name}", arrived, seconds=20)


LISTS = {LIST: revocation_list()}


def verdict(name: str, found: object, lists: dict[str, Any] = LISTS) -> chain.Verdict | str:
    if not isinstance(found, Presented):
        return str(found)
    return chain.verify(
        found.chain,
        name=CASES[name].name,
        trust=chain.parse_trust(ROOT.cert_pem),
        at=dt.datetime.now(dt.UTC),
        evidence=Evidence(found.staple, lists),
    )


def s_client(protocol: Protocol, name: str, address: str, identity: Path) -> int:
    """Return the first error that `openssl s_client -verify_return_error` stops at, or 0."""
    case, where = CASES[name], target(protocol, name, address)
    expected = ["-verify_ip", ADDRESS] if case.name == ADDRESS else [
        "-servername", _sni(case.name), "-verify_hostname", _sni(case.name),
    ]  # fmt: skip
    if name == "revoked":
        expected += ["-crl_check", "-CRL", str(identity / "crl.pem")]
    if protocol.s_client:
        # The host is the domain that is asked for; only XMPP takes it.
        expected += ["-starttls", protocol.s_client, "-xmpphost", _sni(case.name)]
    finished = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"{where.host}:{where.port}"),
            *("-CAfile", str(identity / "root.crt"), "-no-CApath"),
            *("-verify_return_error", *expected),
        ],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    errors = re.findall(r"verify error:num=(\d+):", finished.stdout + finished.stderr)
    if not errors and finished.returncode != 0:
        return NO_ANSWER
    return int(errors[0]) if errors else 0


def test_every_case_behind_every_server(
    servers: tuple[str, str],
    presented: dict[tuple[str, Protocol], object],
    identity: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    container, address = servers
    lines, wrong = [], []
    for name, case in CASES.items():
        presented[name, POSTGRESQL] = of_postgresql(container, name, address)
        for protocol in PROTOCOLS:
            found = verdict(name, presented[name, protocol])
            observed = found.result if isinstance(found, chain.Verdict) else found
            code = s_client(protocol, name, address, identity)
            lines.append(
                f"{name:13} {protocol.server:11} {protocol.starttls.value or 'tls':11}"
                f" {case.expected:21} {observed:21} {code:4}"
            )
            if (observed, code) != (case.expected, case.openssl):
                wrong.append(f"{lines[-1]}\n{found}")
    head = ("case", "server", "protocol", "expected", "observed", "openssl")
    with capsys.disabled():
        print("\n{:13} {:11} {:11} {:21} {:21} {}".format(*head))
        print("\n".join(lines))
        print(f"{len(lines)} cells, {len(lines) - len(wrong)} as expected")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("protocol", OF_ONE_CERTIFICATE, ids=lambda one: one.starttls.value)
def test_servers_that_know_one_certificate(
    servers: tuple[str, str], identity: Path, protocol: Protocol
) -> None:
    ((_, found),) = probe.collect_many({0: target(protocol, "valid", servers[1])})
    judged = verdict("valid", found)
    assert isinstance(judged, chain.Verdict), judged
    assert judged.result is Validity.VALID
    assert s_client(protocol, "valid", servers[1], identity) == 0


@pytest.mark.parametrize(
    ("port", "name", "expected", "why"),
    [
        (12900, "valid", Validity.VALID, ""),
        (12901, "revoked", Validity.REVOKED, "keyCompromise, says its OCSP response"),
    ],
)
def test_a_stapled_response_of_a_real_responder_counts(
    servers: tuple[str, str], port: int, name: str, expected: Validity, why: str
) -> None:
    """`openssl s_client -status` only prints it."""
    where = Target(servers[1], port, CASES[name].name)

    def stapled() -> Presented | None:
        # nginx asks the responder when the first client comes, who gets nothing yet.
        ((_, found),) = probe.collect_many({0: where})
        return found if isinstance(found, Presented) and found.staple else None

    judged = verdict(name, wait_for("a stapled response", stapled), lists={})
    assert isinstance(judged, chain.Verdict)
    assert judged.result is expected
    assert judged.remarks == ()
    assert why in judged.reason


@pytest.mark.parametrize(
    ("port", "starttls", "says"),
    [
        (12902, StartTls.NONE, f"was asked for the server name '{STRANGER}'"),
        (12903, StartTls.NONE, f"was asked for the server name '{STRANGER}'"),
        (12000, StartTls.SMTP, "it must not be STARTTLS"),
        (5222, StartTls.XMPP, "ends the stream (host-unknown)"),
    ],
    ids=["nginx", "HAProxy", "implicit TLS", "Prosody"],
)
def test_a_refusal_says_what_to_look_at(
    servers: tuple[str, str], port: int, starttls: StartTls, says: str
) -> None:
    """nginx with `ssl_reject_handshake`, HAProxy with `strict-sni`, and two wrong protocols."""
    ((_, found),) = probe.collect_many({0: Target(servers[1], port, STRANGER, starttls)})
    assert isinstance(found, probe.ProbeError)
    assert says in found.detail
