"""How far copies are behind, and who is to blame, by what real servers show."""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from answering import Directory, another_round, fine, reloaded, server

import slapd
from mailing import Clock
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.ldap_probe.diagnostics import Security
from soc.ldap_probe.models import DirectoryServer, Profile
from soc.ldap_probe.probe import DirectoryTarget, Finding, probe
from soc.ldap_probe.replicas import Copy

OLD, NEW = str(uuid.uuid4()), str(uuid.uuid4())


def firing() -> dict[str, tuple[str, int]]:
    """The alerts that fire: subject to rule and severity."""
    alerts = Alert.objects.filter(OPEN, state=Alert.State.FIRING).select_related("rule", "subject")
    return {alert.subject.name: (alert.rule.name, alert.severity) for alert in alerts}


def group(*hosts: str) -> list[DirectoryServer]:
    profile = Profile.objects.get(name="standard")
    return [server(host, group="all", profile=profile) for host in hosts]


# --- OpenLDAP and 389-ds ------------------------------------------------------------------------


def csn(moment: datetime, origin: str = "001") -> dict[str, str]:
    return {origin: f"{moment:%Y%m%d%H%M%S.%f}Z"}


@pytest.mark.django_db
def test_a_copy_is_behind_from_the_first_change_it_lacks(
    directory: Directory, clock: Clock
) -> None:
    source, copy = group("source", "copy")
    old = clock.now - timedelta(days=30)
    newest = old

    def found(target: DirectoryTarget) -> Finding:
        return fine(target, copy=Copy(csn=csn(old if target.host == "copy" else newest)))

    directory.says = {"source": found, "copy": found}
    another_round()
    assert (reloaded(source).lag, reloaded(copy).lag) == (0, 0)
    # Thirty days of quiet are no lag: the copy is behind since the change, and only since then.
    newest = clock.now
    for minutes, expected in ((1, 60), (6, 360), (20, 1200)):
        clock.now = newest + timedelta(minutes=minutes)
        another_round()
        assert reloaded(copy).lag == expected
    # Another change on its way does not make the wait shorter.
    newest = clock.now
    clock.now += timedelta(minutes=1)
    another_round()
    assert reloaded(copy).lag == 1260
    assert firing() == {"copy:636": ("replication", Severity.WARNING)}
    old = newest
    another_round()
    clock.now += timedelta(minutes=1)
    another_round()
    assert (reloaded(copy).lag, firing()) == (0, {})


@pytest.mark.django_db
def test_a_copy_that_cannot_be_judged_says_why(directory: Directory) -> None:
    (one,) = group("dc1")
    directory.says["dc1"] = lambda target: fine(target, copy=Copy(unread="It shows no contextCSN."))
    another_round()
    assert (reloaded(one).lag, reloaded(one).unjudged) == (None, "It shows no contextCSN.")


@pytest.mark.django_db
def test_the_alert_of_a_copy_that_cannot_be_judged_any_more_ends(
    directory: Directory, clock: Clock
) -> None:
    """The credential has lost the right to read it: no probe would close the alert."""
    group("source", "copy")
    directory.says = {
        "source": lambda target: fine(target, copy=Copy(csn=csn(clock.now))),
        "copy": lambda target: fine(target, copy=Copy(csn=csn(clock.now - timedelta(days=1)))),
    }
    for _ in range(3):
        clock.now += timedelta(minutes=20)
        another_round()
    assert "copy:636" in firing()
    directory.says["copy"] = lambda target: fine(target, copy=Copy(unread="It shows nothing."))
    for _ in range(2):
        clock.now += timedelta(minutes=5)
        another_round()
    assert firing() == {}


# --- Domain controllers -------------------------------------------------------------------------


class Domain:
    """Controllers that count their changes and know how many of the others' they have."""

    def __init__(self, directory: Directory, *hosts: str) -> None:
        self.usn = dict.fromkeys(hosts, 1000)
        self.database = {host: str(uuid.uuid4()) for host in hosts}
        self.has = {host: dict.fromkeys(self.database.values(), 1000) for host in hosts}
        self.name = {host: f"{host}.corp.example" for host in hosts}
        directory.says = dict.fromkeys(hosts, self.answer)

    def answer(self, target: DirectoryTarget) -> Finding:
        host = target.host
        own = self.database[host]
        vector = {other: usn for other, usn in self.has[host].items() if other != own}
        return fine(target, copy=Copy({}, self.usn[host], own, vector, self.name[host]))

    def replicate(self, source: str, sink: str) -> None:
        self.has[sink][self.database[source]] = self.usn[source]


def rounds_of_five_minutes(clock: Clock, count: int) -> None:
    for _ in range(count):
        clock.now += timedelta(minutes=5)
        another_round()


