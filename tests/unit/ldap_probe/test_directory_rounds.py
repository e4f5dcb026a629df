"""Rounds of probes: who is probed when, and what the findings make of servers and alerts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from answering import (
    DOWN,
    HANGS,
    REFUSED,
    Directory,
    another_round,
    credential,
    fine,
    make_due,
    refusing,
    reloaded,
    server,
)
from django.utils import timezone

from mailing import Clock
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.ldap_probe import credentials, rounds, turns
from soc.ldap_probe.diagnostics import Outcome, Phase
from soc.ldap_probe.models import DirectoryServer, ProbeResult, Profile, State
from soc.ldap_probe.probe import DirectoryTarget, Finding
from soc.ldap_probe.replicas import Copy
from soc.runtime.queues import BY_NAME

pytestmark = pytest.mark.django_db


def firing() -> dict[str, tuple[str, int]]:
    """The alerts that fire: subject to rule and severity."""
    alerts = Alert.objects.filter(OPEN, state=Alert.State.FIRING).select_related("rule", "subject")
    return {alert.subject.name: (alert.rule.name, alert.severity) for alert in alerts}


def test_five_hundred_servers_are_spread_evenly_over_their_interval() -> None:
    start = timezone.now()
    turns = [
        DirectoryServer(host=f"dc{n}.site.internal", port=636).slot_after(start) for n in range(500)
    ]
    assert all(start < turn <= start + timedelta(minutes=5) for turn in turns)
    in_ten_seconds = [int((turn - start).total_seconds() // 10) for turn in turns]
    assert max(in_ten_seconds.count(n) for n in range(30)) < 40


def test_a_server_keeps_its_place_in_the_interval(directory: Directory, clock: Clock) -> None:
    one = server("dc1")
    another_round()
    first = reloaded(one).next_probe_at
    clock.now = first + timedelta(seconds=7)
    assert rounds.run()[0] == 1
    assert reloaded(one).next_probe_at == first + timedelta(minutes=5)


def test_a_server_is_claimed_by_one_round_only() -> None:
    server("dc1")
    server("off", enabled=False)
    now = timezone.now()
    assert [claimed.host for claimed in rounds.claim(now)] == ["dc1"]
    assert rounds.claim(now) == []
    # Its worker died: it falls due again.
    assert len(rounds.claim(now + rounds.CLAIM)) == 1


def test_the_longest_round_ends_before_the_tasks_time_limit() -> None:
    from soc.ldap_probe.probe import MOST_SECONDS

    assert (
        MOST_SECONDS + max(turns.SECONDS, rounds.BEGUN_WITHIN)
        < BY_NAME["ldap_probe"].soft_time_limit
        < rounds.CLAIM.total_seconds()
    )


def test_what_could_not_begin_in_time_is_due_at_once(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = server("dc1")
    monkeypatch.setattr(rounds, "BEGUN_WITHIN", -1.0)
    assert another_round() == 0
    assert (reloaded(one).state, directory.asked) == (State.UNKNOWN, [])
    assert reloaded(one).next_probe_at <= timezone.now()


def test_without_the_client_nothing_is_probed_and_nobody_is_alarmed(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = server("dc1")
    monkeypatch.setattr(rounds, "HAS_CLIENT", False)
    assert another_round() == 0
    assert reloaded(one).state == State.UNKNOWN
    assert "python-ldap is not installed" in caplog.text


def test_one_failure_is_tried_again_soon_and_two_are_critical(directory: Directory) -> None:
    one = server("dc1")
    directory.says["dc1"] = DOWN
    assert another_round() == 0
    assert (reloaded(one).state, firing()) == (State.DOWN, {})
    assert reloaded(one).next_probe_at <= timezone.now() + rounds.RETRY
    another_round()
    assert firing() == {"dc1:636": ("answers", Severity.CRITICAL)}
    del directory.says["dc1"]
    another_round()
    assert (reloaded(one).state, firing()) == (State.OK, {})


def test_a_server_that_hangs_is_down_for_the_alerts(directory: Directory) -> None:
    server("dc1")
    directory.says["dc1"] = HANGS
    another_round()
    another_round()
    assert firing() == {"dc1:636": ("answers", Severity.CRITICAL)}
    assert ProbeResult.objects.filter(outcome="timeout", error="search_timeout").count() == 2


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (Finding(Outcome.CERTIFICATE, "expired", "It has expired."), ("certificate", 30)),
        (Finding(Outcome.SECURITY, "security_required", "Use TLS."), ("security", 30)),
        (Finding(Outcome.REFERRAL, "referral", "Elsewhere."), ("search", 20)),
        (Finding(Outcome.REFUSED, "nothing_found", "Nothing."), ("search", 30)),
    ],
)
def test_each_kind_of_trouble_has_a_rule_of_its_own(
    directory: Directory, finding: Finding, expected: tuple[str, int]
) -> None:
    server("dc1")
    directory.says["dc1"] = finding
    another_round()
    another_round()
    assert firing() == {"dc1:636": expected}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, None), (0.6, Severity.INFO), (2, Severity.WARNING), (4.5, Severity.CRITICAL)],
)
def test_slow_is_what_the_profile_calls_slow(
    directory: Directory, seconds: float, expected: Severity | None
) -> None:
    one = server("dc1", profile=Profile.objects.get(name="standard"))
    spent = {Phase.CONNECT: 1.0, Phase.SEARCH: seconds * 1000}
    directory.says["dc1"] = Finding(milliseconds=spent)
    another_round()
    another_round()
    assert firing() == ({"dc1:636": ("speed", expected)} if expected else {})
    assert reloaded(one).state == (State.SLOW if expected else State.OK)


def test_what_was_disabled_or_deleted_meanwhile_is_left_alone(directory: Directory) -> None:
    off, gone, kept = server("off"), server("gone"), server("kept")
    claimed = rounds.claim(timezone.now())
    findings = rounds.probe_all(claimed)
    DirectoryServer.objects.filter(pk=off.pk).update(enabled=False)
    gone.delete()
    rounds.record(claimed, findings)
    assert list(ProbeResult.objects.values_list("server", flat=True)) == [kept.pk]


def during_a_round(edit: Callable[[], object]) -> None:
    """Claim and probe, then edit, then record what was found before the edit."""
    make_due()
    claimed = rounds.claim(timezone.now())
    findings = rounds.probe_all(claimed)
    edit()
    rounds.record(claimed, findings)


@pytest.mark.parametrize(
    "edit",
    [
        {"host": "dc2"}, {"port": 389}, {"security": "plain"}, {"certificate_name": "dc2"},
        {"base": "dc=corp"}, {"filter": "(cn=a)"}, {"group": "all"}, {"credential": None},
    ],
    ids=lambda edit: next(iter(edit)),
)  # fmt: skip
def test_what_was_found_before_an_edit_is_dropped_and_asked_again(
    directory: Directory, clock: Clock, edit: dict[str, Any]
) -> None:
    """Its alert would be that of the server as it was, which nothing closes any more."""
    one = server("dc1", credential=credential())
    directory.says["dc1"] = DOWN
    another_round()
    clock.now += timedelta(minutes=5)

    def change() -> None:
        edited = reloaded(one)
        for name, value in edit.items():
            setattr(edited, name, value)
        edited.save()

    during_a_round(change)
    assert (firing(), ProbeResult.objects.count()) == ({}, 1)
    assert reloaded(one).next_probe_at == clock.now


def test_a_refusal_counts_at_its_credential_whatever_becomes_of_the_server(
    directory: Directory,
) -> None:
    reader, edited = credential(), server("dc1")
    for one in (edited, server("dc2")):
        DirectoryServer.objects.filter(pk=one.pk).update(credential=reader)
    directory.says = {"dc1": refusing}
    during_a_round(lambda: DirectoryServer.objects.filter(pk=edited.pk).update(enabled=False))
    reader.refresh_from_db()
    assert (reader.refusals, reader.used_until) == (1, None)


def test_try_now_in_a_round_is_not_overwritten_by_its_end(
    directory: Directory, clock: Clock
) -> None:
    reader = credential()
    for n in range(2):
        server(f"dc{n}", credential=reader)
        directory.says[f"dc{n}"] = refusing
    for _ in range(3):
        another_round()
        clock.now += timedelta(minutes=5)
    directory.binds()
    during_a_round(lambda: credentials.try_now([reader.pk]))
    assert directory.binds() == []
    assert set(DirectoryServer.objects.values_list("next_probe_at", flat=True)) == {clock.now}
    rounds.run()
    assert len(directory.binds()) == 1


def test_disabling_a_server_closes_its_alerts(directory: Directory) -> None:
    one = server("dc1")
    directory.says["dc1"] = DOWN
    another_round()
    another_round()
    one.refresh_from_db()
    one.enabled = False
    one.save()
    assert firing() == {}


def test_a_server_that_a_clock_ahead_has_probed_is_due_again(directory: Directory) -> None:
    server("dc1", next_probe_at=timezone.now() + timedelta(days=1500))
    assert rounds.run()[0] == 1


def test_an_edit_closes_what_no_probe_would_close(directory: Directory) -> None:
    """Each alert is about something that the server has no longer after the edit."""
    plain, alone = server("plain"), server("alone", group="all")
    other = server("other", credential=credential("old"))
    directory.says = {
        "plain": Finding(Outcome.CERTIFICATE, "expired", "It has expired."),
        "alone": lambda target: fine(target, copy=Copy(csn={"1": "20200101000000.000000Z"})),
        "other": lambda target: Finding(**vars(REFUSED)) if target.user else fine(target),
    }
    Profile.objects.update(lag_alert=60)
    DirectoryServer.objects.filter(host="alone").update(profile=Profile.objects.first())
    server("ahead", group="all", csn={"1": "20200102000000.000000Z"})
    for _ in range(2):
        another_round()
    assert firing() == {
        "plain:636": ("certificate", Severity.CRITICAL),
        "alone:636": ("replication", Severity.CRITICAL),
        "old": ("credential", Severity.CRITICAL),
    }
    for one in (plain, alone, other):
        one.refresh_from_db()
    plain.security, alone.group, other.credential = "plain", "", credential("new")
    for one in (plain, alone, other):
        one.save()
    assert firing() == {}
    assert (reloaded(other).bound, reloaded(other).bind_refusals) == (None, 0)
    assert (reloaded(alone).lag, reloaded(alone).csn) == (None, {})


def test_a_round_costs_a_fixed_number_of_queries(
    directory: Directory, django_assert_max_num_queries: Any
) -> None:
    reader, profile = credential(), Profile.objects.get(name="standard")
    for n in range(30):
        server(f"dc{n}", credential=reader, profile=profile, group="all")
    # A rule looks at two reports: from the third on nothing is new.
    another_round()
    another_round()
    with django_assert_max_num_queries(40):
        another_round()


def test_the_password_is_in_no_representation() -> None:
    assert "secret" not in repr(DirectoryTarget("dc1", 636, user="cn=reader", password="secret"))
