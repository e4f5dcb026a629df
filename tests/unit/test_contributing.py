"""The numbered lists of CONTRIBUTING.md lead to something that works: they are followed here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_new_application import run_tests

from harness import REPOSITORY, copy_tree
from skeleton import new

CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROOMS = ("app", "tests", "docs", "env", "docker", "configs")

WORKER = """  worker-demo:
    {<<: *worker, command: [python3, -m, soc.runtime.worker, demo],
     environment: {SOC_SERVICE: worker-demo},
     volumes: ["./env/${SOC_SITE}/worker-demo:/run/site:ro"]}

networks:
"""
CHANNEL = '''"""A channel of the test (its vendor's page)."""

from soc.notify.channels.http import HttpChannel, HttpTarget, Post, as_json
from soc.notify.models import OutboundMail


class DemoChannel(HttpChannel):
    """Posts the subject."""

    def post(self, mail: OutboundMail, target: HttpTarget) -> Post:
        """Return the subject."""
        return Post(target.url, as_json({"text": mail.subject}))
'''
DIALOGUE = '''async def _demo_dialogue(clear: ClearText) -> None:
    """Greeting and STARTTLS: the RFC that it follows."""
    await _reply(clear, "220")
    await clear.send(b"STARTTLS\\r\\n")
    await _reply(clear, "234")
    clear.finish()


'''
MIGRATE = """
import sys
sys.path[:0] = ["app", "tests"]
import shutil
from local_site import become_a_process_of_a_site
root = become_a_process_of_a_site()
from django.core.management import execute_from_command_line
try:
    execute_from_command_line(["manage.py", "makemigrations", "ssl_certs", "-n", "demo"])
finally:
    shutil.rmtree(root)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree with a new application."""
    copy = copy_tree(tmp_path / "copy")
    new.main("demo", copy)
    return copy


def edit(tree: Path, path: str, anchor: str, replacement: str) -> None:
    """Change a file that CONTRIBUTING.md names."""
    assert Path(path).name in CONTRIBUTING, f"CONTRIBUTING.md does not lead to {path}"
    text = (tree / path).read_text(encoding="utf-8")
    assert text.count(anchor) == 1, (path, anchor)
    (tree / path).write_text(text.replace(anchor, replacement), encoding="utf-8")


def add_queue(tree: Path) -> None:
    queues = "app/soc/runtime/queues.py"
    edit(tree, queues, '"events", "demo"', '"events"')
    own = 'QUEUES: tuple[Queue, ...] = (\n    Queue("demo", "counters", applications=("demo",)),\n'
    edit(tree, queues, "QUEUES: tuple[Queue, ...] = (\n", own)
    edit(tree, "compose.yaml", "\nnetworks:\n", WORKER)


def add_channel(tree: Path) -> None:
    channels = "app/soc/notify/channels/__init__.py"
    (tree / "app/soc/notify/channels/demo.py").write_text(CHANNEL, encoding="utf-8")
    line = '    Kind("demo", "Demo", "soc.notify.channels.demo.DemoChannel"),\n'
    edit(tree, channels, '    Kind("slack"', f'{line}    Kind("slack"')


def add_column(tree: Path) -> None:
    templates = tree / "app/soc/ssl_certs/templates/certificates"
    for name in ("list_live.html", "panel.html"):
        text = (templates / name).read_text(encoding="utf-8")
        head = '<th scope="col" class="extra">Scanned</th>'
        assert text.count(head) == 1
        (templates / name).write_text(text.replace(head, f'<th scope="col">Since</th>{head}'))
    row = templates / "row.html"
    text = row.read_text(encoding="utf-8")
    cell = '<td>{{ row.since|date:"j M" }}</td>\n  <td class="extra muted">'
    row.write_text(text.replace('<td class="extra muted">', cell))
    since = """    @property
    def since(self) -> datetime | None:
        \"\"\"Since when it has its status.\"\"\"
        return self.endpoint.status_since

    @property
    def bar("""
    edit(tree, "app/soc/ssl_certs/pages.py", "    @property\n    def bar(", since)


def add_protocol(tree: Path) -> None:
    targets, dialogues = "app/soc/ssl_certs/targets.py", "app/soc/ssl_certs/dialogues.py"
    edit(tree, targets, '    FTP = "ftp"\n', '    FTP = "ftp"\n    DEMO = "demo"\n')
    edit(tree, dialogues, "async def _reply(", f"{DIALOGUE}async def _reply(")
    table = "    StartTls.FTP: _ftp_dialogue,\n"
    edit(tree, dialogues, table, f"{table}    StartTls.DEMO: _demo_dialogue,\n")
    leave = '    StartTls.FTP: farewells.saying(b"QUIT\\r\\n"),\n'
    edit(tree, dialogues, leave, f"{leave}    StartTls.DEMO: farewells.saying(b'QUIT\\r\\n'),\n")
    label = '        FTP = Protocol.FTP.value, "FTP AUTH TLS"\n'
    own = f'{label}        DEMO = Protocol.DEMO.value, "Demo STARTTLS"\n'
    edit(tree, "app/soc/ssl_certs/models.py", label, own)
    tests = "tests/unit/ssl_certs/test_starttls_dialogues.py"
    agreement = (
        '    StartTls.DEMO: [(b"", b"220 hi\\r\\n"), (b"STARTTLS\\r\\n", b"234 go\\r\\n")],\n'
    )
    edit(tree, tests, "    StartTls.LDAP: [(LDAP_REQUEST, LDAP_SUCCESS)],\n",
         f"    StartTls.LDAP: [(LDAP_REQUEST, LDAP_SUCCESS)],\n{agreement}")  # fmt: skip
    farewell = '    (StartTls.FTP, [(b"QUIT\\r\\n", b"221 bye\\r\\n")]),\n'
    edit(tree, tests, farewell, farewell + farewell.replace("FTP", "DEMO"))
    subprocess.run((sys.executable, "-c", MIGRATE), cwd=tree, check=True, capture_output=True)


def list_migrations(tree: Path) -> None:
    listed = tree / "tests/unit/core/migrations.sha256"
    name = next((tree / "app/soc/ssl_certs/migrations").glob("*_demo.py")).relative_to(tree)
    done = subprocess.run(("sha256sum", str(name)), cwd=tree, capture_output=True, check=True)
    listed.write_bytes(listed.read_bytes() + done.stdout)


def test_the_lists_lead_to_what_works(tree: Path) -> None:
    add_queue(tree)
    add_channel(tree)
    add_column(tree)
    add_protocol(tree)
    list_migrations(tree)
    run_tests(
        tree,
        *("test_contracts.py", "test_applications.py", "demo", "notify/test_channels.py"),
        *("ssl_certs/test_starttls_dialogues.py", "ssl_certs/test_certificate_pages.py"),
    )


def test_every_place_that_is_named_exists() -> None:
    places = re.findall(r"`([\w./-]+/[\w./-]*)`", CONTRIBUTING)
    ours = [place for place in places if place.split("/")[0] in ROOMS and "<" not in place]
    assert len(ours) > 15
    assert [place for place in ours if not (REPOSITORY / place).exists()] == []
