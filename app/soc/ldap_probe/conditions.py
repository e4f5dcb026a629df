"""What the probes report to the alerts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Min, Q
from django.urls import reverse

from soc.alerts import actions, engine
from soc.alerts.conditions import Condition
from soc.common.times import local
from soc.core.severity import Severity
from soc.ldap_probe import replication, speed
from soc.ldap_probe.credentials import HELD_BACK, is_held
from soc.ldap_probe.diagnostics import ANSWERED, Outcome, Phase
from soc.ldap_probe.models import (
    ANSWERED_BIND,
    Credential,
    DirectoryServer,
    ProbeResult,
    State,
)

if TYPE_CHECKING:
    # Not every process that has the conditions needs the probe.
    from soc.ldap_probe.probe import Finding

APPLICATION = "ldap_probe"
ANSWERS = "answers"
CERTIFICATE = "certificate"
SECURITY = "security"
SEARCH = "search"
SPEED = "speed"
CREDENTIAL = "credential"
REPLICATION = "replication"

MOST_NAMED = 20
"""Servers that the condition of a credential names."""

EXPIRES_SOON = timedelta(days=14)
EXPIRES_NOW = timedelta(days=1)
"""How long before its end a password is a warning, and critical."""

NOT_TRIED = (
    "It is not tried any more, so that the account is not locked: correct it, or choose Try now."
)


def report(
    servers: Sequence[DirectoryServer],
    results: Sequence[ProbeResult],
    findings: Mapping[int, Finding],
    *,
    credentials: Collection[int],
    at: datetime,
) -> int:
    """Report a round of probes; return how many mails that makes."""
    reported: list[Condition] = []
    for server, result in zip(servers, results, strict=True):
        finding = findings[server.pk]
        reported += _of_server(server, result, finding, at)
        if server.group and finding.copy:
            reported += _replication(server, at)
    reported += _of_credentials(credentials, at)
    return sum(outcome.mails for outcome in engine.report(reported))


def _of_server(
    server: DirectoryServer, result: ProbeResult, finding: Finding, at: datetime
) -> Iterator[Condition]:
    facts = _facts(server, result)

    def condition(rule: str, severity: Severity, summary: str) -> Condition:
        return Condition(
            application=APPLICATION,
            rule=rule,
            subject=str(server),
            severity=severity,
            observed_at=at,
            summary=summary,
            facts=facts,
            link=server.get_absolute_url(),
            site=server.site,
            parent=None if rule == ANSWERS else (ANSWERS, str(server)),
        )

    outcome, detail = finding.outcome, result.detail
    if outcome not in ANSWERED:
        yield condition(ANSWERS, Severity.CRITICAL, detail)
        return
    yield condition(ANSWERS, Severity.OK, "It answers.")
    if outcome == Outcome.CERTIFICATE:
        yield condition(CERTIFICATE, Severity.CRITICAL, detail)
        return
    if finding.tls_version:
        yield condition(CERTIFICATE, Severity.OK, "Its certificate is right.")
    if outcome == Outcome.SECURITY:
        yield condition(SECURITY, Severity.CRITICAL, detail)
        return
    if outcome == Outcome.CREDENTIAL and finding.bound is None:
        # It was not asked to take the credential, for which alone it may want TLS.
        return
    yield condition(SECURITY, Severity.OK, "The connection is as secure as it demands.")
    if outcome == Outcome.CREDENTIAL:
        return
    found = {Outcome.REFUSED: Severity.CRITICAL, Outcome.REFERRAL: Severity.WARNING}
    yield condition(SEARCH, found.get(outcome, Severity.OK), detail or "The search finds.")
    if outcome == Outcome.OK:
        severity = Severity(result.severity)
        yield condition(SPEED, severity, detail or "It is as fast as it should be.")


def _facts(server: DirectoryServer, result: ProbeResult) -> dict[str, str]:
    facts = {"Outcome": result.outcome, "Error class": result.error}
    facts |= {
        f"{phase.value.capitalize()} (ms)": f"{spent:.1f}"
        for phase in Phase
        if (spent := getattr(result, f"{phase.value}_ms")) is not None
    }
    facts |= {
        "Address": result.address,
        "TLS": result.tls_version,
        "The server's words": result.diagnostic,
        "Credential": str(server.credential or "none: anonymous"),
    }
    return {name: value for name, value in facts.items() if value}


def _replication(server: DirectoryServer, at: datetime) -> Iterator[Condition]:
    rolled_back = replication.rolled_back(server)
    if server.lag is None and not rolled_back and not server.unjudged:
        return
    severity, summary = Severity.CRITICAL, rolled_back
    if not rolled_back and server.lag is None:
        # Nothing would close its alert any more; the pages show that it is not judged, and why.
        severity, summary = Severity.OK, f"It is not judged any more. {server.unjudged}"
    elif not rolled_back:
        severity = speed.judge_lag(server.profile, server.lag or 0)
        summary = f"It lacks changes that others of {server.group} have had for {server.lag} s."
        if severity == Severity.OK:
            summary = f"Its copy of {server.group} is {server.lag} s behind."
    yield Condition(
        application=APPLICATION,
        rule=REPLICATION,
        subject=str(server),
        severity=severity,
        observed_at=at,
        summary=summary,
        facts={"Group": server.group, "Behind (s)": str(server.lag)},
        link=server.get_absolute_url(),
        site=server.site,
        parent=(ANSWERS, str(server)),
    )


def _of_credentials(keys: Collection[int], at: datetime) -> Iterator[Condition]:
    """Yield one condition for each credential, however many servers refuse it."""
    if not keys:
        return
    watched = DirectoryServer.objects.filter(enabled=True, credential__in=keys).order_by()
    counted = watched.values("credential").annotate(
        total=Count("pk"),
        refused=Count("pk", filter=Q(state=State.CREDENTIAL)),
        took_it=Count("pk", filter=Q(bound=True, state__in=ANSWERED_BIND)),
        expires_at=Min("password_expires_at", filter=Q(bound=True)),
    )
    known = Credential.objects.filter(pk__in=keys).in_bulk()
    for row in counted.order_by("credential"):
        if row["refused"] or row["took_it"]:
            yield _of_credential(
                known[row["credential"]],
                total=row["total"],
                refused=row["refused"],
                took_it=row["took_it"],
                expires_at=row["expires_at"],
                at=at,
            )


def _of_credential(
    credential: Credential,
    *,
    total: int,
    refused: int,
    took_it: int,
    expires_at: datetime | None,
    at: datetime,
) -> Condition:
    severity, summary = Severity.OK, "It is taken."
    facts: dict[str, str] = {"User": credential.user}
    if expires_at is not None:
        facts["The password expires"] = local(expires_at)
        if expires_at - at < EXPIRES_SOON:
            severity = Severity.CRITICAL if expires_at - at < EXPIRES_NOW else Severity.WARNING
            summary = f"Its password expires at {local(expires_at)}: change it before."
    if refused:
        held = is_held(credential)
        severity = Severity.CRITICAL if held or not took_it else Severity.WARNING
        servers = _refusing(credential)
        facts |= {"Refused or not tried": f"{refused} of {total} servers", "Servers": servers}
        reason = credential.refusal or _last_detail(credential)
        summary = f"{refused} of {total} servers refuse it, or are not asked. {reason}"
        if held:
            summary += f" {NOT_TRIED}"
    return Condition(
        application=APPLICATION,
        rule=CREDENTIAL,
        subject=credential.name,
        severity=severity,
        observed_at=at,
        summary=summary,
        facts=facts,
        link=f"{reverse('directories')}?credential={credential.pk}",
    )


def _in_trouble(credential: Credential) -> Any:
    return DirectoryServer.objects.filter(
        credential=credential, enabled=True, state=State.CREDENTIAL
    ).order_by("host", "port")


def _refusing(credential: Credential) -> str:
    named = [str(server) for server in _in_trouble(credential)[: MOST_NAMED + 1]]
    return ", ".join(named[:MOST_NAMED]) + (", …" if len(named) > MOST_NAMED else "")


def _last_detail(credential: Credential) -> str:
    tried = ProbeResult.objects.filter(
        server__in=_in_trouble(credential).order_by(), outcome=Outcome.CREDENTIAL.value
    ).exclude(error=HELD_BACK)
    latest = tried.order_by("-at").first()
    return latest.detail if latest else ""


def before_save(instance: DirectoryServer, **_: Any) -> None:
    """Close alerts that no probe will close: of a server that is edited to be another one.

    What it was found to be belongs to what it was asked, and with which credential.
    """
    stored = DirectoryServer.objects.filter(pk=instance.pk).first()
    if not stored:
        return
    if str(stored) != str(instance) or not instance.enabled:
        actions.retire(APPLICATION, str(stored))
    elif gone := _without_meaning(stored, instance):
        actions.retire(APPLICATION, str(stored), gone)
    if stored.group != instance.group:
        replication.forget(instance)
    left = stored.credential
    if left and (left != instance.credential or not instance.enabled):
        # Its own count: the new credential has been refused by nobody yet.
        instance.bound, instance.bind_refusals, instance.bind_refused_at = None, 0, None
        instance.password_expires_at = None
        _retire_if_unused(left, but=instance)


def _without_meaning(stored: DirectoryServer, edited: DirectoryServer) -> list[str]:
    """Return the rules of a server that are about what it no longer has."""
    rules = []
    if edited.security == DirectoryServer.Security.PLAIN:
        rules.append(CERTIFICATE)
    if stored.group != edited.group:
        rules.append(REPLICATION)
    return rules


def _retire_if_unused(credential: Credential, *, but: DirectoryServer) -> None:
    others = DirectoryServer.objects.filter(enabled=True, credential=credential)
    if not others.exclude(pk=but.pk).exists():
        actions.retire(APPLICATION, credential.name, [CREDENTIAL])


def after_delete(instance: DirectoryServer, **_: Any) -> None:
    """Close the alerts of a server that is gone, and of a credential that nobody uses now."""
    actions.retire(APPLICATION, str(instance))
    if instance.credential:
        _retire_if_unused(instance.credential, but=instance)


def after_delete_of_credential(instance: Credential, **_: Any) -> None:
    """Close the alert of a credential that is gone."""
    actions.retire(APPLICATION, instance.name)