@pytest.mark.django_db
def test_a_controller_is_behind_from_the_first_change_of_another_it_lacks(
    directory: Directory, clock: Clock
) -> None:
    first, second = group("dc1", "dc2")
    domain = Domain(directory, "dc1", "dc2")
    rounds_of_five_minutes(clock, 2)
    # Inbound replication of the second is off, and it goes on making changes of its own.
    for _ in range(5):
        domain.usn = {host: usn + 10 for host, usn in domain.usn.items()}
        domain.replicate("dc2", "dc1")
        rounds_of_five_minutes(clock, 1)
    assert (reloaded(first).lag, reloaded(second).lag) == (0, 1200)
    assert firing() == {"dc2:636": ("replication", Severity.WARNING)}
    domain.replicate("dc1", "dc2")
    rounds_of_five_minutes(clock, 2)
    assert (reloaded(second).lag, firing()) == (0, {})


@pytest.mark.django_db
def test_replication_that_keeps_up_with_a_busy_domain_is_never_behind(
    directory: Directory, clock: Clock
) -> None:
    first, second = group("dc1", "dc2")
    domain = Domain(directory, "dc1", "dc2")
    for _ in range(12):
        domain.replicate("dc1", "dc2")
        domain.replicate("dc2", "dc1")
        domain.usn = {host: usn + 10 for host, usn in domain.usn.items()}
        rounds_of_five_minutes(clock, 1)
        assert (reloaded(first).lag, reloaded(second).lag) == (0, 0)


@pytest.mark.django_db
@pytest.mark.parametrize("seen_before", [True, False])
def test_a_controller_put_back_from_a_copy_of_its_disk_is_accused_and_nobody_else(
    directory: Directory, clock: Clock, seen_before: bool
) -> None:
    """Samba put back from a copy: 7095, 7083, 7086 with the same invocationId."""
    group("dc1", "dc2")
    domain = Domain(directory, "dc1", "dc2")
    domain.usn["dc1"] = 7095
    domain.replicate("dc1", "dc2")
    directory.says = {"dc1": domain.answer, "dc2": domain.answer}
    if not seen_before:
        # The other controller has had its changes; we have not seen the higher number ourselves.
        DirectoryServer.objects.filter(host="dc1").update(enabled=False)
    rounds_of_five_minutes(clock, 2)
    DirectoryServer.objects.update(enabled=True)
    # The counter moves on at once, past where it was: what it gave out twice stays lost.
    for usn in (7083, 7086, 7086, 7090, 7200):
        domain.usn["dc1"] = usn
        rounds_of_five_minutes(clock, 1)
    assert firing() == {"dc1:636": ("replication", Severity.CRITICAL)}
    summary = Alert.objects.get(OPEN, state="firing").summary
    assert "went back from 7095 to 7083" in summary


@pytest.mark.django_db
def test_a_rollback_is_not_over_when_it_cannot_be_seen_any_more(
    directory: Directory, clock: Clock
) -> None:
    group("dc1", "dc2")
    domain = Domain(directory, "dc1", "dc2")
    another_round()
    domain.usn["dc1"] -= 12
    for _ in range(2):
        clock.now += timedelta(minutes=5)
        another_round()
    assert firing() == {"dc1:636": ("replication", Severity.CRITICAL)}
    directory.says["dc1"] = lambda target: fine(target, copy=Copy(unread="It hides its database."))
    for _ in range(2):
        clock.now += timedelta(minutes=5)
        another_round()
    assert firing() == {"dc1:636": ("replication", Severity.CRITICAL)}


@pytest.mark.django_db
def test_a_proper_restore_is_no_rollback(directory: Directory, clock: Clock) -> None:
    """It has a new invocationId."""
    group("dc1", "dc2")
    domain = Domain(directory, "dc1", "dc2")
    rounds_of_five_minutes(clock, 2)
    domain.database["dc1"], domain.usn["dc1"] = NEW, 900
    domain.replicate("dc1", "dc2")
    rounds_of_five_minutes(clock, 3)
    assert firing() == {}


@pytest.mark.django_db
def test_one_name_for_several_controllers_is_said(directory: Directory, clock: Clock) -> None:
    one, _ = group("domain", "dc2")
    domain = Domain(directory, "domain", "dc2")
    for n in range(4):
        domain.name["domain"] = f"dc{n % 2}.corp.example"
        domain.database["domain"] = (OLD, NEW)[n % 2]
        domain.usn["domain"] = (90_000, 1000)[n % 2]
        rounds_of_five_minutes(clock, 1)
    assert reloaded(one).unjudged.startswith(
        "This name stands for several controllers (dc0.corp.example, dc1.corp.example)"
    )
    assert (reloaded(one).lag, firing()) == (None, {})
    # A controller that was renamed, or moved away, is forgotten after a day.
    clock.now += timedelta(days=1)
    another_round()
    assert reloaded(one).unjudged == ""


# --- What real servers show ---------------------------------------------------------------------

