"""The main job on real parts: from `make up` to a certificate warning in a mailbox."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
import urllib.request
from urllib.parse import urlsplit

import pytest
import tzdata

from harness import Browser, Stack, run, wait_for, wait_until_equal
from soc.runtime.queues import QUEUES, TASK_QUEUES

HEALTH_CHECKED = {
    "beat", "catcher", "flower", "mariadb", "rabbitmq", "web", "worker-email", "worker-events",
    "worker-ldap-probe", "worker-mail-collector", "worker-shared", "worker-ssl-certs",
}  # fmt: skip


@pytest.fixture(scope="module")
def administrator(stack: Stack) -> Browser:
    browser = stack.browser()
    status, url, _ = browser.sign_in(stack.secret("migrate", "admin_password"))
    assert (status, url) == (200, f"{stack.url}/")
    return browser


def test_every_service_is_up_and_healthy(stack: Stack) -> None:
    assert set(stack.services()) == HEALTH_CHECKED
    assert {service: stack.health(service) for service in HEALTH_CHECKED} == dict.fromkeys(
        HEALTH_CHECKED, "healthy"
    )


def test_make_up_again_changes_nothing(stack: Stack) -> None:
    before = {service: stack.inspect(service)["Id"] for service in stack.services()}
    stack.make("up")
    assert {service: stack.inspect(service)["Id"] for service in stack.services()} == before


def test_the_own_endpoints_are_scanned_and_a_warning_is_mailed(stack: Stack) -> None:
    code = """
from soc.ssl_certs.models import Endpoint
answer = dict(Endpoint.objects.filter(notes__startswith="Part of").values_list("host", "status"))
"""
    expected = dict.fromkeys(("web", "flower", "rabbitmq", "mariadb"), "ok")
    expected["catcher"] = "warning"
    wait_until_equal("the first scan", lambda: stack.data(code), expected, seconds=90)

    def mails() -> list[dict[str, str]]:
        return [mail for mail in stack.mail() if "catcher:2525" in mail["Subject"]]

    wait_for("the warning", mails, seconds=100)
    stack.run_task("soc.alerts.tasks.make_rounds")
    stack.run_task("soc.notify.tasks.send_due_mail")
    (mail,) = mails()
    assert mail["Subject"].startswith("[SOC] WARNING: catcher:2525: It expires in 19 days")
    assert mail["X-Envelope-To"] == "operations@health.internal"
    assert "It expires in 19 days" in mail["text"]
    assert f"{stack.url}/alerts/" in mail["text"]


def test_a_condition_reported_by_a_program_becomes_an_alert_and_a_mail(stack: Stack) -> None:
    stack.data("""
from django.contrib.auth.models import Group, User
from soc.alerts.models import Rule
Rule.objects.create(application="backup", name="age")
User.objects.create(username="reporter").groups.add(Group.objects.get(name="Reporters"))
answer = None
""")
    create = ("python3", "manage.py", "token", "create", "smoke", "--user", "reporter")
    # What it prints beside the secret is an error stream's, which comes before or after.
    (token,) = re.findall(r"^soc_\S+$", stack.exec("web", *create), flags=re.MULTILINE)
    observed_at = dt.datetime.now(dt.UTC).isoformat()
    request = urllib.request.Request(
        f"{stack.url}/api/v1/conditions",
        json.dumps(
            {
                **{"application": "backup", "rule": "age", "subject": "db1.example.org"},
                **{"severity": "critical", "observed_at": observed_at, "summary": "It is old."},
            }
        ).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with stack.browser().opener.open(request, timeout=20) as answer:
        assert json.load(answer) == {"results": [{"outcome": "fired", "mails": 1}]}
    subject = "[SOC] CRITICAL: db1.example.org: It is old"

    def mails() -> list[dict[str, str]]:
        return [mail for mail in stack.mail() if mail["Subject"].startswith(subject)]

    wait_for("the mail", mails, seconds=100)


def test_a_stranger_sees_the_sign_in_page_and_the_health_page_only(stack: Stack) -> None:
    """A unit test walks all addresses; this one sees what the server in front of them lets by."""
    stranger = stack.browser()
    assert stranger.open("/healthz")[0] == 200
    for path in ("/", "/board/live/", "/admin/"):
        status, url, body = stranger.open(path)
        assert (status, urlsplit(url).path) == (200, "/sign-in/"), path
        assert "worker-email" not in body
    status, url, body = stranger.sign_in("wrong")
    assert (status, urlsplit(url).path) == (200, "/sign-in/")
    assert "Please enter a correct username and password" in body


def test_the_time_zones_are_those_of_the_lock(administrator: Browser) -> None:
    assert f"tzdata {tzdata.IANA_VERSION}" in administrator.open("/")[2]


def test_a_schedule_made_in_the_admin_runs_in_the_right_worker(
    stack: Stack, administrator: Browser
) -> None:
    interval = stack.data("""
