"""Real sites, made from a copy of this tree and driven as an operator would."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import http.cookiejar
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import pytest

from interpreter import Interpreter
from soc.provision import environment
from soc.runtime.queues import queue_of

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT_OF_A_TEST = re.compile(r"soc-t-[0-9a-f]{8}")
LONGER_THAN_A_RUN = dt.timedelta(hours=2)
T = TypeVar("T")


def run(*command: str, stdin: str = "", check: bool = True, **options: Any) -> str:
    """Run a command and return what it printed, with its errors unless they go to a `PIPE`.

    A failure shows all of it.
    """
    result = subprocess.run(
        command,
        input=stdin,
        text=True,
        stdout=subprocess.PIPE,
        timeout=900,
        env=_clean_environment(),
        **{"stderr": subprocess.STDOUT, **options},
    )
    if check and result.returncode != 0:
        raise AssertionError(
            f"{' '.join(command)} ended with {result.returncode}:\n"
            f"{result.stdout}{result.stderr or ''}"
        )
    return result.stdout


def _clean_environment() -> dict[str, str]:
    """Return the environment without the tests' own site and a surrounding make's options."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in environment.BY_NAME
        and not name.startswith(("SOC_", "MAKE", "MFLAGS"))
        and name not in ("SITE", "STACK", "PYTHON")
    }


def wait_for(what: str, probe: Callable[[], T], seconds: float = 60) -> T:
    """Ask until the answer is true; the last one is part of the error."""
    end = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {seconds} s: {answer!r}")
        time.sleep(0.5)
    return answer


def wait_until_equal(what: str, probe: Callable[[], T], expected: T, seconds: float = 60) -> None:
    """Ask until the answer is the expected one; the last one is part of the error."""
    answers: list[T] = []

    def arrived() -> bool:
        answers[:] = [probe()]
        return answers[0] == expected

    try:
        wait_for(what, arrived, seconds)
    except AssertionError as error:
        raise AssertionError(f"{what}: {answers[0]!r} is not {expected!r}") from error


def tracked_files() -> list[str]:
    """Return what git would clone: the tracked files and the new ones that are not ignored."""
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=REPOSITORY)
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def copy_tree(folder: Path) -> Path:
    """Copy what git would clone; two trees tested on one engine never build the same image tag."""
    for name in tracked_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, folder / name)
    example = folder / "env" / "example.env"
    tag = f"soc-app:test-{zlib.crc32(bytes(REPOSITORY)):08x}"
    example.write_text(re.sub(r"(?m)^APP_IMAGE=.*$", f"APP_IMAGE={tag}", example.read_text()))
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def new_name() -> str:
    """Return a site's name that no person has given and no other run of the tests uses."""
    return f"t-{secrets.token_hex(4)}"


@dataclass
class Site:
    """One site of its own name, project and ports."""

    folder: Path
    site: str
    web_port: int = field(default_factory=free_port)
    flower_port: int = field(default_factory=free_port)

    kind: ClassVar[str]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.web_port}"

    @property
    def flower_url(self) -> str:
        return f"https://localhost:{self.flower_port}"

    @property
    def env_file(self) -> Path:
        return self.folder / "env" / f"{self.site}.env"

    def secret(self, service: str, name: str) -> str:
        return (self.folder / "env" / self.site / service / name).read_text()

    def make(self, *arguments: str, check: bool = True) -> str:
        options = (f"STACK={self.kind}", f"SITE={self.site}")
        return run("make", *options, *arguments, cwd=self.folder, check=check)

    def create(self, **values: str) -> None:
        """Create the site as a real one with a relay: its catcher, unless ``values`` says else."""
        self.make("site")
        self.set(
            COMPOSE_PROFILES="catcher",
            SOC_MAIL_FROM="soc@health.internal",
            SOC_MAIL_TO="operations@health.internal",
            SOC_WEB_PORT=str(self.web_port),
            SOC_FLOWER_PORT=str(self.flower_port),
            **values,
        )

    def set(self, **values: str) -> None:
        text = self.env_file.read_text()
        for name, value in values.items():
            text, found = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
            assert found == 1, name
        self.env_file.write_text(text)

    def browser(self) -> Browser:
        return Browser(self)

    def flower(
        self, path: str, form: dict[str, str] | None = None, *, user: str = "admin"
    ) -> tuple[int, str]:
        """Return status and body of a page of Flower; without a user, as a stranger."""
        login = base64.b64encode(f"{user}:{self.secret('flower', 'password')}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"} if user else {}
        status, _, body = self.browser().open(path, form, base=self.flower_url, headers=headers)
        return status, body


