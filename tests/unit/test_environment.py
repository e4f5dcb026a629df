"""The env file: everything that is wrong is said at once."""

from pathlib import Path

import pytest

from soc.provision import environment

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = (REPOSITORY / "env" / "example.env").read_text(encoding="utf-8")


def good_values() -> dict[str, str]:
    values, malformed = environment.parse(EXAMPLE)
    assert not malformed
    return values | {
        "SOC_SITE": "health",
        "SOC_SMTP_HOST": "relay.internal",
        "SOC_MAIL_FROM": "soc@health.internal",
        "SOC_MAIL_TO": "a@health.internal,b@health.internal",
    }


def write(tmp_path: Path, values: dict[str, str]) -> Path:
    path = tmp_path / f"{values['SOC_SITE']}.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    path.chmod(0o600)
    return path


def test_good_values_have_no_problems(tmp_path: Path) -> None:
    assert environment.problems_of_file(write(tmp_path, good_values())) == []


def test_everything_wrong_is_listed_at_once() -> None:
    values = good_values()
    del values["SOC_TIME_ZONE"]
    values |= {"SOC_WEB_PROT": "1", "SOC_FLOWER_PORT": "70000", "SOC_BEAT_CPUS": "0"}
    problems = "\n".join(environment.problems_of(values))
    assert "SOC_WEB_PROT is unknown; is SOC_WEB_PORT meant?" in problems
    assert "SOC_TIME_ZONE is missing" in problems
    assert "SOC_FLOWER_PORT is not a port" in problems
    assert "SOC_BEAT_CPUS is not a number of CPUs" in problems


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOC_SITE", "Bad Name"),
        ("SOC_STACK", "kubernetes"),
        ("COMPOSE_PROFILES", "everything"),
        ("MARIADB_IMAGE", "mariadb:latest"),
        ("MARIADB_IMAGE", "mariadb"),
        ("SOC_HOSTNAMES", "good.internal,bad name"),
        ("SOC_BIND", "everywhere"),
        ("SOC_BIND", "999.9"),
        ("SOC_SITE", "example"),
        ("SOC_SITE", "a" * 25),
        ("SOC_SMTP_HOST", "relay.example.org"),
        ("SOC_MAIL_TO", ","),
        ("SOC_TIME_ZONE", "Pacific/Vancouver"),
        ("SOC_LOG_LEVEL", "LOUD"),
        ("SOC_SMTP_SECURITY", "ssl"),
        ("SOC_MAIL_FROM", "nobody"),
        ("SOC_MAIL_TO", "a@health.internal,nobody"),
        ("SOC_MAIL_TO", "a@example.org"),
        ("SOC_WEB_MEMORY", "lots"),
        ("SOC_PIDS", "0"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str) -> None:
    problems = environment.problems_of(good_values() | {name: value})
    assert len(problems) == 1
    assert problems[0].startswith(name)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, good_values())
    path.chmod(0o640)
    assert any("can be read by others" in problem for problem in environment.problems_of_file(path))


def test_a_missing_file_says_how_to_create_it(tmp_path: Path) -> None:
    (problem,) = environment.problems_of_file(tmp_path / "vancouver.env")
    assert "make site SITE=vancouver" in problem


def test_a_file_of_another_site_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, good_values()).rename(tmp_path / "other.env")
    assert any("SOC_SITE is 'health'" in problem for problem in environment.problems_of_file(path))


@pytest.mark.parametrize("line", ['A="b"', "A=$HOME", "A=b # c", "A=it's"])
def test_syntax_that_compose_reads_otherwise_is_refused(line: str) -> None:
    assert environment.parse(line)[1]


def test_malformed_and_repeated_lines_are_named() -> None:
    _, problems = environment.parse("# fine\n\nSOC_SITE=a\nnonsense\nSOC_SITE=b\n")
    assert problems == [
        "line 4 is not NAME=value: 'nonsense'",
        "SOC_SITE is set twice (again in line 5)",
    ]


def test_a_process_refuses_unknown_variables_of_ours_only() -> None:
    environ = {**good_values(), "PATH": "/bin", "SOC_SERVICE": "web"}
    assert environment.of_process(environ)["SOC_SITE"] == "health"
    with pytest.raises(environment.EnvironmentProblem, match="SOC_TYPO is unknown"):
        environment.of_process({**environ, "SOC_TYPO": "1"})
