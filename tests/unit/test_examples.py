"""Every example of the documents runs, or is what the program takes: they are read by copying."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.contrib.auth.models import Permission, User
from django.core.management import get_commands, load_command_class
from django.test import Client

from harness import REPOSITORY
from soc.alerts.models import Alert, Rule
from soc.core import tokens
from soc.notify.channels.webhook import content
from soc.notify.models import OutboundMail

DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
DOCUMENTS += sorted((REPOSITORY / "docs").rglob("*.md"))
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples(language: str) -> list[Any]:
    """Return the examples in a language, each named after its document."""
    return [
        pytest.param(match[2], id=f"{path.name}-{number}")
        for path in DOCUMENTS
        for number, match in enumerate(FENCED.finditer(path.read_text(encoding="utf-8")))
        if match[1] == language
    ]


def example(document: str, start: str) -> str:
    """Return the one example of a document that begins so."""
    text = (REPOSITORY / "docs" / document).read_text(encoding="utf-8")
    (found,) = [match[2] for match in FENCED.finditer(text) if match[2].startswith(start)]
    return found


# --- Python -------------------------------------------------------------------------------------

ALONE = """
import django, sys, types
django.setup()
here = types.ModuleType("soc.logons.example")
here.INSTALLED_APPS = []
sys.modules[here.__name__] = here
exec(compile(sys.stdin.read(), "an example", "exec"), vars(here))
"""


@pytest.mark.parametrize("code", examples("python"))
def test_an_example_in_python_runs(code: str, db: None) -> None:
    if "engine.report(" in code:
        # It needs the rules of the database.
        exec(compile(code, "an example", "exec"), {})
        assert Alert.objects.get().subject.name in code
        return
    # A model of its own must not stay in this process.
    command = (sys.executable, "-c", ALONE)
    folder = REPOSITORY / "app"
    ran = subprocess.run(
        command, input=code, text=True, cwd=folder, env=os.environ, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


# --- Shell --------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    """Return the commands of an example as words, without comments, prompts and output."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    ours = [line for line in lines if "manage.py" in line or line.startswith("make ")]
    # A pipe or a redirection ends what is ours.
    return [shlex.split(re.split(r" [|<>] | && ", line)[0], comments=True) for line in ours]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=" ".join(words)[:60])
        for text in examples("sh")
        for words in commands(text.values[0])
        if words[0] != "make"
    ],
)
def test_a_management_command_takes_what_an_example_gives_it(words: list[str]) -> None:
    after = next(n for n, word in enumerate(words) if word.endswith("manage.py")) + 1
    name, *arguments = words[after:]
    command = load_command_class(get_commands()[name], name)
    # An argument that is wrong ends the program.
    command.create_parser("manage.py", name).parse_args(arguments)


def makefile_targets() -> set[str]:
    texts = [REPOSITORY / "Makefile", *(REPOSITORY / "docker").glob("*.mk")]
    found = set()
    for path in texts:
        for names in re.findall(r"^([\w%. -]+):(?!=)", path.read_text(), re.MULTILINE):
            found |= set(names.split())
    return found


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=" ".join(words)[:60])
        for text in examples("sh")
        for words in commands(text.values[0])
        if words[0] == "make"
    ],
)
def test_make_has_what_an_example_asks_for(words: list[str]) -> None:
    targets = [word for word in words[1:] if "=" not in word]
    assert set(targets) <= makefile_targets()


# --- Data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", examples("json"))
def test_json_of_an_example_is_json(text: str) -> None:
    json.loads(text)


@pytest.mark.parametrize("text", examples("yaml"))
def test_yaml_of_an_example_is_yaml(text: str) -> None:
    assert yaml.safe_load(text)


def test_a_webhook_has_the_fields_of_its_example() -> None:
    shown = json.loads(example("channels.md", '{"version"'))
    assert list(content(OutboundMail())) == list(shown)


@pytest.mark.django_db
def test_the_condition_of_the_example_is_answered_as_the_document_says() -> None:
    Rule.objects.create(application="backup", name="age", stale_after=10**9)
    user = User.objects.create_user("reporter")
    user.user_permissions.set(Permission.objects.filter(codename="report_condition"))
    client = Client(headers={"Authorization": f"Bearer {tokens.create('backup', user)}"})
    sent = re.search(r"-d '(.*)'", example("api.md", "curl"), re.DOTALL)
    assert sent
    answer = client.post("/api/v1/conditions", sent[1], "application/json", secure=True)
    shown = json.loads(example("api.md", '{"results"'))
    assert answer.status_code == 200, answer.content
    assert answer.json()["results"][0]["outcome"] == shown["results"][0]["outcome"]
    assert answer.json()["results"][0].keys() == shown["results"][0].keys()


@pytest.mark.django_db
def test_the_simulation_of_the_example_prints_what_the_document_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = example("api.md", "$ manage.py alerts simulate")
    (words,) = commands(text)
    command = load_command_class(get_commands()["alerts"], "alerts")
    command.run_from_argv(["manage.py", *words[1:]])
    shown = [line.split() for line in text.splitlines()[1:] if line]
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert printed == shown


def test_examples_are_found() -> None:
    assert len(examples("python")) >= 3
    assert len(examples("sh")) >= 10
    assert all(isinstance(path, Path) for path in DOCUMENTS)
