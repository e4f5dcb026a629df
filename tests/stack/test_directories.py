"""What the probes say of real directory servers in every kind of trouble, beside ldapsearch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

import pki
import slapd
from harness import Stack, run, wait_for, wait_until_equal
from soc.core.severity import Severity
from soc.ldap_probe import replication, speed
from soc.ldap_probe.diagnostics import Security
from soc.ldap_probe.models import DirectoryServer, Limit
from soc.ldap_probe.probe import DirectoryTarget, probe
from soc.ssl_certs import probe as certificates
from soc.ssl_certs.targets import StartTls, Target

PLAIN, STARTTLS, LDAPS = Security.PLAIN, Security.STARTTLS, Security.LDAPS
SUFFIX = slapd.SUFFIX
AS_READER = {"user": slapd.READER, "password": slapd.PASSWORD}
BIND_REFUSED = "80090308: LdapErr: DSID-0C090446, comment: AcceptSecurityContext error, data {}"

CANNOT_CONTACT, LOST, TIMED_OUT = 255, 254, 124
"""What ldapsearch ends with: no connection, no answer, and where it does not end by itself."""


SLOW_SECONDS = 0.4
"""From where on the search of the slow server is slow."""


@dataclass
class Case:
    """A server in some trouble: what we ask it, our verdict, and what ldapsearch ends with.

    ``why`` explains where the two do not say the same.
    """

    name: str
    verdict: tuple[str, str]
    status: int
    ask: dict[str, Any] = field(default_factory=dict)
    server: str = "good"
    why: str = ""


CASES = [
    Case("ldaps", ("ok", ""), 0, {"security": LDAPS}),
    Case("StartTLS", ("ok", ""), 0, {"security": STARTTLS}),
    Case("plain, bound, searching", ("ok", ""), 0,
         {**AS_READER, "base": SUFFIX, "filter": "(cn=person 7)"}),
    Case("wrong password", ("credential", "invalid_credentials"), 49,
         {"user": slapd.READER, "password": "wrong"}),
    Case("unknown user", ("credential", "invalid_credentials"), 49,
         {"user": f"cn=nobody,{SUFFIX}", "password": "wrong"}),
    Case("empty password", ("credential", "no_password"), 53, {"user": slapd.READER},
         why="we do not even send it"),
    Case("access rights refuse", ("refused", "no_such_object"), 32,
         {"base": f"ou=closed,{SUFFIX}"}),
    Case("no such base", ("refused", "no_such_object"), 32, {"base": f"ou=none,{SUFFIX}"}),
    Case("nothing matches", ("refused", "nothing_found"), 0,
         {"base": f"ou=people,{SUFFIX}", "filter": "(cn=nobody)"},
         why="for LDAP no entry is a success; for a probe it is not"),
    Case("bad filter", ("refused", "filter_error"), 249, {"base": SUFFIX, "filter": "((cn=*)"}),
    Case("size limit of the server", ("ok", ""), 4,
         {"user": slapd.LIMITED, "password": slapd.PASSWORD, "base": SUFFIX, "filter": "(cn=p*)"},
         why="we ask for one entry, it for all"),
    Case("administrative limit", ("refused", "administrative_limit_exceeded"), 11,
         {"base": f"cn=limit,ou=codes,{SUFFIX}"}),
    Case("busy", ("down", "server_is_busy"), 51, {"base": f"cn=busy,ou=codes,{SUFFIX}"}),
    Case("shutting down", ("down", "server_is_unavailable"), 52,
         {"base": f"cn=unavailable,ou=codes,{SUFFIX}"}),
    Case("referral", ("referral", "referral"), 10, {"base": f"ou=branch,{SUFFIX}"}),
    Case("only references", ("refused", "nothing_found"), 0,
         {"base": SUFFIX, "filter": "(cn=nobody)"},
         why="it lists the references and calls that a success"),
    Case("unknown authority", ("certificate", "unknown_authority"), CANNOT_CONTACT,
         {"security": LDAPS, "authority": "another"}),
    Case("unknown authority, StartTLS", ("certificate", "unknown_authority"), 1,
         {"security": STARTTLS, "authority": "another"}),
    Case("expired certificate", ("certificate", "expired"), CANNOT_CONTACT,
         {"security": LDAPS}, "expired"),
    Case("expired, StartTLS", ("certificate", "expired"), 1, {"security": STARTTLS}, "expired"),
    Case("certificate of another name", ("certificate", "wrong_name"), CANNOT_CONTACT,
         {"security": LDAPS}, "elsewhere"),
    Case("ldaps spoken to the plain port", ("down", "tls_closed"), CANNOT_CONTACT,
         {"security": LDAPS}, "plain port"),
    Case("not LDAP but SSH", ("down", "not_ldap"), TIMED_OUT, {}, "ssh",
         why="it waits for the rest of what it takes for a message"),
    Case("closes at once", ("down", "connection_lost"), LOST, {}, "closing"),
    Case("slow", ("slow", "search"), 0, {}, "slow", why="it has no notion of slow"),
    Case("hangs after accept", ("timeout", "search_timeout"), TIMED_OUT, {}, "paused",
         why="it waits without end"),
    Case("hangs after accept, ldaps", ("timeout", "tls_timeout"), TIMED_OUT,
         {"security": LDAPS}, "paused", why="its time limit does not count for TLS"),
    Case("stopped", ("down", "connect_refused"), CANNOT_CONTACT, {}, "stopped"),
    Case("name does not resolve", ("down", "resolve_failed"), CANNOT_CONTACT, {}, "nowhere"),
    Case("Active Directory, data 52e", ("credential", "wrong_password"), 49,
         {"user": "ann@example.org", "password": "x"}, "52e"),
    Case("Active Directory, data 775", ("credential", "account_locked"), 49,
         {"user": "ann@example.org", "password": "x"}, "775"),
]  # fmt: skip


@dataclass
class Servers:
    """The servers of the cases: host, port of clear text, port of ldaps."""

    authorities: dict[str, pki.Issued]
    folder: Path
    where: dict[str, tuple[str, int, int]]

    def trusted(self, name: str) -> Path:
        return pki.write_bundle(self.folder / f"{name}.pem", self.authorities[name])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("slapd")
    root = pki.issue("directory root", ca=True)
    # By its address: libldap takes "localhost" for the machine's own name.
    names = ["127.0.0.1"]
    past = pki.NOW - pki.DAY
    certificates = {
        "good": pki.issue("localhost", root, san=names),
        "paused": pki.issue("localhost", root, san=names),
        "stopped": pki.issue("localhost", root, san=names),
        "elsewhere": pki.issue("elsewhere", root, san=["elsewhere.internal"]),
        "expired": pki.issue(
            "localhost", root, san=names, not_before=past - pki.DAY, not_after=past
        ),
    }
    running = {
        name: slapd.start(folder / name, [certificate], people=20)
        for name, certificate in certificates.items()
    }
    running["paused"].pause()
    running["stopped"].stop()
    good = running["good"]
    where = {name: ("127.0.0.1", one.plain, one.tls) for name, one in running.items()}
    peers = {
        "ssh": slapd.Peer(slapd.greeting(b"SSH-2.0-OpenSSH_9.2\r\n")),
        "closing": slapd.Peer(lambda sock: sock.recv(4096)),
        "slow": slapd.Peer(slapd.delaying(good.plain, 2 * SLOW_SECONDS)),
        **{
            data: slapd.Peer(slapd.active_directory(49, BIND_REFUSED.format(data)))
            for data in ("52e", "775")
        },
    }
    where |= {name: ("127.0.0.1", peer.port, peer.port) for name, peer in peers.items()}
    where["plain port"] = ("127.0.0.1", good.plain, good.plain)
    where["nowhere"] = ("nowhere.invalid", 389, 636)
    authorities = {"good": root, "another": pki.issue("another root", ca=True)}
    yield Servers(authorities, folder, where)
    for one in running.values():
        one.stop()
    for peer in peers.values():
        peer.__exit__()


def observed(case: Case, servers: Servers) -> tuple[tuple[str, str], int, str]:
    """Return our verdict, the exit status of ldapsearch and what it said."""
    ask = dict(case.ask)
    authority = ask.pop("authority", "good")
    security = ask.pop("security", PLAIN)
    host, plain, tls = servers.where[case.server]
    port = tls if security == LDAPS else plain
    pem = servers.authorities[authority].cert_pem.decode()
    target = DirectoryTarget(host, port, security, pem, **ask)
    finding = probe(target, network_seconds=2, operation_seconds=2)
    scope = ["-s", "sub" if target.filter else "base", "-b", target.base]
    user = ["-D", target.user, "-w", target.password] if target.user else []
    start_tls = ["-ZZ"] if security == STARTTLS else []
    scheme = "ldaps" if security == LDAPS else "ldap"
    status, said = slapd.ldapsearch(
        f"{scheme}://{host}:{port}", *start_tls, *user, *scope,
        target.filter or "(objectClass=*)", "1.1", authority=servers.trusted(authority),
    )  # fmt: skip
    verdict = finding.outcome.value, finding.error
    limit = Limit(phase=Limit.Phase.SEARCH, error=SLOW_SECONDS)
    if case.server == "slow" and speed.judge([limit], finding.milliseconds)[0] > Severity.OK:
        verdict = "slow", limit.phase
    return verdict, status, said


def test_every_kind_of_trouble_has_the_verdict_that_ldapsearch_bears_out(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    slapd.need_the_client()
    lines, wrong = [], []
    for case in CASES:
        verdict, status, said = observed(case, servers)
        if verdict != case.verdict or status != case.status:
            wrong.append((case.name, verdict, status, said))
        lines.append(
            f"{case.name:<32} {' '.join(case.verdict):<40} {' '.join(verdict):<40} "
            f"{case.status:>4} {status:>4}  {case.why or said[:60]}"
        )
    with capsys.disabled():
        head = f"{'case':<32} {'expected':<40} {'observed':<40} {'ldapsearch':>9}  differs because"
        print("\n" + "\n".join([head, *lines]))
    assert wrong == []


@pytest.mark.parametrize("server", ["good", "expired", "elsewhere"])
def test_the_certificate_tracker_reads_the_same_over_starttls(
    servers: Servers, server: str
) -> None:
    host, plain, tls = servers.where[server]
    targets = {
        "StartTLS": Target(host, plain, starttls=StartTls.LDAP),
        "ldaps": Target(host, tls),
    }
    found = dict(certificates.collect_many(targets))
    assert found["StartTLS"].chain == found["ldaps"].chain != ()


# --- Replication --------------------------------------------------------------------------------


def test_a_copy_that_lacks_a_change_tells_an_older_csn(servers: Servers, tmp_path: Path) -> None:
    slapd.need_the_client()
    source, copy = (
        slapd.start(tmp_path / name, [servers.authorities["good"]], people=1)
        for name in ("source", "copy")
    )
    try:
        run(
            "ldapmodify", "-x", "-H", f"ldap://127.0.0.1:{source.plain}",
            "-D", f"cn=root,{SUFFIX}", "-w", "root",
            stdin=f"dn: {SUFFIX}\nchangetype: modify\nreplace: o\no: Changed\n",
        )  # fmt: skip
        found = [
            probe(DirectoryTarget("127.0.0.1", one.plain, PLAIN, base=SUFFIX, replication=True))
            for one in (source, copy)
        ]
    finally:
        source.stop()
        copy.stop()
    csns = [one.copy.csn for one in found if one.copy]
    ahead = DirectoryServer(host="source", csn=csns[0])
    behind = DirectoryServer(host="copy", csn=csns[1])
    now = timezone.now()
    for one, other in ((ahead, behind), (behind, ahead)):
        replication.measure(one, [other], now + timedelta(seconds=60))
    assert list(csns[0]) == ["000"]
    assert ahead.lag == 0
    assert behind.lag >= 60


# --- In the stack -------------------------------------------------------------------------------


@dataclass
class Watched:
    """Two servers beside the stack that it watches: one is left alone, one is troubled."""

    stack: Stack
    address: str
    steady: slapd.Slapd
    troubled: slapd.Slapd

    def states(self) -> dict[int, str]:
        return {one["port"]: one["state"] for one in self.all()}

    def all(self) -> list[dict[str, Any]]:
        return self.stack.data(f"""