@dataclass
class Stack(Site):
    """A site in containers."""

    interpreters: dict[str, Interpreter] = field(default_factory=dict, repr=False)

    kind = "containers"

    @property
    def project(self) -> str:
        return f"soc-{self.site}"

    def compose(self, *arguments: str, **options: Any) -> str:
        stack = "docker/containers/stack"
        return run(stack, "compose", self.site, *arguments, cwd=self.folder, **options)

    def start(self, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        """Start a Compose command that is talked to while it runs; what it prints is dropped."""
        return subprocess.Popen(
            ["docker/containers/stack", "compose", self.site, *arguments],
            cwd=self.folder,
            env=_clean_environment(),
            text=True,
            **{"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, **streams},
        )

    def create(self, **values: str) -> None:
        relay = {"SOC_SMTP_HOST": "catcher", "SOC_SMTP_PORT": "2525"}
        super().create(SOC_MAIL_PER_MINUTE="6000", **relay | values)

    def remove(self) -> None:
        """Take the site down with its volumes, whatever is left of it."""
        remove_project(self.project)

    def secret(self, service: str, name: str) -> str:
        """Read a service's file as root, because it belongs to the id of the containers."""
        image = environment.parse(self.env_file.read_text())[0]["APP_IMAGE"]
        return _read_as_root(image, str(self.folder / "env" / self.site / service), name)

    def container(self, service: str, index: int = 1) -> str:
        return f"{self.project}-{service}-{index}"

    def inspect(self, service: str, index: int = 1) -> dict[str, Any]:
        return json.loads(run("docker", "inspect", self.container(service, index)))[0]

    def health(self, service: str, index: int = 1) -> str:
        return self.inspect(service, index)["State"]["Health"]["Status"]

    def services(self) -> list[str]:
        return self.compose("ps", "--services").split()

    def exec(self, service: str, *command: str, **options: Any) -> str:
        return self.compose("exec", "-T", service, *command, **options)

    def python(self, service: str, code: str) -> str:
        """Run Python code in a service's container, with Django ready; return what it prints.

        What it logs is only part of a failure: the two streams would arrive in any order.
        """
        if service not in self.interpreters:
            settings = ("env", "DJANGO_SETTINGS_MODULE=soc.settings")
            start = functools.partial(self.start, "exec", "-T", service, *settings)
            self.interpreters[service] = Interpreter(start)
        return self.interpreters[service].run(code)

    def python_beside(self, service: str, code: str, *options: str) -> str:
        """Run Python code as `python` does, in a container of its own with a service's identity."""
        return self.compose(
            *("run", "--rm", "--no-deps", "-T", *options, service),
            *("env", "DJANGO_SETTINGS_MODULE=soc.settings", "python3", "-"),
            stdin="import django; django.setup()\n" + code,
            stderr=subprocess.PIPE,
        )

    def data(self, code: str) -> Any:
        """Run Python code in the web container that sets `answer`; return it."""
        printed = self.python("web", f"import json\n{code}\nprint(json.dumps(answer, default=str))")
        return json.loads(printed.strip().splitlines()[-1])

    def run_task(self, task: str) -> None:
        """Have its worker run a task without arguments, and wait until it has succeeded."""
        module, _, function = task.rpartition(".")
        code = f"from {module} import {function}\nprint({function}.apply_async().id)"
        printed = self.python(queue_of(task).service, code)
        key = printed.strip().splitlines()[-1]
        wait_for(task, lambda: '"SUCCESS"' in self.flower(f"/api/task/info/{key}")[1])

    def queues(self, virtual_host: str = "/") -> dict[str, dict[str, int]]:
        """What the broker itself says of its queues."""
        listed = self.exec(
            "rabbitmq", "rabbitmqctl", "-q", "--formatter=json", "--vhost", virtual_host,
            "list_queues", "name", "messages", "consumers",
        )  # fmt: skip
        return {queue["name"]: queue for queue in json.loads(listed)}

    def dead_letters(self, queue: str) -> int:
        """Count how often a task's message has become a dead letter of a queue."""
        code = f"""
from django.db.models import Sum
from soc.runtime.celery import app
from soc.core import dead_letters
from soc.core.models import DeadTask
dead_letters.collect(app)
print(DeadTask.objects.filter(queue={queue!r}).aggregate(n=Sum("times"))["n"] or 0)
"""
        return int(self.python("worker-shared", code).strip().splitlines()[-1])

    def mail(self) -> list[dict[str, str]]:
        """The mails in the catcher, headers and text."""
        shown = self.exec("catcher", "python3", "-m", "soc.notify.catcher", "show")
        mails = []
        for part in shown.split(f"{'-' * 78}\n")[:-1]:
            head, _, text = part.partition("\n\n")
            headers = dict(line.split(": ", 1) for line in head.splitlines())
            mails.append(headers | {"text": text})
        return mails


class Browser:
    """A web client with cookies that verifies the site's certificate."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cookies = http.cookiejar.CookieJar()
        authority = site.folder / "env" / site.site / "ca" / "ca.pem"
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority)),
            urllib.request.HTTPCookieProcessor(self.cookies),
        )

    def open(
        self,
        path: str,
        form: dict[str, Any] | None = None,
        base: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """Return status, final URL and body."""
        base = base or self.site.url
        data = urllib.parse.urlencode(form, doseq=True).encode() if form is not None else None
        request = urllib.request.Request(
            base + path, data, {"Referer": base + path, **(headers or {})}
        )
        try:
            with self.opener.open(request, timeout=20) as answer:
                return answer.status, answer.url, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.url, error.read().decode(errors="replace")

    def token(self, path: str) -> str:
        _, _, body = self.open(path)
        match = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', body)
        assert match, body[:500]
        return match[1]

    def post(self, path: str, **form: Any) -> tuple[int, str, str]:
        return self.open(path, {"csrfmiddlewaretoken": self.token(path), **form})

    def sign_in(self, password: str) -> tuple[int, str, str]:
        return self.post("/sign-in/?next=/", username="admin", password=password)


@functools.cache
def _read_as_root(image: str, folder: str, name: str) -> str:
    return run(
        "docker", "run", "--rm", "--user=0:0", "--network=none", "--cap-drop=ALL",
        "--cap-add=DAC_OVERRIDE", f"--volume={folder}:/service:ro", image,
        "cat", f"/service/{name}",
    )  # fmt: skip


def remove_project(project: str) -> None:
    """Remove everything of a Compose project, and the containers that tests put beside it."""
    beside = run("docker", "ps", "--all", "--quiet", f"--filter=name=^{project}-").split()
    if beside:
        run("docker", "rm", "--force", *beside, check=False)
    run(
        "docker", "compose", "-p", project, "--profile", "*", "down",
        "--volumes", "--remove-orphans", check=False,
    )  # fmt: skip


def remove_leftovers() -> None:
    """Remove the projects of runs that were killed; a younger one may be another run's."""
    oldest = dt.datetime.now(dt.UTC) - LONGER_THAN_A_RUN
    for line in run("docker", "network", "ls", "--format={{.Name}} {{.CreatedAt}}").splitlines():
        name, date, clock, offset, _ = line.split()
        project = name.rpartition("_")[0]
        created = dt.datetime.fromisoformat(f"{date} {clock[:8]}{offset}")
        if PROJECT_OF_A_TEST.fullmatch(project) and created < oldest:
            remove_project(project)


def has_image(image: str) -> bool:
    """Whether the engine holds an image."""
    inspect = ["docker", "image", "inspect", image]
    return subprocess.run(inspect, capture_output=True, check=False).returncode == 0


def build_servers(folder: Path, base: str) -> str:
    """Build the image of a folder with packages of Debian; without a mirror the test is skipped."""
    built = run(
        "docker", "build", "--quiet", "--network=host", f"--build-arg=BASE={base}", str(folder),
        check=False,
    ).strip()  # fmt: skip
    image = built.splitlines()[-1]
    if not image.startswith("sha256:"):
        missing(f"the servers' image cannot be built: {image}")
    return image


def has_engine() -> bool:
    """Whether a Docker engine answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def missing(what: str) -> NoReturn:
    """Skip a test for want of something, or fail it where everything is required."""
    if os.environ.get("REQUIRE") == "all":
        pytest.fail(f"{what}, and REQUIRE=all")
    pytest.skip(what)


def html_of(answer: Any) -> str:
    """Return the HTML of an answer as browsers read it, where a line feed is a blank."""
    return " ".join(answer.content.decode().split())
