"""The places that must agree: catalogue, compose services, supervisor programs, definitions."""

from __future__ import annotations

import ast
import configparser
import hashlib
import inspect
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.urls.resolvers import RoutePattern
from gunicorn.config import Config

from soc import addresses as known_addresses
from soc.provision import broker, environment, grants, programs, site
from soc.runtime.celery import app
from soc.runtime.queues import (
    DEAD_LETTER_EXCHANGE,
    QUEUES,
    TASK_EXCHANGE,
    TASK_QUEUES,
    queue_of,
)
from soc.schedules import checks

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE_TEXT = (REPOSITORY / "compose.yaml").read_text()
COMPOSE_FILE = yaml.safe_load(COMPOSE_TEXT)
COMPOSE = COMPOSE_FILE["services"]
DEFINITIONS = broker.definitions({"monitor": "hash", "logstash": "hash"})
ONE_SHOT = {"migrate"}


def supervisor_programs() -> dict[str, configparser.SectionProxy]:
    parser = configparser.RawConfigParser()
    parser.read_string(programs.render())
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
    assert workers == {q.service: ["python3", "-m", "soc.runtime.worker", q.name] for q in QUEUES}


def test_every_compose_service_has_a_supervisor_program() -> None:
    assert set(supervisor_programs()) == set(COMPOSE) - set(site.SERVERS) - ONE_SHOT
    for queue in QUEUES:
        assert f"soc.runtime.worker {queue.name}" in supervisor_programs()[queue.service]["command"]


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
    assert bound == {queue.name for queue in TASK_QUEUES}


def test_the_messages_of_a_stream_come_to_its_queue_and_nowhere_else() -> None:
    for queue in QUEUES:
        sources = {
            (b["source"], b["routing_key"])
            for b in DEFINITIONS["bindings"]
            if b["destination"] == queue.name
        }
        if queue.stream:
            assert sources == {(queue.stream.exchange, queue.stream.routing_key)}
        else:
            assert {source for source, _ in sources} == {TASK_EXCHANGE}


def test_every_broker_user_is_a_service_and_has_permissions() -> None:
    users = {user["name"] for user in DEFINITIONS["users"]}
    workers = {queue.service for queue in QUEUES}
    assert users == workers | {"beat", "flower", "logstash", "monitor"}
    assert {permission["user"] for permission in DEFINITIONS["permissions"]} == users
    assert "guest" not in users


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_a_worker_may_read_only_its_own_task_queue(queue: Any) -> None:
    (permission,) = [p for p in DEFINITIONS["permissions"] if p["user"] == queue.service]
    readable = {q.name for q in QUEUES if re.search(permission["read"], q.name)}
    assert readable == {queue.name}
    for other in QUEUES:
        for name in (other.name, other.dead_letter_name):
            assert not re.search(permission["configure"], name)
            assert not re.search(permission["write"], name)
        may_read_dead = other == queue if other.stream else queue.service == site.SAMPLER
        assert bool(re.search(permission["read"], other.dead_letter_name)) is may_read_dead
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


def test_gunicorn_takes_every_setting_of_its_configuration() -> None:
    config = Config()
    settings_of_file = runpy.run_path(str(REPOSITORY / "app" / "gunicorn.conf.py"))
    taken = [name for name in settings_of_file if name in config.settings]
    assert {"bind", "certfile", "ssl_context"} <= set(taken)
    for name in taken:
        config.set(name, settings_of_file[name])


def test_no_task_takes_a_secret() -> None:
    assert checks.check_task_arguments() == []


@pytest.mark.parametrize("name", ["password", "bind_password", "api_key", "token", "client_secret"])
def test_a_task_that_takes_a_secret_is_found(name: str) -> None:
    @app.task(name="soc.core.tasks.forged")
    def forged(**_: Any) -> None: ...

    try:
        forged.run.__signature__ = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)]
        )
        (error,) = checks.check_task_arguments()
        assert repr(name) in error.msg
    finally:
        app.tasks.pop("soc.core.tasks.forged")