from soc.ldap_probe.models import DirectoryServer
servers = DirectoryServer.objects.filter(host={self.address!r}).order_by("port")
answer = list(servers.values("port", "state", "failures", "detail", "lag"))
for one, server in zip(answer, servers):
    one["results"] = server.results.count()
""")

    def make_due(self) -> None:
        self.stack.data(f"""
from django.utils import timezone
from soc.ldap_probe.models import DirectoryServer
servers = DirectoryServer.objects.filter(host={self.address!r})
answer = servers.update(next_probe_at=timezone.now())
""")

    def results(self) -> dict[int, int]:
        return {one["port"]: one["results"] for one in self.all()}

    def probe_again(self) -> None:
        """Have both probed once more, and wait for what was found."""
        before = self.results()
        self.make_due()
        wait_for(
            "the probes", lambda: all(n > before[port] for port, n in self.results().items()), 90
        )

    def alerts(self) -> list[list[str]]:
        return self.stack.data(f"""
from soc.alerts.models import Alert
alerts = Alert.objects.filter(rule__application="ldap_probe", subject__name__startswith=
    {self.address!r}, resolved_at=None, state="firing")
answer = [[alert.subject.name, alert.rule.name, alert.severity] for alert in alerts]
""")


@pytest.fixture(scope="module")
def watched(
    stack: Stack, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """Real servers on the host's address in the stack's network, registered with a credential."""
    config = run("docker", "network", "inspect", f"{stack.project}_egress")
    address = json.loads(config)[0]["IPAM"]["Config"][0]["Gateway"]
    leaf = pki.issue("directory", servers.authorities["good"], san=[address])
    folder = tmp_path_factory.mktemp("watched")
    steady, troubled = (
        slapd.start(folder / name, [leaf], address=address, people=5)
        for name in ("steady", "troubled")
    )
    stack.data(f"""
