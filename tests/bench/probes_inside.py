"""The part of the benchmark of probes that runs in containers of the app image.

python3 probes_inside.py serve FOLDER PORTS | register FOLDER HOST… | tick COUNT | verdicts |
    due | fleet
"""

import asyncio
import itertools
import json
import os
import ssl
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

PATIENCE = 300
POLL = 0.02
"""Seconds between two looks at the database."""


# --- The servers --------------------------------------------------------------------------------


async def serve(folder: Path, ports: list[int]) -> None:
    """Serve TLS on the ports that have a certificate, and silence on those that have none."""
    for port in ports:
        pem = folder / f"{port}.pem"
        context = None
        if pem.exists():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
        await asyncio.start_server(_answer, "0.0.0.0", port, ssl=context, backlog=200)
    await asyncio.Event().wait()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        while await reader.read(4096):
            pass
    writer.close()


def serve_in_processes(folder: Path, processes: int) -> None:
    """Share the ports of ``plan.json`` between processes."""
    ports = json.loads((folder / "plan.json").read_text())["listening"]
    for number in range(processes):
        if os.fork() == 0:
            asyncio.run(serve(folder, ports[number::processes]))
    print("ready", flush=True)
    os.wait()


# --- The product --------------------------------------------------------------------------------


def setup() -> None:
    import django

    django.setup()


def register(folder: Path, hosts: list[str]) -> None:
    """Watch every port of the plan at each host, and have nothing due."""
    setup()
    from django.utils import timezone

    from soc.ssl_certs.models import Endpoint
    from soc.trust.models import Authority

    plan = json.loads((folder / "plan.json").read_text())
    authority, _ = Authority.objects.update_or_create(
        name="bench", defaults={"pem": (folder / "root.crt").read_text()}
    )
    later = timezone.now() + timedelta(hours=23)
    Endpoint.objects.all().delete()
    Endpoint.objects.bulk_create(
        Endpoint(
            host=host,
            port=port,
            server_name=name,
            authority=authority,
            interval_minutes=1440,
            next_scan_at=later,
        )
        for host, (port, name) in itertools.product(hosts, plan["names"].items())
    )


def tick(count: int) -> None:
    """Make everything due, start one tick, and tell how long it took until all was stored."""
    setup()
    from django.utils import timezone

    from soc.ssl_certs.models import Endpoint
    from soc.ssl_certs.tasks import scan_due

    # The connection to the broker is no part of what is measured.
    scan_due.apply_async(expires=60)
    time.sleep(2)
    now = timezone.now()
    Endpoint.objects.update(next_scan_at=now, observed_at=None)
    started = time.monotonic()
    scan_due.apply_async(expires=60)
    done = Endpoint.objects.filter(scanned_at__gte=now)
    while (stored := done.count()) < count:
        if time.monotonic() - started > PATIENCE:
            sys.exit(f"!! {stored} of {count} endpoints were scanned in {PATIENCE} s")
        time.sleep(POLL)
    print(json.dumps(time.monotonic() - started))


def verdicts() -> None:
    """Print what was found on each port."""
    setup()
    from soc.ssl_certs.models import Endpoint

    found = Endpoint.objects.values_list("port", "outcome")
    print(json.dumps(dict(found)))


def due() -> None:
    """Have every endpoint due, and forget how late beat was before."""
    setup()
    from django.utils import timezone

    from soc.beat.models import LagSample
    from soc.ssl_certs.models import Endpoint

    LagSample.objects.all().delete()
    Endpoint.objects.update(next_scan_at=timezone.now())


def fleet() -> None:
    """Print how many endpoints were scanned, and how late beat was at most."""
    setup()
    from django.db.models import Max

    from soc.beat.models import LagSample
    from soc.ssl_certs.models import Endpoint

    scanned = Endpoint.objects.filter(scans__gt=0).count()
    print(json.dumps({"scanned": scanned, **LagSample.objects.aggregate(lag=Max("lag"))}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", folder, processes]:
            serve_in_processes(Path(folder), int(processes))
        case ["register", folder, *hosts]:
            register(Path(folder), hosts)
        case ["tick", count]:
            tick(int(count))
        case ["verdicts"]:
            verdicts()
        case ["due"]:
            due()
        case ["fleet"]:
            fleet()
