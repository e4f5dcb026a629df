"""What directories answer to rounds of probes, and short ways to make such rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.utils import timezone

from soc.ldap_probe import rounds
from soc.ldap_probe.diagnostics import Outcome, Phase
from soc.ldap_probe.models import Credential, DirectoryServer
from soc.ldap_probe.probe import DirectoryTarget, Finding

DOWN = Finding(Outcome.DOWN, "connect_refused", "No connection.")
HANGS = Finding(Outcome.TIMEOUT, "search_timeout", "It hangs.")
BAD_NAME = Finding(Outcome.CERTIFICATE, "wrong_name", "It is for another name.")
HIDDEN = Finding(Outcome.REFUSED, "inappropriate_authentication", "Nothing for the anonymous.")
REFUSED = Finding(Outcome.CREDENTIAL, "wrong_password", "The password is wrong.", bound=False)


def reloaded(one: DirectoryServer) -> DirectoryServer:
    return DirectoryServer.objects.get(pk=one.pk)


def fine(target: DirectoryTarget, **values: Any) -> Finding:
    spent = {Phase.RESOLVE: 1.0, Phase.CONNECT: 2.0, Phase.TLS: 5.0, Phase.SEARCH: 3.0}
    bound = True if target.user else None
    return Finding(milliseconds=spent, tls_version="TLSv1.3", bound=bound, **values)


def refusing(target: DirectoryTarget) -> Finding:
    """Refuse every bind, and show anonymous clients the RootDSE."""
    return Finding(**vars(REFUSED)) if target.user else fine(target)


class Directory:
    """What each host finds, by a finding or by a function of the target; and what was asked."""

    def __init__(self) -> None:
        self.says: dict[str, Finding | Callable[[DirectoryTarget], Finding]] = {}
        self.asked: list[DirectoryTarget] = []

    def probe(
        self, target: DirectoryTarget, may_bind: Callable[[], bool] = lambda: True
    ) -> Finding:
        said = self.says.get(target.host, fine)
        comes_to_the_bind = callable(said) or said.bound is not None
        if target.user and comes_to_the_bind and not may_bind():
            target = target.without_credential()
        if comes_to_the_bind:
            self.asked.append(target)
        return said(target) if callable(said) else Finding(**vars(said))

    def binds(self) -> list[str]:
        """The hosts that were asked to take a credential since the last call."""
        hosts = [target.host for target in self.asked if target.user]
        self.asked.clear()
        return hosts


def server(host: str, **values: Any) -> DirectoryServer:
    return DirectoryServer.objects.create(host=host, **values)


def credential(name: str = "reader") -> Credential:
    return Credential.objects.create(name=name, user=f"cn={name}", password="secret")


def make_due() -> None:
    DirectoryServer.objects.update(next_probe_at=timezone.now())


def another_round() -> int:
    """Have every server probed; return how many mails that makes."""
    make_due()
    return rounds.run()[1]
