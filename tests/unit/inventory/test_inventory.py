"""Lists of what is to be watched: read, compared, written once, and never deleted from."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

import pki
from mailing import Clock
from soc.alerts.models import OPEN, Alert
from soc.events.models import Bot, BotAlias, Site
from soc.inventory import importing, reading
from soc.inventory.models import InventoryKind, InventoryObject, InventoryRun, InventorySource
from soc.inventory.reading import SourceProblem
from soc.inventory.targets import compare, target_of
from soc.ldap_probe.models import DirectoryServer
from soc.ssl_certs.models import Endpoint
from soc.trust.models import Authority

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

Mode = InventorySource.Mode
WRITES = ("INSERT", "UPDATE", "DELETE")


class InventoryServer(ThreadingHTTPServer):
    """Serves lists by their paths, pages of NetBox's under /api/, to whom has the token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Any] = {}
        self.next_host = ""
        self.count = 0
        self.asked = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: InventoryServer

    def do_GET(self) -> None:
        self.server.asked += 1
        parts = urlsplit(self.path)
        answer = self.server.answers.get(parts.path)
        allowed = self.headers["Authorization"] == "Token 0123"
        if answer is None or not allowed:
            self.send_error(404 if allowed else 403)
            return
        if parts.path.startswith("/api/"):
            answer = self._page(answer, parse_qs(parts.query), parts.path)
        body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _page(self, rows: list[Any], query: dict[str, list[str]], path: str) -> dict[str, Any]:
        start = int(query.get("offset", ["0"])[0])
        rest = start + 500 < len(rows)
        address = f"{self.server.next_host or self.server.url}{path}?limit=500&offset={start + 500}"
        return {
            "count": self.server.count or len(rows),
            "next": address if rest else None,
            "previous": None,
            "results": rows[start : start + 500],
        }

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def authority() -> pki.Issued:
    return pki.issue("the inventory's CA", ca=True)


@pytest.fixture
def server(authority: pki.Issued, tmp_path: Path) -> Iterator[InventoryServer]:
    leaf = pki.issue("127.0.0.1", authority, san=["127.0.0.1"])
    (tmp_path / "leaf.pem").write_bytes(leaf.key_pem + leaf.cert_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "leaf.pem")
    made = InventoryServer()
    made.socket = context.wrap_socket(made.socket, server_side=True)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def source(
    server: InventoryServer, authority: pki.Issued, path: str, kind: str, **values: Any
) -> InventorySource:
    ca, _ = Authority.objects.get_or_create(
        name="inventory", defaults={"pem": authority.cert_pem.decode()}
    )
    return InventorySource.objects.create(
        **{
            "name": f"{kind} of {path}",
            "kind": kind,
            "url": server.url + path,
            "authorization": "Token 0123",
            "authority": ca,
            "enabled": True,
        }
        | values
    )


def devices(count: int) -> list[dict[str, Any]]:
    """Return devices as NetBox has them."""
    return [
        {
            "id": n,
            "name": f"ROBOT{n:04}",
            "site": {"id": n % 40, "name": f"Site {n % 40}", "slug": f"site-{n % 40}"},
            "status": {"value": "active", "label": "Active"},
            "description": "checks mail",
        }
        for n in range(count)
    ]


def run(one: InventorySource, clock: Clock, mode: Mode = Mode.IMPORT) -> InventoryRun:
    clock.move(minutes=1)
    importing.ask(one, mode)
    importing.run_due()
    return one.runs.latest("at")


def counts(run: InventoryRun) -> tuple[str, int, int, int, int, int]:
    return (run.outcome, run.created, run.changed, run.same, run.missing, run.wrong)


def alerts() -> list[str]:
    return [f"{alert.rule.name}: {alert.subject.name}" for alert in Alert.objects.filter(OPEN)]