from soc.ldap_probe.models import Credential, DirectoryServer
from soc.trust.models import Authority
authority = Authority.objects.create(
    name="test", pem={servers.authorities["good"].cert_pem.decode()!r})
reader = Credential.objects.create(
    name="test", user={slapd.READER!r}, password={slapd.PASSWORD!r})
for port in {[steady.tls, troubled.tls]}:
    DirectoryServer.objects.create(host={address!r}, port=port, authority=authority,
        credential=reader, base={SUFFIX!r}, filter="(cn=person 3)", site="Test site")
answer = None
""")
    yield Watched(stack, address, steady, troubled)
    stack.data("""
from soc.ldap_probe.models import DirectoryServer
answer = DirectoryServer.objects.filter(site="Test site").delete()
""")
    steady.stop()
    troubled.stop()


def is_connected(port: int) -> bool:
    """Whether anybody is connected to a port of this machine: proc_net_tcp(5), state 01."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in sockets)


@pytest.mark.drill
def test_the_worker_probes_real_servers_with_a_stored_credential(watched: Watched) -> None:
    expected = dict.fromkeys((watched.steady.tls, watched.troubled.tls), "ok")
    wait_until_equal("the first probes", watched.states, expected, 90)
    assert slapd.PASSWORD not in watched.stack.compose("logs", "worker-ldap-probe")


@pytest.mark.drill
def test_a_server_that_hangs_ends_as_a_timeout_and_the_worker_goes_on(watched: Watched) -> None:
    watched.troubled.pause()
    watched.probe_again()
    watched.probe_again()
    states = watched.states()
    assert states == {watched.steady.tls: "ok", watched.troubled.tls: "timeout"}
    subject = f"{watched.address}:{watched.troubled.tls}"
    wait_until_equal("the alert", watched.alerts, [[subject, "answers", 30]])
    stack = watched.stack
    wait_for("the mail", lambda: [m for m in stack.mail() if subject in m["Subject"]])


@pytest.mark.drill
def test_a_worker_that_is_killed_in_a_round_comes_back_and_goes_on(watched: Watched) -> None:
    watched.make_due()
    wait_for("a round that hangs", lambda: is_connected(watched.troubled.tls))
    run("docker", "kill", "--signal=KILL", watched.stack.container("worker-ldap-probe"))
    run("docker", "start", watched.stack.container("worker-ldap-probe"))
    watched.troubled.go_on()
    watched.probe_again()
    assert set(watched.states().values()) == {"ok"}
    wait_until_equal("the end of the alert", watched.alerts, [])
