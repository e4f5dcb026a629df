"""Debian's Alertmanager with our address as its only receiver, for tests of the webhook."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from harness import free_port, missing, wait_for


@contextmanager
def running(folder: Path, receiver: str, secret: str, ca: Path | None = None) -> Iterator[str]:
    """Run one that posts to an address with an API token; yield its own address."""
    if shutil.which("prometheus-alertmanager") is None:
        missing("prometheus-alertmanager is missing: install Debian's package of that name")
    (folder / "secret").write_text(secret)
    tls = f"tls_config: {{ca_file: {ca}}}" if ca else ""
    (folder / "am.yml").write_text(f"""
route: {{receiver: soc, group_wait: 0s, group_interval: 1s, repeat_interval: 1s}}
receivers:
  - name: soc
    webhook_configs:
      - url: {receiver}
        http_config:
          authorization: {{credentials_file: {folder}/secret}}
          {tls}
""")
    port = free_port()
    command = (
        "prometheus-alertmanager",
        *(f"--config.file={folder}/am.yml", f"--storage.path={folder}/data"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="),
    )
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def fire(address: str, ends_at: datetime) -> None:
    """Report an alert to an Alertmanager, as Prometheus does."""
    alert = {
        "labels": {"alertname": "DiskFull", "severity": "critical", "instance": "db1:9100"},
        "annotations": {"summary": "95 % are used."},
        "endsAt": ends_at.isoformat(),
    }
    body, kind = json.dumps([alert]).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/v2/alerts", body, kind)

    def taken() -> bool:
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError:
            return False
        return True

    wait_for("an Alertmanager that takes alerts", taken)