def test_2000_objects_imported_twice_change_nothing_the_second_time(
    server: InventoryServer, authority: pki.Issued, clock: Clock
) -> None:
    server.answers["/api/dcim/devices/"] = devices(2000)
    path = "/api/dcim/devices/"
    one = source(server, authority, f"{path}?limit=500", "robots", shape="netbox")
    assert counts(run(one, clock)) == ("done", 2000, 0, 0, 0, 0)
    assert server.asked == 4
    assert (Bot.objects.count(), Site.objects.count()) == (2000, 40)
    assert Bot.objects.get(host="robot0041").site == Site.objects.get(name="Site 1")

    before = list(Bot.objects.order_by("pk").values())
    with CaptureQueriesContext(
        connection,
    ) as asked:
        second = run(one, clock)
    assert counts(second) == ("done", 0, 0, 2000, 0, 0)
    assert list(Bot.objects.order_by("pk").values()) == before
    written = [
        q["sql"].split('"')[1] for q in asked.captured_queries if q["sql"].startswith(WRITES)
    ]
    bookkeeping = {"inventory_inventorysource", "inventory_inventoryrun"}
    objects = [table for table in written if table not in bookkeeping]
    # What the conditions note of the source as a target.
    assert [table for table in objects if not table.startswith("alerts_")] == []
    print(f"writes of the second run: {len(objects)} to objects' tables, {len(written)} in all")


