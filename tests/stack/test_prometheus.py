"""Debian's Prometheus scrapes the running site and hands alerts of its rules to Alertmanager."""

from __future__ import annotations

import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import real_relays
from harness import REPOSITORY, Stack, free_port, new_name, run, wait_for

CONFIGURATION = """
global: {{scrape_interval: 2s, evaluation_interval: 2s}}
rule_files: [/site/soc.rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]}}]}}
scrape_configs:
  - job_name: soc
    scheme: https
    authorization: {{credentials_file: /site/token}}
    tls_config: {{ca_file: /site/ca.pem}}
    static_configs: [{{targets: ["localhost:{web}"]}}]
"""
ROUTES = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
DASHBOARD = REPOSITORY / "configs" / "prometheus" / "soc.dashboard.json"


class Monitoring:
    """The two servers, on the machine's own network, where the site's published port is."""

    def __init__(self, prometheus: int, alertmanager: int) -> None:
        self.prometheus, self.alertmanager = prometheus, alertmanager

    def query(self, expression: str) -> list[dict[str, Any]]:
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = self._get(self.prometheus, path)["data"]["result"]
        return found

    def alerts(self) -> set[str]:
        """Return the names of the alerts that Alertmanager has got."""
        found = self._get(self.alertmanager, "/api/v2/alerts")
        return {alert["labels"]["alertname"] for alert in found}

    def answers(self) -> bool:
        try:
            return bool(self.query('up{job="soc"} == 1'))
        except OSError:
            return False

    @staticmethod
    def _get(port: int, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def monitoring(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    made = Monitoring(free_port(), free_port())
    site = tmp_path_factory.mktemp("monitoring")
    stack.data("""
from django.contrib.auth.models import User
answer = User.objects.create_superuser("prometheus").pk
""")
    create = ("python3", "manage.py", "token", "create", "prometheus", "--user", "prometheus")
    (token,) = re.findall(r"^soc_\S+$", stack.exec("web", *create), flags=re.MULTILINE)
    (site / "token").write_text(token)
    (site / "prometheus.yml").write_text(
        CONFIGURATION.format(web=stack.web_port, alertmanager=made.alertmanager)
    )
    (site / "routes.yml").write_text(ROUTES)
    # What a rule waits for is promtool's to test.
    rules = (REPOSITORY / "configs" / "prometheus" / "soc.rules.yml").read_text()
    (site / "soc.rules.yml").write_text(re.sub(r"for: \d+m", "for: 0s", rules))
    shutil.copy(stack.folder / "env" / stack.site / "ca" / "ca.pem", site)
    image = real_relays.image_with("prometheus prometheus-alertmanager")
    name = f"soc-{new_name()}-prometheus"
    command = (
        "prometheus-alertmanager --config.file=/site/routes.yml --cluster.listen-address="
        f" --web.listen-address=127.0.0.1:{made.alertmanager} --storage.path=/tmp/a &"
        " exec prometheus --config.file=/site/prometheus.yml --storage.tsdb.path=/tmp/p"
        f" --web.listen-address=127.0.0.1:{made.prometheus}"
    )
    run("docker", "create", f"--name={name}", "--network=host", image, "sh", "-c", command)
    run("docker", "cp", f"{site}/.", f"{name}:/site")
    run("docker", "start", name)
    wait_for("a scrape", made.answers, 120)
    yield made
    run("docker", "rm", "--force", name)


def test_every_panel_of_the_dashboard_has_data(monitoring: Monitoring) -> None:
    empty = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$instance", ".*")
            # What there is none of is 0; the panel of messages hides these.
            if not monitoring.query(expression.removesuffix(" > 0")):
                empty.append(panel["title"])
    assert not empty
    assert monitoring.query("soc_beat_leader == 1")
    assert monitoring.query("soc_workers_alive > 0")


def test_an_alert_of_the_rules_reaches_alertmanager(stack: Stack, monitoring: Monitoring) -> None:
    stack.data("""
from datetime import timedelta
from django.utils import timezone
from soc.notify.models import Destination, Subscription
made = Subscription.objects.create(name="unreachable", channel="webhook", minimum_severity=3)
Destination.objects.create(subscription=made, down_since=timezone.now(),
                           next_try_at=timezone.now() + timedelta(hours=1))
answer = made.pk
""")
    try:
        wait_for("the alert", lambda: "SocChannelDown" in monitoring.alerts())
    finally:
        stack.data("""
from soc.notify.models import Subscription
answer = Subscription.objects.filter(name="unreachable").delete()[0]
""")