def topics(user: str, exchange: str) -> str:
    (keys,) = [
        permission["write"]
        for permission in DEFINITIONS["topic_permissions"]
        if (permission["user"], permission["exchange"]) == (user, exchange)
    ]
    return keys


@pytest.mark.parametrize("queue", TASK_QUEUES, ids=lambda queue: queue.name)
def test_a_worker_may_queue_tasks_for_itself_and_the_mail_and_beat_for_all(queue: Any) -> None:
    delay = "0." * 27 + "1."
    for exchange, prefix in ((TASK_EXCHANGE, ""), ("celery_delayed_27", delay)):
        keys = topics(queue.service, exchange)
        mine = {q.name for q in TASK_QUEUES if re.search(keys, prefix + q.routing_key)}
        assert mine == {queue.name, "email"}
        assert re.search(topics("beat", exchange), prefix + queue.routing_key)
        assert not re.search(keys, f"{prefix}{queue.routing_key}.x")


def test_every_exchange_that_somebody_may_write_to_limits_the_keys() -> None:
    """Without a topic permission a topic exchange takes any key."""
    of_topics = {e["name"] for e in DEFINITIONS["exchanges"] if e["type"] == "topic"}
    limited = {(p["user"], p["exchange"]) for p in DEFINITIONS["topic_permissions"]}
    for permission in DEFINITIONS["permissions"]:
        for exchange in of_topics:
            if re.search(permission["write"], exchange):
                assert (permission["user"], exchange) in limited


def test_nobody_may_declare_or_delete_an_exchange_but_logstash_its_own() -> None:
    exchanges = [e["name"] for e in DEFINITIONS["exchanges"]] + ["amq.default", "amq.topic"]
    configured = {
        (permission["user"], exchange)
        for permission in DEFINITIONS["permissions"]
        for exchange in exchanges
        if re.search(permission["configure"], exchange)
    }
    assert configured == {("logstash", "logstash")}


def test_no_service_has_a_password_at_the_broker() -> None:
    having = {user["name"] for user in DEFINITIONS["users"] if user["password_hash"]}
    assert having == {"monitor", "logstash"}


def test_a_worker_may_do_nothing_to_who_may_sign_in() -> None:
    for table in ("auth_user", "auth_user_groups", "django_session", "core_apitoken"):
        assert grants.privileges("web", table) == grants.ROWS
        for service in (*WORKERS - {site.SAMPLER}, "beat"):
            assert set(grants.privileges(service, table)) <= {"SELECT"}, (service, table)
    assert grants.privileges(site.SAMPLER, "django_session") == ("SELECT", "DELETE")
    assert grants.privileges("beat", "alerts_alert") == ()
    assert grants.privileges("worker-email", "alerts_alert") == grants.ROWS


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


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module that run when it is imported: no function's body does."""
    yield node
    body = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        body = node.body
    elif isinstance(node, ast.Lambda):
        body = [node.body]
    for child in ast.iter_child_nodes(node):
        if child not in body:
            yield from run_at_import(child)


def reads_settings_at_import(code: str) -> bool:
    """Whether a value is taken that an override of the settings no longer reaches."""
    tree = ast.parse(code)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    if any(node.module == "soc.settings" for node in imports):
        return True
    names = {
        alias.asname or alias.name
        for node in imports
        for alias in node.names
        if (node.module, alias.name) in {("django.conf", "settings"), ("soc", "settings")}
    }
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in names
        for node in run_at_import(tree)
    )


SETTINGS = "from django.conf import settings\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from soc.settings import SITE", True),
        (SETTINGS + "SITE = settings.SITE", True),
        (SETTINGS + "class Model:\n    site = settings.SITE", True),
        (SETTINGS + "def task(site=settings.SITE): ...", True),
        (SETTINGS + "@app.task(rate_limit=settings.RATE)\ndef task(): ...", True),
        ("from django.conf import settings as s\nSITE = s.SITE", True),
        (SETTINGS + "def task():\n    return settings.SITE", False),
        (SETTINGS + "site = lambda: settings.SITE", False),
    ],
)
def test_a_value_taken_at_import_is_found(code: str, expected: bool) -> None:
    assert reads_settings_at_import(code) is expected