def test_the_cost_of_a_comparison_does_not_depend_on_the_rows(
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    rows = [{"host": f"r{n}", "site": f"site {n % 5}"} for n in range(50)]
    importing.write(compare("robots", rows))
    with django_assert_max_num_queries(3):
        assert {line.action for line in compare("robots", rows)} == {"same"}


def test_many_changes_are_written_by_several_runs(
    server: InventoryServer, authority: pki.Issued, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MOST_CHANGED", 30)
    server.answers["/robots"] = [{"host": f"r{n}"} for n in range(50)]
    one = source(server, authority, "/robots", "robots")
    run(one, clock)
    server.answers["/robots"] = [{"host": f"r{n}", "notes": "moved"} for n in range(50)]
    first = run(one, clock, Mode.ACCEPT)
    assert InventorySource.objects.get().requested == Mode.IMPORT
    assert (first.changed, first.detail) == (30, "20 more changes follow at once.")
    clock.move(seconds=30)
    importing.run_due()
    assert one.runs.latest("at").changed == 20
    assert Bot.objects.filter(notes="moved").count() == 50
    assert InventorySource.objects.get().requested == ""


def test_half_a_list_raises_a_question_and_deletes_nothing(
    server: InventoryServer, authority: pki.Issued, clock: Clock
) -> None:
    server.answers["/robots"] = [{"host": f"r{n}", "site": "north"} for n in range(100)]
    one = source(server, authority, "/robots", "robots")
    assert counts(run(one, clock)) == ("done", 100, 0, 0, 0, 0)

    half = [{"host": f"r{n}", "site": "south"} for n in range(50)]
    server.answers["/robots"] = [*half, {"host": "new", "site": "south"}]
    asked = run(one, clock)
    assert counts(asked) == ("question", 1, 50, 0, 50, 0)
    assert "50 of 100 objects are missing: nothing was written" in asked.detail
    assert alerts() == [f"missing: {one.name}"]
    assert Bot.objects.filter(site__name="north").count() == 100
    assert not Bot.objects.filter(host="new").exists()
    assert not InventoryObject.objects.exclude(missing_since=None).exists()

    assert counts(run(one, clock, Mode.ACCEPT)) == ("done", 1, 50, 0, 50, 0)
    assert alerts() == []
    assert Bot.objects.filter(enabled=True).count() == 101, "what is missing is still watched"
    assert InventoryObject.objects.exclude(missing_since=None).count() == 50
    assert counts(run(one, clock)) == ("done", 0, 0, 51, 0, 0)

    server.answers["/robots"] = [{"host": f"r{n}", "site": "north"} for n in range(100)]
    assert run(one, clock).outcome == "done"
    assert list(InventoryObject.objects.exclude(missing_since=None)) == [
        InventoryObject.objects.get(key="new")
    ], "what comes back is missing no more; one of 101 asks nobody"


def test_an_empty_list_asks_too(
    server: InventoryServer, authority: pki.Issued, clock: Clock
) -> None:
    server.answers["/robots"] = [{"host": "r1"}]
    one = source(server, authority, "/robots", "robots")
    run(one, clock)
    server.answers["/robots"] = []
    assert run(one, clock).outcome == "question"
    assert Bot.objects.count() == 1


def test_a_dry_run_writes_nothing_and_shows_what_would_be(
    server: InventoryServer, authority: pki.Issued, clock: Clock, browser: Client
) -> None:
    server.answers["/robots"] = [{"host": "r1"}, {"host": "r2", "expected_minutes": "soon"}]
    one = source(server, authority, "/robots", "robots", enabled=False)
    path = reverse("inventory-run", args=[one.pk])
    assert browser.post(path, {"mode": "dry"}, secure=True).status_code == 302
    importing.run_due()
    done = one.runs.get()
    assert counts(done) == ("done", 1, 0, 0, 0, 1)
    assert Bot.objects.count() == 0
    assert alerts() == []
    page = browser.get(one.get_absolute_url(), secure=True).content.decode()
    for words in ("r1", "created", "r2", "expected_minutes: “soon” value must be an integer."):
        assert words in page
    assert "Import now" in page
    assert "1 inventory source" in browser.get(reverse("inventory"), secure=True).content.decode()
    clock.move(days=2)
    importing.run_due()
    assert one.runs.count() == 1, "without being enabled it imports nothing by itself"


def test_each_kind_of_object_is_made_and_changed(db: None) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "locations": [{"name": "north", "time_zone": "Europe/Oslo"}],
        "robots": [{"host": "R1", "site": "north", "expected_minutes": 15}],
        "endpoints": [{"host": "Www.example.org", "port": "8443", "interval_minutes": 30}],
        "directories": [{"host": "dc1.example.org", "port": 636, "security": "ldaps"}],
    }
    for kind, first in rows.items():
        lines = compare(kind, first)
        assert [line.action for line in lines] == ["created"], lines
        importing.write(lines)
        assert [line.action for line in compare(kind, first)] == ["same"]
        lines = compare(kind, [{**first[0], "notes": "moved"}])
        assert [(line.action, line.said) for line in lines] == [("changed", "notes")]
        importing.write(lines)
    robot = Bot.objects.get()
    assert (robot.host, str(robot.site), robot.expected_minutes) == ("r1", "north", 15)
    assert (robot.notes, Site.objects.get().notes) == ("moved", "moved")
    assert str(Endpoint.objects.get()) == "www.example.org:8443"
    assert DirectoryServer.objects.get().notes == "moved"


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("robots", {"site": "north"}, "It has no host."),
        ("robots", {"host": "r", "owner": "me"}, "Unknown fields: owner."),
        ("robots", {"host": "r", "expected_minutes": "0"}, "expected_minutes: Ensure this value"),
        ("locations", {"name": "n", "time_zone": "Mars"}, "There is no time zone 'Mars'."),
        ("endpoints", {"host": "a b"}, "Invalid host name 'a b'"),
        ("endpoints", {"host": "a", "port": "70000"}, "port: Ensure this value"),
        ("endpoints", {"host": "a", "group": "none"}, "group: there is no 'none'"),
        ("directories", {"host": "a", "security": "tls"}, "security: Value 'tls' is not"),
    ],
)
def test_what_is_wrong_is_said(kind: str, row: dict[str, str], words: str) -> None:
    (line,) = compare(kind, [row])
    assert line.action == "wrong"
    assert words in line.said


def test_a_robot_is_known_by_its_aliases_and_once(db: None) -> None:
    bot = Bot.objects.create(host="dual")
    BotAlias.objects.create(name="dual.site.example", bot=bot)
    rows = [{"host": "DUAL.site.example"}, {"host": "dual"}]
    lines = compare("robots", rows)
    assert [(line.key, line.action) for line in lines] == [("dual", "same"), ("dual", "wrong")]


