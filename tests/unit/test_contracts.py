"""The places that must agree: catalogue, compose services, supervisor programs, definitions."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from soc import environment
from soc.celery import app
from soc.core import broker, checks, site
from soc.queues import DEAD_LETTER_EXCHANGE, QUEUES, TASK_EXCHANGE, queue_of

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE_TEXT = (REPOSITORY / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)["services"]
DEFINITIONS = broker.definitions("hash")
ONE_SHOT = {"migrate"}


def supervisor_programs() -> dict[str, configparser.SectionProxy]:
    parser = configparser.RawConfigParser()
    parser.read(REPOSITORY / "configs" / "supervisor" / "supervisord.conf")
    return {
        name.removeprefix("program:"): parser[name]
        for name in parser.sections()
        if name.startswith("program:")
    }


def periodic_tasks() -> Iterator[Any]:
    from django_celery_beat.models import PeriodicTask

    return PeriodicTask.objects.exclude(task__startswith="celery.")


def test_every_queue_has_a_compose_service_that_consumes_it() -> None:
    workers = {n: s["command"] for n, s in COMPOSE.items() if n.startswith("worker-")}
    assert workers == {q.service: ["python3", "-m", "soc.worker", q.name] for q in QUEUES}


def test_every_compose_service_has_a_supervisor_program() -> None:
    assert set(supervisor_programs()) == set(COMPOSE) - set(site.SERVERS) - ONE_SHOT
    for queue in QUEUES:
        assert f"soc.worker {queue.name}" in supervisor_programs()[queue.service]["command"]


def test_every_compose_service_has_an_identity_of_its_own() -> None:
    assert set(COMPOSE) == set(site.SERVICES)
    for name, service in COMPOSE.items():
        assert f"./env/${{SOC_SITE}}/{name}:/run/site:ro" in service["volumes"]
        if name not in site.SERVERS:
            assert service["environment"]["SOC_SERVICE"] == name


def test_every_queue_is_defined_in_the_broker_with_its_limits() -> None:
    defined = {queue["name"]: queue["arguments"] for queue in DEFINITIONS["queues"]}
    policies = {policy["pattern"]: policy["definition"] for policy in DEFINITIONS["policies"]}
    for queue in QUEUES:
        assert defined[queue.name] == {"x-queue-type": "quorum"}
        (policy,) = [p for pattern, p in policies.items() if re.search(pattern, queue.name)]
        assert policy == queue.policy
        assert policy["dead-letter-exchange"] == DEAD_LETTER_EXCHANGE
        assert queue.dead_letter_name in defined
    bound = {b["destination"] for b in DEFINITIONS["bindings"] if b["source"] == TASK_EXCHANGE}
    assert bound == {queue.name for queue in QUEUES}


def test_every_broker_user_is_a_service_and_has_permissions() -> None:
    users = {user["name"] for user in DEFINITIONS["users"]}
    workers = {queue.service for queue in QUEUES}
    assert users == workers | {"beat", "flower", "monitor"}
    assert {permission["user"] for permission in DEFINITIONS["permissions"]} == users
    assert "guest" not in users


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_a_worker_may_read_only_its_own_task_queue(queue: Any) -> None:
    (permission,) = [p for p in DEFINITIONS["permissions"] if p["user"] == queue.service]
    readable = {q.name for q in QUEUES if re.search(permission["read"], q.name)}
    assert readable == {queue.name}
    for other in [*QUEUES, *(q.dead_letter_name for q in QUEUES)]:
        name = getattr(other, "name", other)
        assert not re.search(permission["configure"], name)
        assert not re.search(permission["write"], name)
    assert not re.search(permission["write"], "amq.default")


def test_the_worker_gives_a_task_less_time_than_the_broker_and_compose_do() -> None:
    config = (REPOSITORY / "configs" / "rabbitmq" / "soc.conf").read_text()
    consumer_timeout = int(re.search(r"^consumer_timeout = (\d+)", config, re.M)[1]) / 1000
    for queue in QUEUES:
        assert queue.soft_time_limit < queue.time_limit < consumer_timeout
        grace = int(COMPOSE[queue.service]["stop_grace_period"].removesuffix("s"))
        assert queue.time_limit < grace


def test_every_task_has_a_queue() -> None:
    app.loader.import_default_modules()
    ours = [name for name in app.tasks if name.startswith("soc.")]
    assert len(ours) >= 6
    for name in ours:
        assert queue_of(name) in QUEUES


def test_a_task_without_a_queue_is_refused() -> None:
    with pytest.raises(LookupError, match="has no queue"):
        queue_of("soc.stranger.tasks.work")


@pytest.mark.django_db
def test_every_schedule_agrees_with_the_code() -> None:
    schedules = list(periodic_tasks())
    assert len(schedules) >= 5
    assert {s.name: list(checks.problems_of(s)) for s in schedules} == {
        s.name: [] for s in schedules
    }
    assert {s.name: s.queue for s in schedules} == {
        s.name: queue_of(s.task).name for s in schedules
    }


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("task", "soc.core.tasks.gone", "which no application registers"),
        ("queue", "gone", "which no worker consumes"),
        ("queue", None, "which no worker consumes"),
        ("expire_seconds", None, "has no expiry"),
        ("kwargs", '{"stranger": 1}', "has arguments that"),
        ("kwargs", "{", "has arguments that"),
    ],
)
def test_a_schedule_that_disagrees_is_found(field: str, value: Any, words: str) -> None:
    from django_celery_beat.models import PeriodicTask

    PeriodicTask.objects.filter(name="housekeeping").update(**{field: value})
    (error,) = checks.check_schedules(databases=["default"])
    assert "'housekeeping'" in error.msg
    assert words in error.msg


def test_the_example_documents_every_variable_once_and_no_other() -> None:
    text = (REPOSITORY / "env" / "example.env").read_text()
    names = re.findall(r"^([A-Z_]+)=", text, re.M)
    assert sorted(names) == sorted(environment.BY_NAME)


def test_every_documented_variable_is_read_and_the_other_way_round() -> None:
    """Reads are ``${NAME}`` in compose.yaml, the site's values in Python, scripts and configs."""
    read = set(re.findall(r"\$\{(\w+)\}", COMPOSE_TEXT))
    files = [*(REPOSITORY / "app").rglob("*.py"), *(REPOSITORY / "docker").rglob("*")]
    files += (REPOSITORY / "configs").rglob("*")
    for path in files:
        if path.is_file() and "environment.py" not in path.name and "static" not in path.parts:
            read |= set(re.findall(r"\b((?:SOC|COMPOSE)_\w+|\w+_IMAGE)\b", path.read_text()))
    compose_itself = {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}
    ours = {name for name in read if name.startswith("SOC_") or name.endswith("_IMAGE")}
    assert ours - set(environment.SET_BY_THE_STACK) - set(environment.BY_NAME) == set()
    assert set(environment.BY_NAME) - read - compose_itself == set()