from django_celery_beat.models import IntervalSchedule
answer = IntervalSchedule.objects.get_or_create(every=1, period="seconds")[0].pk
""")
    # Disabled: nothing but this schedule has it scanned.
    key = stack.data("""
from soc.ssl_certs.models import Endpoint
answer = Endpoint.objects.create(host="beat", port=1, enabled=False).pk
""")
    form = {
        "name": "made by a test",
        "task": "soc.ssl_certs.tasks.scan_endpoint",
        "enabled": "on",
        "interval": interval,
        "queue": "ssl_certs",
        "args": "[]",
        "kwargs": json.dumps({"key": key}),
        "headers": "{}",
        "expire_seconds": 30,
        "beat_options-TOTAL_FORMS": 0,
        "beat_options-INITIAL_FORMS": 0,
    }
    observed = f"""
from soc.ssl_certs.models import Endpoint
answer = Endpoint.objects.values_list("scans", "outcome").get(pk={key})
"""
    _, url, body = administrator.post("/admin/django_celery_beat/periodictask/add/", **form)
    assert url.endswith("/admin/django_celery_beat/periodictask/"), errors(body)
    wait_for("three runs", lambda: stack.data(observed)[0] >= 3)
    assert stack.data(observed)[1] == "connect_refused"

    def workers() -> list[str]:
        tasks = flower_tasks(stack, "soc.ssl_certs.tasks.scan_endpoint").values()
        found = [task["worker"] for task in tasks if task["kwargs"] == str({"key": key})]
        return found if len(found) >= 3 else []

    # Workers gather their events for a moment.
    found = wait_for("three runs in Flower", workers)
    assert {worker.split("@")[0] for worker in found} == {"ssl_certs"}
    stack.data("""
from django_celery_beat.models import PeriodicTask
PeriodicTask.objects.get(name="made by a test").delete()
answer = None
""")


def errors(body: str) -> list[str]:
    return re.findall(r"(?s)text-red-[^>]*>(.*?)</", body)


def flower_tasks(stack: Stack, name: str) -> dict[str, dict[str, str]]:
    status, body = stack.flower(f"/api/tasks?taskname={name}&limit=1000")
    assert status == 200
    return json.loads(body)


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/tasks", "/api/workers", "/broker"])
def test_flower_asks_for_its_password(stack: Stack, path: str) -> None:
    assert stack.flower(path)[0] == 200
    assert stack.flower(path, user="")[0] == 401
    assert stack.flower(path, user="guest")[0] == 401


def test_flower_sees_every_worker_and_the_broker(stack: Stack) -> None:
    workers = json.loads(stack.flower("/api/workers?refresh=1")[1])
    assert {name.split("@")[0] for name in workers} == {queue.name for queue in QUEUES}

    def queues() -> set[str]:
        # Who does not answer within a second has no queues for Flower until it asks again.
        stack.flower("/api/workers?refresh=1")
        lengths = json.loads(stack.flower("/api/queues/length")[1])["active_queues"]
        return {queue["name"] for queue in lengths}

    wait_for("every queue", lambda: queues() >= {queue.name for queue in TASK_QUEUES})


def test_three_email_workers_send_each_mail_once(stack: Stack) -> None:
    stack.compose("up", "--detach", "--no-recreate", "--scale=worker-email=3", "worker-email")
    wait_for("three consumers", lambda: stack.queues()["email"]["consumers"] == 3)
    stack.data("""
from soc.notify import outbox, tasks
from soc.core.severity import Severity
from soc.notify.templates import Notice
notices = [Notice(f"number {n}", Severity.INFO, "text", {}) for n in range(120)]
answer = sum(outbox.enqueue(notice, f"test:{n}") for n, notice in enumerate(notices))
""")
    stack.python(
        "worker-email",
        """