@pytest.mark.parametrize("module", ["models", "tasks"])
def test_no_model_or_task_module_reads_settings_when_it_is_imported(module: str) -> None:
    paths = list((REPOSITORY / "app" / "soc").glob(f"*/{module}.py"))
    assert len(paths) >= 3
    assert [path for path in paths if reads_settings_at_import(path.read_text())] == []


def imported_from_soc(code: str) -> set[str]:
    """Return the modules below ``soc`` that a file imports, in any spelling."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("soc.")}
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")
            if node.level == 0 and module[0] == "soc":
                found |= {module[1]} if module[1:] else {alias.name for alias in node.names}
            elif node.level > 1:
                found |= {module[0]} if module[0] else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import soc.notify",
        "import soc.notify.outbox as box",
        "from soc import notify",
        "from soc import queues, notify as n",
        "from soc.notify import outbox",
        "from soc.notify.outbox import enqueue",
        "from .. import notify",
        "from ..notify import outbox",
        "def late():\n    from soc.notify import outbox",
    ],
)
def test_an_import_is_found_in_any_spelling(code: str) -> None:
    assert "notify" in imported_from_soc(code)


# What belongs to no application: who may run tasks, how a site is made, helpers. All may use these.
BASE = {"common", "provision", "runtime"}


ROOMS: dict[str, set[str]] = {
    "common": set(),
    # The catalogue of queues, from which the broker's definitions are made.
    "provision": {"runtime"},
    "doctor": {"provision", "runtime"},
    # Failures and signs of life are rows of core; the worker of a stream is the events' own.
    "runtime": BASE | {"core", "events"},
    "schedules": BASE,
    "trust": {"common", "core"},
    "core": BASE | {"schedules"},
    "access": BASE | {"core"},
    "oncall": BASE | {"access", "core"},
    "notify": BASE | {"core", "oncall", "schedules"},
    "alerts": BASE | {"access", "core", "notify", "oncall", "schedules"},
    "events": BASE | {"core", "notify", "alerts", "oncall", "schedules"},
}
"""What each room of the house may import of ours."""

FRONT = {"api", "board", "robots"}
"""What may import everything."""

APPLICATION = set(ROOMS)
"""What every other application may import: the rooms, and no application next to it."""


def packages() -> list[str]:
    return sorted(path.parent.name for path in (REPOSITORY / "app" / "soc").glob("*/__init__.py"))


@pytest.mark.parametrize("package", sorted({*packages()} - FRONT - {"beat", "formats"}))
def test_dependencies_run_one_way(package: str) -> None:
    allowed = ROOMS.get(package, APPLICATION)
    rooms = {*packages(), "metrics"} - {"beat"}
    modules = list((REPOSITORY / "app" / "soc" / package).rglob("*.py"))
    assert modules
    for path in modules:
        imported = imported_from_soc(path.read_text())
        assert imported & rooms <= allowed | {package}, path


PAGES = {"admin", "apps", "views", "urls", "menu", "nav", "oidc"}


def linked_by_mails() -> Iterator[str]:
    """Yield the names of the pages that modules outside the web link to."""
    for path in (REPOSITORY / "app" / "soc").rglob("*.py"):
        if path.stem not in PAGES and path.parent.name not in ("api", "board"):
            yield from re.findall(
                r"""\b(?:reverse|absolute)\(\s*["']([\w:-]+)["']""", path.read_text()
            )


def test_a_worker_knows_every_page_that_it_links_to_where_the_site_has_it() -> None:
    known = {pattern.name: pattern for pattern in known_addresses.urlpatterns}
    assert set(linked_by_mails()) <= set(known)
    for name, pattern in known.items():
        arguments = [1] * len(pattern.pattern.converters)
        found = [
            reverse(name, urlconf=urlconf, args=arguments)
            for urlconf in ("soc.urls", "soc.addresses")
        ]
        assert found[0] == found[1]


@pytest.mark.parametrize("module", ["soc.runtime.worker", "soc.runtime.scheduler"])
def test_a_service_without_pages_loads_none(module: str) -> None:
    code = f"""
import sys, {module}
{module}.app.loader.import_default_modules()
from django.urls import reverse
reverse("alert", args=[1])
print(*sys.modules)
"""
    environment_of_a_worker = os.environ | {"SOC_SERVICE": "worker-email"}
    printed = subprocess.check_output(
        (sys.executable, "-c", code), env=environment_of_a_worker, text=True, cwd=REPOSITORY / "app"
    )
    loaded = set(printed.split())
    unwanted = {"soc.urls", "soc.alerts.admin", "unfold", "ninja", "authlib", "icalendar"}
    assert not loaded & (unwanted | {"requests", "flower", "tornado", "prompt_toolkit"})


def test_a_worker_loads_the_tasks_of_its_queue_and_no_other_probe() -> None:
    code = """
import sys
from soc.runtime import worker
from soc.runtime.queues import BY_NAME
worker.load_tasks_of(BY_NAME["email"])
worker.app.loader.import_default_modules()
print(*(name for name in worker.app.tasks if name.startswith("soc.")), *sys.modules)
"""
    environment_of_a_worker = os.environ | {"SOC_SERVICE": "worker-email"}
    printed = subprocess.check_output(
        (sys.executable, "-c", code), env=environment_of_a_worker, text=True, cwd=REPOSITORY / "app"
    )
    loaded = set(printed.split())
    assert {"soc.notify.tasks.send_due_mail", "soc.notify.tasks"} <= loaded
    assert not loaded & {"soc.ssl_certs.tasks", "soc.ssl_certs.probe", "OpenSSL", "ldap"}


@pytest.mark.parametrize("package", ["provision", "doctor"])
def test_a_site_is_made_and_examined_without_settings(package: str) -> None:
    names = [path.stem for path in (REPOSITORY / "app" / "soc" / package).glob("*.py")]
    # Granted in the database, by the service migrate.
    names = sorted({*names} - {"__init__", "grants"})
    code = f"import sys; from soc.{package} import {', '.join(names)}; "
    # Kombu imports other parts of Django where that is installed.
    code += "print('django.conf' in sys.modules)"
    environment = {"PYTHONPATH": str(REPOSITORY / "app")}
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environment, text=True) == "False\n"