INVOCATION = uuid.UUID("f66d5543-47da-4b9b-9ab6-aa1ea18c5d2d")


def _text(value: bytes) -> bytes:
    return bytes([4, len(value)]) + value


def entry(**attributes: bytes) -> bytes:
    """Return an entry with attributes of one value each, below 128 octets."""
    listed = b""
    for name, value in attributes.items():
        values = b"\x31" + bytes([len(_text(value))]) + _text(value)
        content = _text(name.encode()) + values
        listed += b"\x30" + bytes([len(content)]) + content
    return _text(b"") + b"\x30\x82" + len(listed).to_bytes(2) + listed


def showing(entries: Mapping[bytes, bytes], anonymous: Mapping[bytes, bytes]) -> slapd.Conversation:
    """Return a server that shows entries to whom has bound, and others to anonymous clients.

    They are found by what the request says, such as the name of an attribute.
    """

    def converse(sock: socket.socket) -> None:
        shown = entries
        while request := sock.recv(4096):
            number, operation = request[4], request[5]
            if operation == slapd.BIND_REQUEST:
                shown = anonymous if b"\x04\x00\x80\x00" in request else entries
                accepted = slapd.ldap_result(0, "")
                sock.sendall(slapd.ldap_message(number, slapd.BIND_RESPONSE, accepted))
            elif operation == slapd.SEARCH_REQUEST:
                for asked, content in shown.items():
                    if asked in request:
                        sock.sendall(slapd.ldap_message(number, slapd.SEARCH_ENTRY, content))
                        break
                kind, end = slapd.done(0)
                sock.sendall(slapd.ldap_message(number, kind, end))
            else:
                return

    return converse


def copy_of(entries: Mapping[bytes, bytes], anonymous: Mapping[bytes, bytes] | None = None) -> Copy:
    slapd.need_the_client()
    with slapd.Peer(showing({b"1.1": entry(), **entries}, anonymous or {})) as peer:
        target = DirectoryTarget(
            *("127.0.0.1", peer.port, Security.PLAIN),
            user="cn=a", password="x", base="dc=corp", replication=True,
        )  # fmt: skip
        finding = probe(target, network_seconds=2, operation_seconds=2)
    assert finding.copy is not None
    return finding.copy


CONTROLLER = {
    b"highestCommittedUSN": entry(
        highestCommittedUSN=b"4022", dsServiceName=b"CN=NTDS Settings", dnsHostName=b"dc2.corp",
        defaultNamingContext=b"DC=corp",
    ),
    b"invocationId": entry(invocationId=INVOCATION.bytes_le, objectClass=b"nTDSDSA"),
    # As Samba 4.22 sends it: version 2, one cursor.
    b"replUpToDateVector": entry(
        replUpToDateVector=struct.pack("<IIII", 2, 0, 1, 0)
        + bytes.fromhex("43556df6da479b4b9ab6aa1ea18c5d2d" "0b11000000000000" "00803ed5deb19d01")
    ),
}  # fmt: skip


def test_a_controller_shows_its_number_its_database_and_what_it_has_of_others() -> None:
    assert copy_of(CONTROLLER) == Copy(
        usn=4022, invocation=str(INVOCATION), vector={str(INVOCATION): 0x110B},
        controller="dc2.corp",
    )  # fmt: skip


def test_nobody_takes_changes_from_a_read_only_controller() -> None:
    read_only = entry(invocationId=INVOCATION.bytes_le, objectClass=b"nTDSDSARO")
    found = copy_of(CONTROLLER | {b"invocationId": read_only})
    assert (found.usn, found.invocation, len(found.vector)) == (None, "", 1)


def test_a_controller_without_its_invocation_is_not_judged() -> None:
    found = copy_of({**CONTROLLER, b"invocationId": entry()})
    assert "invocationId" in found.unread


@pytest.mark.parametrize("value", [b"", b"\x02\x00", struct.pack("<IIII", 2, 0, 9, 0), bytes(48)])
def test_a_vector_that_is_none_is_empty(value: bytes) -> None:
    assert (
        copy_of(CONTROLLER | {b"replUpToDateVector": entry(replUpToDateVector=value)}).vector == {}
    )


RUV = entry(nsds50ruv=b"{replica 7 ldap://ds1.corp:389} 6b099f32000000070000 6b099f32000100070000")


def test_a_vector_of_389_ds_that_only_anonymous_clients_get() -> None:
    """389-ds 3.1: a bound user gets no entry, whatever the access rights."""
    root = entry(namingContexts=b"dc=corp")
    found = copy_of({b"highestCommittedUSN": root}, {b"nsds50ruv": RUV})
    assert found.csn == {"7": "20261127151810.000001Z"}


def test_a_server_that_shows_nothing_of_its_copy_says_so() -> None:
    assert "neither contextCSN nor nsds50ruv" in copy_of({}).unread