def test_nothing_imports_settings_values_when_a_model_or_task_module_is_imported() -> None:
    for path in (REPOSITORY / "app" / "soc").glob("*/[mt]*s.py"):
        if path.stem not in ("models", "tasks"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "soc.settings"), path


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("core", set()),
        ("notify", {"core"}),
        ("ssl_certs", {"core", "notify"}),
    ],
)
def test_dependencies_run_one_way(package: str, allowed: set[str]) -> None:
    applications = {"core", "notify", "ssl_certs", "beat", "alerts", "events"}
    for path in (REPOSITORY / "app" / "soc" / package).rglob("*.py"):
        imported = set(re.findall(r"(?:from|import) soc\.(\w+)", path.read_text()))
        assert imported & applications <= allowed | {package}, path


def test_compose_is_short_and_hardened() -> None:
    assert len(COMPOSE_TEXT.splitlines()) <= 150
    assert "container_name" not in COMPOSE_TEXT
    for name, service in COMPOSE.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert {"pids_limit", "image"} <= service.keys(), name
        assert isinstance(service.get("command", []), list), name
        if name not in ONE_SHOT:
            assert {"cpus", "mem_limit"} <= service.keys(), name
            assert "healthcheck" in service, name


def test_the_time_zone_of_crontabs_is_the_sites() -> None:
    assert settings.CELERY_TIMEZONE == settings.TIME_ZONE