def test_only_landed_migrations_come_through_the_old_door_of_the_schedules() -> None:
    modules = (REPOSITORY / "app" / "soc").rglob("*.py")
    users = {path.parent.name for path in modules if "soc.core.schedules" in path.read_text()}
    assert users <= {"migrations", "schedules"}


def test_beat_could_be_a_package_of_its_own() -> None:
    for path in (REPOSITORY / "app" / "soc" / "beat").rglob("*.py"):
        assert imported_from_soc(path.read_text()) <= {"beat"}, path


BY_SECRET = ("/acknowledge/1/1/", "/ping/1", "/ping/1/1")
"""Work for everybody who has the address, by the secret in it."""

TOKENS_ONLY = ("/metrics", "/certificates/calendar.ics", "/oncall/1/calendar.ics")


def addresses(resolver: URLResolver, prefix: str = "/") -> Iterator[str]:
    """Yield an address of every view; what an address takes as an argument is 1."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern, f"{prefix}{pattern.pattern}")
        elif isinstance(pattern, URLPattern) and isinstance(pattern.pattern, RoutePattern):
            yield re.sub(r"<[^>]+>", "1", f"{prefix}{pattern.pattern}")


@pytest.mark.django_db
@pytest.mark.usefixtures("plain_static_files")
def test_a_stranger_is_sent_to_the_sign_in_page_from_everywhere() -> None:
    """The admin's two patterns for any text stand for an address each."""
    known = {*addresses(get_resolver()), "/admin/core/", "/admin/nowhere/"}
    assert {"/", "/admin/", "/admin/auth/user/1/change/"} <= known
    for address in known - {"/healthz", "/readyz", "/sign-in/"}:
        if address in BY_SECRET:
            assert Client().get(address, secure=True).status_code == 404
            continue
        answer = Client().get(address, secure=True, follow=True)
        if address in TOKENS_ONLY or address.startswith("/api/"):
            # Programs show a token instead: a page to sign in at is no answer to them.
            assert answer.status_code == 401, address
            continue
        assert answer.redirect_chain, address
        assert urlsplit(answer.redirect_chain[-1][0]).path == "/sign-in/", address