from soc.notify import tasks
tasks.send_due_mail.apply_async(expires=60)
""",
    )
    states = """
from collections import Counter
from soc.notify.models import OutboundMail
mails = OutboundMail.objects.filter(dedupe_key__startswith="test:")
answer = Counter(f"{mail.state} {mail.last_error}".strip() for mail in mails)
"""
    wait_until_equal("all mail", lambda: stack.data(states), {"sent": 120})
    sent = [m["Message-ID"] for m in stack.mail() if "INFO: number" in m["Subject"]]
    assert len(sent) == len(set(sent)) == 120

    def workers() -> int:
        tasks = flower_tasks(stack, "soc.notify.tasks.send_due_mail").values()
        return len({task["worker"] for task in tasks})

    wait_until_equal("three workers in Flower", workers, 3)
    stack.compose("up", "--detach", "--no-recreate", "--scale=worker-email=1", "worker-email")


def test_docker_compose_scale_works_without_any_option_and_outlives_make_up(stack: Stack) -> None:
    scale = ["docker", "compose", "scale"]
    run(*scale, "worker-shared=2", cwd=stack.folder)
    wait_for("two consumers", lambda: stack.queues()["shared"]["consumers"] == 2)
    run("docker", "compose", "stop", "worker-shared", cwd=stack.folder)
    run(*scale, "worker-ldap-probe=0", cwd=stack.folder)
    stack.make("up")
    assert len(stack.compose("ps", "--quiet", "worker-shared").split()) == 2
    assert stack.compose("ps", "--all", "--quiet", "worker-ldap-probe") == ""
    run(*scale, "worker-shared=1", "worker-ldap-probe=1", cwd=stack.folder)
    wait_for("one consumer", lambda: stack.queues()["shared"]["consumers"] == 1)


def test_a_killed_workers_task_is_run_by_another(stack: Stack, peers: str) -> None:
    """The peer hangs for the time of a handshake: long enough to kill the worker that waits."""
    stack.compose(
        "up", "--detach", "--no-recreate", "--scale=worker-ssl-certs=2", "worker-ssl-certs"
    )
    wait_for("two consumers", lambda: stack.queues()["ssl_certs"]["consumers"] == 2)
    key = stack.data(f"""
from django.utils import timezone
from soc.ssl_certs.models import Endpoint
answer = Endpoint.objects.create(host={peers!r}, port=4442, enabled=False).pk
""")
    observed = f"""
from soc.ssl_certs.models import Observation
answer = list(Observation.objects.filter(endpoint={key}).values_list("outcome", flat=True))
"""
    stack.python(
        "worker-ssl-certs",
        f"from soc.ssl_certs import tasks\ntasks.scan_endpoint.apply_async(({key},))",
    )
    victim = wait_for("the scan", lambda: connected_worker(stack, peers))
    run("docker", "kill", "--signal=KILL", victim)
    assert stack.data(observed) == []
    wait_for("the second try", lambda: stack.data(observed) == ["handshake_timeout"], seconds=40)
    time.sleep(3)
    assert stack.data(observed) == ["handshake_timeout"]
    stack.compose(
        "up", "--detach", "--no-recreate", "--scale=worker-ssl-certs=1", "worker-ssl-certs"
    )


def connected_worker(stack: Stack, peers: str) -> str:
    """Return the container whose address the hanging peer has accepted."""
    log = run("docker", "logs", peers)
    accepted = [line.split()[-1] for line in log.splitlines() if line.startswith("4442 accepted")]
    for index in (1, 2):
        networks = stack.inspect("worker-ssl-certs", index)["NetworkSettings"]["Networks"]
        if accepted and accepted[-1] in {network["IPAddress"] for network in networks.values()}:
            return stack.container("worker-ssl-certs", index)
    return ""


def test_beat_has_its_cpu_quota(stack: Stack) -> None:
    assert stack.inspect("beat")["HostConfig"]["NanoCpus"] == 200_000_000
    quota = stack.exec(
        "beat",
        "sh",
        "-c",
        "cat /sys/fs/cgroup/cpu.max 2>/dev/null || "
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us",
    )
    assert quota.split() == ["20000", "100000"]
