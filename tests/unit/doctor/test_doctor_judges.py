"""What doctor makes of facts that no test can make real: full disks, killed processes, versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soc.doctor import __main__ as doctor
from soc.doctor import broker, containers, database, host
from soc.doctor.facts import Facts
from soc.doctor.findings import Finding, Level, ordered
from soc.provision.site import SERVICES, Site

NOW = 1_800_000_000.0
Said = Callable[..., list[Finding]]


@pytest.fixture
def judged(tmp_path: Path) -> Said:
    """Have a check judge the facts that are given by source."""

    def judge(check: Callable[[Facts], Iterator[Finding]], **sources: str) -> list[Finding]:
        for source, text in sources.items():
            (tmp_path / source).write_text(text)
        return [
            finding
            for finding in check(Facts(Site("here", tmp_path / "env"), tmp_path, NOW))
            if "synchronized" not in finding.text and finding.area != "backups"
        ]

    return judge


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("space 1000 49 /data", Level.CRITICAL),
        ("space 1000 149 /data", Level.WARNING),
        ("space 1000 150 /data", None),
        ("inodes 1000 10 the volume of mariadb", Level.CRITICAL),
        ("inodes 0 0 /data", None),
        ("inodes - - /data", None),
    ],
)
def test_room_is_judged_by_its_share(judged: Said, line: str, level: Level | None) -> None:
    assert [one.level for one in judged(host.check, host=line)] == ([level] if level else [])


def test_one_file_system_is_named_once(judged: Said) -> None:
    (said,) = judged(host.check, host="space 100 1 /a\nspace 100 1 the volume of mariadb")
    assert said.text == "/a has 1% of its space free"


@pytest.mark.parametrize(("line", "count"), [("load 17.00 2", 1), ("load 16.00 2", 0)])
def test_an_overloaded_host_is_named_as_a_cause(judged: Said, line: str, count: int) -> None:
    said = judged(host.check, host=line)
    assert [(one.level, one.follows) for one in said] == [(Level.CRITICAL, False)] * count


def test_memory_versions_and_a_clock_that_went_back(judged: Said) -> None:
    said = judged(
        host.check,
        host="memory total 1000\nmemory available 20",
        engine="19.3.1\n2.26.1-4",
        database=f"heartbeat\tbeat\ta\t{NOW + 3600}",
    )
    assert [one.text for one in said] == [
        "2% of the host's memory is available",
        "the clock went back: the database has signs of life from 3600 s ahead",
        "Docker Engine is 19.3.1",
    ]


def container(service: str, **state: Any) -> dict[str, Any]:
    labels = {"com.docker.compose.service": service}
    running = {"Status": "running", "StartedAt": "2027-01-15T07:59:00.1Z", "ExitCode": 0}
    described = {"State": running | state, "RestartCount": state.pop("restarts", 0)}
    return described | {"Config": {"Labels": labels}, "Image": "sha256:1"}


def test_a_killed_container_and_one_that_restarts_are_named(judged: Said) -> None:
    others = [container(name) for name in SERVICES if name not in ("web", "beat")]
    found = [*others, container("web", OOMKilled=True), container("beat", Status="restarting")]
    said = judged(containers.check, containers=json.dumps(found), drift="", images="")
    assert [(one.text.split(" was ")[0], one.follows) for one in said] == [
        ("web", False),
        ("beat ends and is started again and again (0 times)", True),
    ]


def test_a_volume_that_is_full_within_days_is_named(judged: Said) -> None:
    day = 86_400
    (said,) = [
        one
        for one in judged(
            database.check,
            host="space 9900000 900000 the volume of mariadb",
            database=f"version\t11\narrived\t10000\t{NOW - day / 10}\nweight\t5000",
        )
        if "a day" in one.text
    ]
    assert said.level == Level.CRITICAL
    assert "0.5 GB a day" in said.text
    assert "full in 2 days" in said.text


def test_a_stuck_transaction_is_named_with_its_thread(judged: Said) -> None:
    said = judged(database.check, database="version\t11\ntransaction\t7\t90\t12\tUPDATE x")
    assert "KILL 7" in next(one.todo for one in said if "transaction" in one.text)


def test_of_definitions_only_what_is_lacking_or_otherwise_is_named() -> None:
    wanted = {
        "users": [{"name": "beat", "tags": [], "password_hash": ""}],
        "permissions": [{"user": "beat", "vhost": "/", "configure": "^$", "write": "", "read": ""}],
        "policies": [{"name": "email", "vhost": "/", "definition": {"max-length": 1}}],
    }
    assert list(broker.differences(wanted, wanted)) == []
    other = wanted | {"users": [], "policies": [{"name": "email", "definition": {}}]}
    assert [one.text for one in broker.differences(wanted, other)] == [
        "RabbitMQ lacks the user beat",
        "RabbitMQ has another definition for the policy email",
    ]


def test_the_worst_comes_first_and_a_cause_before_what_follows() -> None:
    made = [
        Finding(Level.WARNING, "a", "w", "x"),
        Finding(Level.CRITICAL, "a", "follows", "x", follows=True),
        Finding(Level.CRITICAL, "a", "cause", "x"),
    ]
    assert [one.text for one in ordered(made)] == ["cause", "follows", "w"]
    assert json.loads(doctor.as_json(made, 1.23))["status"] == 2
    assert json.loads(doctor.as_json([], 1.23)) == {"status": 0, "seconds": 1.2, "findings": []}
