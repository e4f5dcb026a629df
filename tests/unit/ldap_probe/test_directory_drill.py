"""Accounts in every state at a real OpenLDAP that locks after three, as sixty servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import pki
import sixty
import slapd
from harness import run
from mailing import Clock
from soc.ldap_probe.models import Credential
from soc.trust.models import Authority

pytestmark = [pytest.mark.drill, pytest.mark.django_db]

SUFFIX = slapd.SUFFIX

POLICIES = {
    "default": "pwdLockout: TRUE\npwdMaxFailure: 3\npwdMustChange: TRUE\n",
    "grace": "pwdMaxAge: 1\npwdGraceAuthNLimit: 10\n",
    "expired": "pwdMaxAge: 1\n",
    "warned": "pwdMaxAge: 864000000\npwdExpireWarning: 863999999\n",
}

OPERATIONAL = {
    "reset": "pwdReset: TRUE\n",
    "locked": "pwdAccountLockedTime: 000001010000Z\n",
}


def policy(name: str, content: str) -> str:
    return (
        f"\ndn: cn={name},{SUFFIX}\nobjectClass: organizationalRole\nobjectClass: pwdPolicy\n"
        f"cn: {name}\npwdAttribute: userPassword\n{content}"
    )


def account(name: str) -> str:
    subentry = f"pwdPolicySubentry: cn={name},{SUFFIX}\n" if name in POLICIES else ""
    return (
        f"\ndn: cn=account {name},{SUFFIX}\nobjectClass: organizationalRole\n"
        f"objectClass: simpleSecurityObject\ncn: account {name}\nuserPassword: secret\n"
        f"pwdChangedTime: 20260101000000Z\n{subentry}{OPERATIONAL.get(name, '')}"
    )


@dataclass(frozen=True)
class State:
    """A state of the account and of the servers; the alerts and the most binds that it may cost."""

    account: str
    password: str = "secret"
    servers: dict[str, Any] = field(default_factory=dict)
    """Values of the first server, which is in trouble of its own."""
    alerts: tuple[str, ...] = ()
    refused: int = 0


BAD = {"certificate_name": "elsewhere.internal"}
DOWN = {"port": 1}
ELSEWHERE = {"base": f"ou=branch,{SUFFIX}"}
NOTHING = {"filter": "(cn=nobody)"}
TROUBLE: dict[str, tuple[dict[str, Any], str]] = {
    "bad certificate": (BAD, "certificate"),
    "down": (DOWN, "answers"),
    "refers elsewhere": (ELSEWHERE, "search"),
    "finds nothing": (NOTHING, "search"),
}

STATES = {
    "right": State("reader"),
    "wrong": State("reader", "wrong", alerts=("credential",), refused=2),
    "unknown user": State("nobody", "wrong", alerts=("credential",), refused=2),
    "locked": State("locked", alerts=("credential",), refused=2),
    "locked, wrong": State("locked", "wrong", alerts=("credential",), refused=2),
    "expired": State("expired", alerts=("credential",), refused=2),
    "grace logins": State("grace", alerts=("credential",), refused=2),
    "must be changed": State("reset", alerts=("credential",)),
    "warned": State("warned"),
    "no password": State("reader", "", alerts=("credential",)),
} | {
    f"{password}, first {name}": State(
        *("reader", password),
        servers=values,
        # A server whose credential is not tried is not searched either.
        alerts=(rule,)
        if password == "secret"
        else ("credential",)
        if rule == "search"
        else (rule, "credential"),
        refused=0 if password == "secret" else 2,
    )
    for name, (values, rule) in TROUBLE.items()
    for password in ("secret", "wrong")
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[slapd.Slapd, str]]:
    slapd.need_the_client()
    root = pki.issue("root", ca=True)
    leaf = pki.issue("directory", root, san=["directory.internal"])
    server = slapd.start(
        tmp_path_factory.mktemp("slapd"), [leaf], address="0.0.0.0", people=2,
        globally="moduleload ppolicy",
        overlays=f"overlay ppolicy\nppolicy_default cn=default,{SUFFIX}\nppolicy_use_lockout",
        entries="".join(policy(*one) for one in POLICIES.items())
        + "".join(map(account, ("reader", *OPERATIONAL, "grace", "expired", "warned"))),
    )  # fmt: skip
    yield server, root.cert_pem.decode()
    server.stop()


def failures(server: slapd.Slapd, name: str) -> int:
    """The refused binds that the directory has counted, and whether it has locked the account."""
    said = run(
        "ldapsearch", "-x", "-LLL", "-H", f"ldap://127.0.0.1:{server.plain}",
        "-D", f"cn=root,{SUFFIX}", "-w", "root", "-b", SUFFIX, f"(cn=account {name})",
        "pwdFailureTime",
    )  # fmt: skip
    return said.count("pwdFailureTime:")


@pytest.mark.parametrize("name", STATES)
def test_one_alert_a_cause_and_no_account_locked(
    name: str, directory: tuple[slapd.Slapd, str], clock: Clock, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server, pem = directory
    state = STATES[name]
    before = failures(server, state.account)
    reader = Credential.objects.create(
        name="reader", user=f"cn=account {state.account},{SUFFIX}", password=state.password
    )
    common = {
        "port": server.tls,
        "certificate_name": "directory.internal",
        "authority": Authority.objects.create(name="drill", pem=pem),
        "credential": reader,
        "base": SUFFIX,
        "filter": "(cn=person 1)",
    }
    sixty.register(common, state.servers)
    binds = sixty.binds_of_rounds(clock, monkeypatch)
    with capsys.disabled():
        print(f"\n{name:<28} binds per round {binds}")
    assert sixty.firing() == sorted(state.alerts)
    if state.refused:
        assert sum(binds) <= state.refused + (state.servers in (ELSEWHERE, NOTHING))
    assert failures(server, state.account) - before <= 2
