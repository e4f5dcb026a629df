"""How stored credentials are used: at most two refused binds, whatever the servers do."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from answering import (
    BAD_NAME,
    DOWN,
    HANGS,
    HIDDEN,
    REFUSED,
    Directory,
    another_round,
    credential,
    fine,
    refusing,
    server,
)
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from mailing import Clock
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.ldap_probe import credentials, rounds
from soc.ldap_probe.diagnostics import Outcome
from soc.ldap_probe.models import Credential, DirectoryServer, ProbeResult, State
from soc.ldap_probe.probe import DirectoryTarget, Finding
from soc.ldap_probe.turns import Turn, Turns

pytestmark = pytest.mark.django_db


def firing() -> dict[str, tuple[str, int]]:
    """The alerts that fire: subject to rule and severity."""
    alerts = Alert.objects.filter(OPEN, state=Alert.State.FIRING).select_related("rule", "subject")
    return {alert.subject.name: (alert.rule.name, alert.severity) for alert in alerts}


def fleet(directory: Directory, count: int, answer: Any = refusing) -> Credential:
    """Servers of one credential that all answer the same."""
    reader = credential()
    for n in range(count):
        server(f"dc{n:02}", credential=reader)
        directory.says[f"dc{n:02}"] = answer
    return reader


def binds_of_rounds(directory: Directory, clock: Clock, rounds_of_five_minutes: int) -> list[int]:
    counted = []
    for _ in range(rounds_of_five_minutes):
        another_round()
        counted.append(len(directory.binds()))
        clock.now += timedelta(minutes=5)
    return counted


def test_a_bad_password_is_one_alert_for_forty_servers(directory: Directory) -> None:
    fleet(directory, 40)
    for _ in range(3):
        another_round()
    assert firing() == {"reader": ("credential", Severity.CRITICAL)}
    assert set(DirectoryServer.objects.values_list("state", flat=True)) == {State.CREDENTIAL}
    alert = Alert.objects.get(OPEN, state="firing")
    assert alert.facts["Refused or not tried"] == "40 of 40 servers"
    assert "choose Try now" in alert.summary


def test_a_bad_password_is_refused_twice_and_then_not_tried_any_more(
    directory: Directory, clock: Clock
) -> None:
    fleet(directory, 12)
    assert binds_of_rounds(directory, clock, 12) == [1, 1] + [0] * 10
    # A day later, too: some directories never forget a refused bind.
    clock.now += timedelta(days=1)
    assert binds_of_rounds(directory, clock, 2) == [0, 0]
    assert DirectoryServer.objects.filter(bound=False).count() == 2


@pytest.mark.parametrize("first", [BAD_NAME, DOWN, HANGS], ids=["certificate", "down", "hangs"])
def test_the_others_wait_for_one_that_came_to_the_bind(
    directory: Directory, clock: Clock, first: Finding
) -> None:
    """A server that never gets there has said nothing about the password."""
    fleet(directory, 60)
    directory.says["dc00"] = directory.says["dc01"] = first
    assert binds_of_rounds(directory, clock, 4) == [1, 1, 0, 0]


@pytest.mark.parametrize("hidden", [HIDDEN, REFUSED], ids=["search refused", "bind refused"])
def test_a_wrong_password_is_one_alert_where_anonymous_clients_see_nothing(
    directory: Directory, hidden: Finding
) -> None:
    """OpenLDAP with `require authc`, 389-ds with nsslapd-allow-anonymous-access: off."""
    fleet(directory, 10, lambda target: Finding(**vars(REFUSED if target.user else hidden)))
    for _ in range(5):
        another_round()
    assert firing() == {"reader": ("credential", Severity.CRITICAL)}


def test_a_port_that_wants_tls_goes_on_wanting_it_when_the_credential_is_not_tried(
    directory: Directory, clock: Clock
) -> None:
    """Samba shows its RootDSE in clear text; that it refuses to take a password there stays so."""
    fleet(directory, 5)
    wants_tls = Finding(Outcome.SECURITY, "security_required", "It wants TLS.")
    directory.says["dc00"] = lambda target: (
        Finding(**vars(wants_tls)) if target.user else fine(target)
    )
    binds_of_rounds(directory, clock, 6)
    assert firing() == {
        "reader": ("credential", Severity.CRITICAL),
        "dc00:636": ("security", Severity.CRITICAL),
    }


def test_a_password_that_was_changed_is_tried_at_once_by_all(directory: Directory) -> None:
    def by_password(target: DirectoryTarget) -> Finding:
        return fine(target) if target.password in ("", "right") else refusing(target)

    reader = fleet(directory, 5, by_password)
    for _ in range(3):
        another_round()
    directory.binds()
    reader.refresh_from_db()
    assert credentials.is_held(reader)
    reader.password = "right"
    reader.save()
    another_round()
    assert len(directory.binds()) == 5
    assert firing() == {}


def test_one_server_that_refuses_costs_the_others_nothing(
    directory: Directory, clock: Clock
) -> None:
    fleet(directory, 10, fine)
    directory.says["dc00"] = refusing
    # First alone, then last, and from then on not at all.
    assert binds_of_rounds(directory, clock, 6) == [1, 10, 9, 9, 9, 9]
    states = dict(DirectoryServer.objects.values_list("host", "state"))
    assert states.pop("dc00") == State.CREDENTIAL
    assert set(states.values()) == {State.OK}
    assert firing() == {"reader": ("credential", Severity.WARNING)}


def test_a_password_that_half_of_the_servers_have_is_never_refused_twice_in_a_row(
    directory: Directory, clock: Clock
) -> None:
    """A change that is still being replicated, or two directories under one credential."""
    fleet(directory, 8, fine)
    another_round()
    answers: list[bool] = []

    def noting(answer: Any) -> Any:
        def say(target: DirectoryTarget) -> Finding:
            found = answer(target)
            if target.user:
                answers.append(bool(found.bound))
            return found

        return say

    for n in range(8):
        directory.says[f"dc{n:02}"] = noting(refusing if n % 2 else fine)
    for _ in range(20):
        another_round()
        clock.now += timedelta(minutes=5)
    # Two for each of the four that do not have it.
    assert answers.count(False) == 8
    assert (False, False) not in itertools.pairwise(answers)
    states = list(DirectoryServer.objects.order_by("host").values_list("state", flat=True))
    assert states == [State.OK, State.CREDENTIAL] * 4


def test_nothing_is_said_of_a_credential_while_no_server_comes_to_the_bind(
    directory: Directory,
) -> None:
    fleet(directory, 3)
    another_round()
    another_round()
    assert firing() == {"reader": ("credential", Severity.CRITICAL)}
    directory.says = dict.fromkeys(directory.says, DOWN)
    for _ in range(3):
        another_round()
    assert firing()["reader"] == ("credential", Severity.CRITICAL)


def test_a_credential_that_cannot_be_opened_is_a_credential_problem(
    directory: Directory, settings: Any, tmp_path: Any
) -> None:
    one = server("dc1", credential=credential())
    settings.IDENTITY = tmp_path
    for _ in range(3):
        another_round()
    one.refresh_from_db()
    assert one.state == State.CREDENTIAL
    assert "sealing keys" in one.detail
    # No server has seen it: nothing is counted against the account.
    assert Credential.objects.get().refusals == 0


# --- Passwords that expire ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "expected"), [(30, None), (13, Severity.WARNING), (0.5, Severity.CRITICAL)]
)
def test_a_password_that_is_about_to_expire_is_told_before(
    directory: Directory, days: float, expected: Severity | None
) -> None:
    fleet(directory, 5, fine)
    directory.says["dc03"] = lambda target: fine(target, password_expires_in=int(days * 86_400))
    for _ in range(2):
        another_round()
    assert firing() == ({"reader": ("credential", expected)} if expected else {})


def test_a_password_that_must_be_changed_is_one_alert(directory: Directory, clock: Clock) -> None:
    """The bind is accepted, and is no risk for the account: it goes on."""
    reset = Finding(Outcome.CREDENTIAL, "must_reset_password", "Set a new one.", bound=True)
    fleet(directory, 10, lambda target: Finding(**vars(reset)) if target.user else fine(target))
    assert binds_of_rounds(directory, clock, 3) == [10, 10, 10]
    assert firing() == {"reader": ("credential", Severity.CRITICAL)}


def test_grace_logins_are_not_used_up(directory: Directory, clock: Clock) -> None:
    grace = Finding(Outcome.CREDENTIAL, "grace_login", "9 are left.", bound=False)
    fleet(directory, 4, lambda target: Finding(**vars(grace)) if target.user else fine(target))
    assert binds_of_rounds(directory, clock, 5) == [1, 1, 0, 0, 0]
    assert firing() == {"reader": ("credential", Severity.CRITICAL)}


# --- Try now ------------------------------------------------------------------------------------


def test_try_now_allows_one_more_bind(directory: Directory, clock: Clock) -> None:
    reader = fleet(directory, 12)
    binds_of_rounds(directory, clock, 3)
    assert credentials.try_now([reader.pk]) == 12
    assert binds_of_rounds(directory, clock, 3) == [1, 0, 0]
    directory.says = dict.fromkeys(directory.says, fine)
    credentials.try_now([reader.pk])
    assert binds_of_rounds(directory, clock, 2) == [12, 12]
    assert firing() == {}


def test_the_page_of_a_credential_offers_to_try_it_now(
    directory: Directory, clock: Clock, plain_static_files: None
) -> None:
    reader = fleet(directory, 2)
    binds_of_rounds(directory, clock, 3)
    path = f"/directories/?credential={reader.pk}"
    answers = {}
    for group in ("Viewers", "Operators"):
        user = User.objects.create_user(group)
        user.groups.add(Group.objects.get(name=group))
        client = Client()
        client.force_login(user)
        offered = "Try now" in client.get(path, secure=True).content.decode()
        done = client.post(f"/directories/credentials/{reader.pk}/try/", secure=True)
        answers[group] = offered, done.status_code
    assert answers == {"Viewers": (False, 403), "Operators": (True, 302)}
    assert binds_of_rounds(directory, clock, 2) == [1, 0]


def test_the_admin_tries_selected_credentials_now(
    directory: Directory, clock: Clock, browser: Client
) -> None:
    reader = fleet(directory, 2)
    binds_of_rounds(directory, clock, 3)
    data = {"action": "try_selected", "_selected_action": [reader.pk]}
    browser.post("/admin/ldap_probe/credential/", data, secure=True)
    assert binds_of_rounds(directory, clock, 2) == [1, 0]


# --- Turns --------------------------------------------------------------------------------------


def test_those_that_took_it_come_first_and_those_that_refused_it_last() -> None:
    reader = credential()
    ok, down = {"bound": True, "state": State.OK}, {"failures": 1, "state": State.DOWN}
    standing: dict[str, dict[str, Any]] = {
        "refused": {"bound": False, "bind_refusals": 1, "state": State.CREDENTIAL},
        "refused twice": {"bound": False, "bind_refusals": 2, "state": State.CREDENTIAL},
        "hung": {"bound": True} | down,
        "new": {},
        "took it": ok,
    }
    servers = [server(host, credential=reader, **values) for host, values in standing.items()]
    (turns,) = credentials.turns(servers).values()
    hosts = {one.pk: one.host for one in servers}
    assert [hosts[key] for key in turns.order] == ["took it", "new", "hung", "refused"]
    # After a refusal, only those that took it last time say whether it is the credential.
    reader.refusals = 1
    reader.save()
    (turns,) = credentials.turns(DirectoryServer.objects.filter(credential=reader)).values()
    assert [hosts[key] for key in turns.order] == ["took it"]


def test_binds_are_made_one_after_the_other(directory: Directory) -> None:
    under_way, most = 0, 0
    lock = threading.Lock()

    def counting(target: DirectoryTarget) -> Finding:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.002)
        with lock:
            under_way -= 1
        return fine(target)

    fleet(directory, 30, counting)
    another_round()
    assert most == 1


def test_a_server_that_waits_too_long_for_its_turn_is_left_to_another_round(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet(directory, 3, fine)
    directory.says["dc02"] = DOWN
    monkeypatch.setattr(Turns, "wait", lambda turns, key: Turn.LATE)
    another_round()
    # No bind would change that it is down; of the others nothing is known.
    assert list(ProbeResult.objects.values_list("server__host", "outcome")) == [("dc02", "down")]
    waiting = DirectoryServer.objects.filter(state=State.UNKNOWN)
    assert waiting.filter(next_probe_at__lte=timezone.now() + rounds.RETRY).count() == 2


def test_a_turn_that_does_not_come_in_time_is_late() -> None:
    turns = Turns([1, 2], seconds=0)
    assert (turns.wait(1), turns.wait(2), turns.wait(3)) == (
        Turn.GRANTED,
        Turn.LATE,
        Turn.REFUSED,
    )
    turns.leave(1, bound=False)
    assert turns.wait(2) == Turn.REFUSED


def wait_aside(turns: Turns, key: int) -> Future[Turn]:
    return ThreadPoolExecutor(1).submit(turns.wait, key)


def test_once_it_is_taken_whoever_comes_to_the_bind_goes_on() -> None:
    turns = Turns([1, 2, 3])
    assert turns.wait(1) == Turn.GRANTED
    third = wait_aside(turns, 3)
    turns.leave(1, bound=True)
    # The second hangs before it comes to the bind.
    assert third.result(10) == Turn.GRANTED
    second = wait_aside(turns, 2)
    turns.leave(3, bound=True)
    assert second.result(10) == Turn.GRANTED


def test_who_has_refused_it_is_asked_when_the_others_have_left() -> None:
    turns = Turns([1, 2, 3], last=[3])
    assert turns.wait(1) == Turn.GRANTED
    third = wait_aside(turns, 3)
    turns.leave(1, bound=True)
    with pytest.raises(TimeoutError):
        third.result(0.05)
    turns.leave(2, bound=None)
    assert third.result(10) == Turn.GRANTED


def test_the_first_is_waited_for_and_then_the_next_candidate_is_asked() -> None:
    impatient = Turns([1, 2], patience=0)
    assert impatient.wait(2) == Turn.GRANTED
    patient = Turns([1, 2], seconds=0.1)
    assert patient.wait(2) == Turn.LATE


def test_two_workers_do_not_bind_with_one_credential_at_the_same_time() -> None:
    reader = credential()
    for n in range(3):
        server(f"dc{n}", credential=reader)
    server("anonymous")
    now = timezone.now()

    def claimed(moment: datetime) -> int:
        DirectoryServer.objects.update(next_probe_at=now)
        return len(rounds.claim(moment))

    assert (claimed(now), claimed(now)) == (4, 1)
    # Its worker died: the credential is free again when its servers are.
    assert claimed(now + rounds.CLAIM) == 4
    # A clock that was a day ahead keeps it from nobody.
    Credential.objects.update(used_until=now + timedelta(days=1))
    assert claimed(now) == 4


def test_an_answer_about_a_password_that_was_changed_meanwhile_counts_nothing(
    directory: Directory,
) -> None:
    reader = fleet(directory, 2)
    claimed = rounds.claim(timezone.now())
    findings = rounds.probe_all(claimed)
    reader.password = "right"
    reader.save()
    rounds.record(claimed, findings)
    assert Credential.objects.get().refusals == 0