def test_a_mapping_finds_values_and_has_constants(
    server: InventoryServer, authority: pki.Issued, clock: Clock
) -> None:
    server.answers["/cmdb"] = {"data": {"hosts": [{"fqdn": ["web.example.org"], "owner": "x"}]}}
    mapping = {"host": "fqdn.0", "port": "=8443", "notes": "text.long"}
    one = source(server, authority, "/cmdb", "endpoints", items="data.hosts", mapping=mapping)
    assert counts(run(one, clock)) == ("done", 1, 0, 0, 0, 0)
    assert str(Endpoint.objects.get()) == "web.example.org:8443"


def test_every_kind_has_an_application_and_netbox_names_its_fields() -> None:
    for kind in InventoryKind:
        target = target_of(kind)
        assert set(reading.NETBOX[kind]) <= set(target.columns)
        for name in target.columns:
            target.model._meta.get_field(name)


def test_csv_is_read_with_commas_or_semicolons() -> None:
    for text in ("host,site\nr1,north\n", "host;site\r\nr1;north\r\n\r\n"):
        assert reading.parse(text) == [{"host": "r1", "site": "north"}]


def test_what_a_source_does_is_reported(
    server: InventoryServer, authority: pki.Issued, clock: Clock
) -> None:
    path = "/api/dcim/devices/"
    one = source(server, authority, path, "robots", shape="netbox")
    assert "answered 404" in run(one, clock).detail
    assert alerts() == [f"source: {one.name}"]
    server.answers[path] = devices(3)
    server.count = 7
    assert "It counts 7 objects and has sent 3." in run(one, clock).detail
    server.count = 0
    assert run(one, clock).outcome == "done"
    assert alerts() == []
    InventorySource.objects.update(authorization="Token wrong")
    assert "answered 403" in run(one, clock).detail
    one = InventorySource.objects.get()
    one.enabled = False
    one.save()
    assert alerts() == []


def test_the_secret_goes_to_no_other_server(
    server: InventoryServer, authority: pki.Issued, clock: Clock
) -> None:
    server.answers["/api/dcim/devices/"] = devices(600)
    server.next_host = "https://elsewhere.example"
    one = source(server, authority, "/api/dcim/devices/", "robots", shape="netbox")
    assert "is elsewhere and is not followed" in run(one, clock).detail
    assert Bot.objects.count() == 0


def test_the_command_imports_a_file_all_or_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "robots.csv"
    table.write_text("host,site,expected_minutes\nr1,north,15\nr2,north,\n")
    call_command("inventory", "import", "robots", str(table), "--dry-run")
    assert "This would import: 2 created, 0 changed, 0 same." in capsys.readouterr().out
    assert Bot.objects.count() == 0
    call_command("inventory", "import", "robots", str(table))
    assert "Imported: 2 created, 0 changed, 0 same." in capsys.readouterr().out
    assert Bot.objects.get(host="r2").expected_minutes is None
    table.write_text("host,expected_minutes\nr3,15\nr4,soon\n")
    with pytest.raises(CommandError, match="Nothing is imported: 1 of 2 lines are wrong"):
        call_command("inventory", "import", "robots", str(table))
    assert Bot.objects.count() == 2


def test_a_document_without_a_list_says_what_to_set() -> None:
    with pytest.raises(SourceProblem, match="set the path of the list"):
        reading.parse('{"data": []}')


def test_only_who_may_runs_a_source(
    server: InventoryServer, authority: pki.Issued, browser: Client
) -> None:
    one = source(server, authority, "/robots", "robots")
    path = reverse("inventory-run", args=[one.pk])
    assert Client().post(path, {"mode": "dry"}, secure=True).status_code == 302
    assert browser.post(path, {"mode": "all"}, secure=True).status_code == 400
    one.refresh_from_db()
    assert one.requested == ""