def test_compose_is_short_and_hardened() -> None:
    assert len(COMPOSE_TEXT.splitlines()) <= 12 * len(COMPOSE)
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


WORKERS = {queue.service for queue in QUEUES}


def test_celerys_control_queues_are_quorum_queues() -> None:
    """Their declaration says no type: RabbitMQ takes it from the virtual host's metadata."""
    (host,) = DEFINITIONS["vhosts"]
    assert host["metadata"] == {"default_queue_type": "quorum"}
    assert (app.conf.control_queue_durable, app.conf.control_queue_exclusive) == (False, False)


def test_a_health_check_starts_seldom_and_ends_by_itself() -> None:
    for name in set(COMPOSE) - ONE_SHOT:
        check = COMPOSE[name]["healthcheck"]
        assert check["test"][:2] == ["CMD", "steady"], name
        # What `steady` holds an answer for, and a program's own limit, end before the engine's.
        assert (check["interval"], check["timeout"], check["retries"]) == ("1s", "30s", 2), name


def test_the_network_of_the_data_has_no_way_out() -> None:
    assert COMPOSE_FILE["networks"]["data"]["internal"] is True
    assert all("data" in service["networks"] for service in COMPOSE.values())
    assert not any("network_mode" in service for service in COMPOSE.values())


def test_only_who_must_reach_the_world_is_on_the_network_that_does() -> None:
    outward = {name for name, service in COMPOSE.items() if set(service["networks"]) != {"data"}}
    assert outward == WORKERS | {"web", "flower"}


def test_only_the_two_web_servers_publish_a_port() -> None:
    published = {name: service["ports"] for name, service in COMPOSE.items() if "ports" in service}
    assert published.keys() == {"web", "flower"}
    for name, ports in published.items():
        assert [port["host_ip"] for port in ports] == ["${SOC_BIND}"], name


def test_the_time_zone_of_crontabs_is_the_sites() -> None:
    assert settings.CELERY_TIMEZONE == settings.TIME_ZONE


def test_every_landed_migration_is_as_it_landed() -> None:
    """A site that has applied a migration would never see an edit of it."""
    landed_file = REPOSITORY / "tests" / "unit" / "core" / "migrations.sha256"
    lines = landed_file.read_text(encoding="utf-8").splitlines()
    landed = {name: digest for digest, name in (line.split() for line in lines)}
    assert len(landed) == len(lines), "a migration stands in the list twice"
    present = {
        str(file.relative_to(REPOSITORY)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (REPOSITORY / "app" / "soc").glob("*/migrations/[0-9]*.py")
    }
    changed = [name for name in landed.keys() & present.keys() if present[name] != landed[name]]
    assert not changed, "a landed migration was edited: undo that and write a new migration"
    assert not landed.keys() - present.keys(), "a landed migration was removed or renamed"
    add = "add it to the list: sha256sum FILE >> tests/unit/core/migrations.sha256"
    assert not present.keys() - landed.keys(), add


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by their names alone, and leaves out the second of a whole run."""
    names = [file.name for file in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_line_of_a_template_is_long() -> None:
    longest = 140
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for path in (REPOSITORY / "app").rglob("*.html")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > longest
    ]
    assert found == []
