"""Probes directory servers inside a container of the stack; prints what it measured as JSON."""

import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import django

django.setup()

from django.utils import timezone  # noqa: E402

from soc.ldap_probe import rounds  # noqa: E402
from soc.ldap_probe.diagnostics import Security  # noqa: E402
from soc.ldap_probe.models import (  # noqa: E402
    Authority,
    Credential,
    DirectoryServer,
    ProbeResult,
    Profile,
    State,
)
from soc.ldap_probe.probe import DirectoryTarget, probe  # noqa: E402

SUFFIX = "dc=directory,dc=internal"


def register(address: str, first: str, count: str) -> None:
    """Register the servers with a credential, and probe them until nothing about them is new."""
    authority = Authority.objects.create(name="bench", pem=Path("/data/ca.pem").read_text())
    reader = Credential.objects.create(
        name="reader", user=f"cn=reader,{SUFFIX}", password="Secret, and long enough"
    )
    profile = Profile.objects.get(name="standard")
    DirectoryServer.objects.bulk_create(
        DirectoryServer(
            host=address, port=int(first) + n, authority=authority, credential=reader,
            profile=profile, base=SUFFIX, filter="(cn=person 7)",
        )
        for n in range(int(count))
    )  # fmt: skip
    # What is new is written once; from the third round on nothing is.
    whole_round()
    whole_round()


def servers() -> list[DirectoryServer]:
    related = DirectoryServer.objects.select_related("authority", "credential", "profile")
    return list(related.prefetch_related("profile__limits"))


def whole_round() -> None:
    """Probe everything as the task does: rows, states, conditions and all."""
    DirectoryServer.objects.update(next_probe_at=timezone.now())
    done, before = 0, ProbeResult.objects.count()
    while count := rounds.run()[0]:
        done += count
    # A server whose own turn comes meanwhile has it as well.
    assert ProbeResult.objects.count() - before == done >= DirectoryServer.objects.count()
    assert not DirectoryServer.objects.exclude(state__in=[State.OK, State.SLOW]).exists()


def probes(threads: str) -> None:
    """Probe everything, and keep nothing."""
    targets = [rounds.target_of(server) for server in servers()]
    with ThreadPoolExecutor(int(threads)) as pool:
        found = list(pool.map(probe, targets))
    assert all(finding.outcome == "ok" for finding in found)


def far(threads: str, host: str, port: str, count: str) -> None:
    """Read the RootDSE of a far server so often, so many at a time."""
    target = DirectoryTarget(host, int(port), Security.PLAIN)
    with ThreadPoolExecutor(int(threads)) as pool:
        found = list(pool.map(probe, [target] * int(count)))
    assert all(finding.outcome == "ok" for finding in found)


def hanging(*ports: str) -> None:
    """Probe everything while some of it hangs: what does not has to be through as before."""
    chosen = servers()[: len(ports)]
    for server, port in zip(chosen, ports, strict=True):
        DirectoryServer.objects.filter(pk=server.pk).update(port=int(port))
    DirectoryServer.objects.update(next_probe_at=timezone.now())
    while rounds.run()[0]:
        pass
    assert DirectoryServer.objects.filter(state=State.TIMEOUT).count() == len(ports)


ACTIONS = {action.__name__: action for action in (register, whole_round, probes, far, hanging)}


def main(action: str, *arguments: str) -> None:
    started, cpu = time.monotonic(), time.process_time()
    ACTIONS[action](*arguments)
    measured = {
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
