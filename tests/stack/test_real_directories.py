"""Accounts in every state at Samba and 389-ds, which lock after three, as sixty servers each.

OpenLDAP has the same drill in tests/unit/ldap_probe/test_directory_drill.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import real_directories
import sixty
import slapd
from mailing import Clock
from real_directories import RealDirectory
from soc.ldap_probe.models import Credential
from soc.trust.models import Authority

pytestmark = [pytest.mark.drill, pytest.mark.django_db]

CREDENTIAL = ("credential",)


@dataclass(frozen=True)
class Case:
    """A state of an account and of the first server, and the alerts and refusals that it makes."""

    account: str = "right"
    password: str = ""
    """Empty: the account's own."""
    user: str = ""
    first: dict[str, Any] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()
    refused: int = 0
    """Binds that count against the account, here or there."""


def bad(account: str, password: str = "", user: str = "", refused: int = 2) -> Case:
    return Case(account, password, user, alerts=CREDENTIAL, refused=refused)


TROUBLE: dict[str, tuple[dict[str, Any], str]] = {
    "bad certificate": ({"certificate_name": "elsewhere.internal"}, "certificate"),
    "down": ({"port": 1}, "answers"),
    "wants TLS": ({"security": "plain"}, "security"),
    "finds nothing": ({"filter": "(cn=nobody at all)"}, "search"),
}

FIRST_FAILS = {
    f"{words}, first {name}": Case(
        password=password,
        first=values,
        # A server whose credential is not tried is not searched either.
        alerts=(rule,) if not password else CREDENTIAL if rule == "search" else (rule, *CREDENTIAL),
        refused=2 if password else 0,
    )
    for name, (values, rule) in TROUBLE.items()
    for words, password in (("right", ""), ("wrong", "wrong"))
}

CASES = {
    "samba": {
        "right": Case(),
        "right, name@domain": Case(user="{account}@corp.example"),
        "right, DOMAIN\\name": Case(user="CORP\\{account}"),
        "wrong": bad("right", "wrong"),
        "unknown user": bad("right", user="nobody@corp.example"),
        "disabled": bad("disabled"),
        "disabled, wrong": bad("disabled", "wrong"),
        "account expired": bad("ended"),
        "must be changed": bad("reset"),
        "locked": bad("locked"),
        "locked, wrong": bad("locked", "wrong"),
        "no password": bad("right", "none", refused=0),
    }
    | FIRST_FAILS,
    "389-ds": {
        "right": Case(),
        "wrong": bad("right", "wrong"),
        "unknown user": bad("right", user="cn=nobody,dc=example"),
        "inactive": bad("inactive"),
        "inactive, wrong": bad("inactive", "wrong"),
        "expired": bad("expired"),
        "grace logins": bad("grace"),
        # It accepts the bind, and nothing after it: no bind counts.
        "must be changed": bad("reset", refused=0),
        "expires today": bad("warned", refused=0),
        "locked": bad("locked"),
        "locked, wrong": bad("locked", "wrong"),
        "no password": bad("right", "none", refused=0),
    }
    | FIRST_FAILS,
}
"""Twenty of each."""

ALL = [(software, name) for software, cases in CASES.items() for name in cases]


def account_of(software: str, name: str) -> str:
    """Return an account of the case's own: no case may add to another's refused binds."""
    return f"{CASES[software][name].account}-{list(CASES[software]).index(name)}"


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, RealDirectory]]:
    slapd.need_the_client()
    started: dict[str, RealDirectory] = {}
    yield started
    for directory in started.values():
        directory.remove()


def directory_of(software: str, running: dict[str, RealDirectory]) -> RealDirectory:
    if software not in running:
        made = running[software] = real_directories.start(software)
        made.add([account_of(software, name) for name in CASES[software]])
    return running[software]


@pytest.mark.parametrize(("software", "name"), ALL, ids=[" ".join(case) for case in ALL])
def test_one_alert_a_cause_and_no_account_locked(
    software: str, name: str, running: dict[str, RealDirectory], clock: Clock,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    directory, case = directory_of(software, running), CASES[software][name]
    account = account_of(software, name)
    if case.account == "locked":
        directory.lock(account)
    before = directory.refused(account)
    passwords = {"": f"Secret-1-{account}", "none": ""}
    reader = Credential.objects.create(
        name="reader",
        user=case.user.format(account=account) or directory.user(account),
        password=passwords.get(case.password, case.password),
    )
    common = {
        "port": directory.tls,
        "certificate_name": directory.certificate_name,
        "authority": Authority.objects.create(name="drill", pem=directory.authority),
        "credential": reader,
        "base": directory.suffix,
        "filter": f"(cn={account})",
    }
    plain = {"port": directory.plain} if case.first.get("security") == "plain" else {}
    sixty.register(common, case.first | plain)
    binds = sixty.binds_of_rounds(clock, monkeypatch)
    counted = directory.refused(account) - before
    alerts = sixty.firing()
    with capsys.disabled():
        version = directory.version.split("\n")[0]
        print(f"\n| {version} | {name} | {binds} | {counted} | {', '.join(alerts) or 'none'} |")
    assert alerts == sorted(case.alerts)
    assert counted <= 2
    if case.refused:
        # A plain port that wants TLS refuses the first before it looks at the password.
        assert sum(binds) <= case.refused + len(binds) * bool(case.first)
