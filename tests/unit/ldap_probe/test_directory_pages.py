"""The pages of the directory servers: what they show, to whom, and that their cost is fixed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import timedelta
from typing import Any

import pytest
from answering import DOWN, REFUSED, Directory, another_round, credential, server
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from harness import html_of
from soc.ldap_probe import lists, pictures
from soc.ldap_probe.diagnostics import Phase
from soc.ldap_probe.models import DirectoryServer, ProbeResult, Profile, State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

PAGES = ("/directories/", "/directories/live/", "/directories/compare/?site=Oslo")


def member_of(group: str) -> Client:
    user = User.objects.create_user(f"a member of {group}")
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


def shown(client: Client, path: str) -> str:
    answer = client.get(path, secure=True)
    assert answer.status_code == 200, (path, answer.status_code)
    return html_of(answer)


def with_history(count: int, probes: int = 40) -> list[DirectoryServer]:
    """Servers of a site with probes of the last hours, every tenth of them a failure."""
    now = timezone.now()
    servers = DirectoryServer.objects.bulk_create(
        DirectoryServer(host=f"dc{n:03}", site="Oslo", state=State.OK, recent=[5.0, None, 7.0])
        for n in range(count)
    )
    ProbeResult.objects.bulk_create(
        ProbeResult(
            server=one,
            at=now - timedelta(minutes=5 * n),
            outcome="ok" if n % 10 else "down",
            error="" if n % 10 else "connect_refused",
            resolve_ms=1,
            connect_ms=2 + number,
            tls_ms=5,
            search_ms=3,
        )
        for number, one in enumerate(servers)
        for n in range(probes)
    )
    return servers


def test_the_list_shows_the_worst_first_with_their_last_probes(
    browser: Client, directory: Directory
) -> None:
    directory.says = {"down": DOWN}
    server("well", site="Oslo")
    server("down", site="Oslo")
    another_round()
    page = shown(browser, "/directories/")
    assert "2 directory servers, 1 failing" in page
    assert re.findall(r'id="server-\d+" href="[^"]+">([^<]+)<', page) == ["down:636", "well:636"]
    assert 'aria-label="the last 1 probes: at most 0 ms, 1 not answered"' in page
    assert 'aria-label="the last 1 probes: at most 11 ms"' in page


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("site=Oslo", ["a:636"]),
        ("group=people", ["b:636"]),
        ("q=osl+a", ["a:636"]),
        ("state=unknown", ["a:636", "b:636"]),
        ("state=nonsense", []),
        ("credential=x", []),
        ("credential=99999999999999999999", []),
        ("page=77", ["a:636", "b:636"]),
    ],
)
def test_the_list_can_be_narrowed(browser: Client, query: str, expected: list[str]) -> None:
    server("a", site="Oslo")
    server("b", group="people")
    page = shown(browser, f"/directories/?{query}")
    assert sorted(re.findall(r'id="server-\d+" href="[^"]+">([^<]+)<', page)) == expected


def test_the_alert_of_a_credential_leads_to_its_servers(
    browser: Client, directory: Directory
) -> None:
    one = server("dc1", credential=credential())
    server("dc2")
    directory.says = {"dc1": REFUSED}
    another_round()
    page = shown(browser, f"/directories/?credential={one.credential_id}")
    assert "dc1:636" in page
    assert "dc2:636" not in page


def test_a_servers_page_shows_every_phase_and_its_failures(browser: Client) -> None:
    (one,) = with_history(1)
    page = shown(browser, f"/directories/{one.pk}/")
    assert "<b>90 %</b> of 40 probes answered" in page
    for label, usual in (("Resolve", "1.0"), ("Connect", "2.0"), ("TLS", "5.0"), ("Search", "3.0")):
        assert f"{label}: usually {usual} ms" in page
    # An anonymous server has no bind.
    assert "Bind: usually" not in page
    assert "<dt>connect_refused</dt><dd>4</dd>" in page


def test_the_servers_of_a_site_stand_side_by_side_the_slowest_first(browser: Client) -> None:
    with_history(3)
    server("elsewhere", site="Vancouver")
    page = shown(browser, "/directories/compare/?site=Oslo")
    assert re.findall(r">(dc\d+:636)<", page) == ["dc002:636", "dc001:636", "dc000:636"]
    assert "elsewhere" not in page
    assert "<b>13.0 ms</b>" in page


@pytest.mark.parametrize("path", [*PAGES, "/directories/{key}/", "/directories/{key}/?hours=336"])
def test_a_page_costs_the_same_for_one_server_and_for_many(
    browser: Client, path: str, django_assert_max_num_queries: Any
) -> None:
    servers = with_history(60)
    with django_assert_max_num_queries(12):
        shown(browser, path.format(key=servers[0].pk))


@pytest.mark.parametrize("group", ["Viewers", "Operators"])
def test_viewers_and_operators_see_the_pages(group: str) -> None:
    (one,) = with_history(1)
    client = member_of(group)
    for path in (*PAGES, f"/directories/{one.pk}/", f"/directories/{one.pk}/live/"):
        shown(client, path)


def test_who_may_not_see_them_does_not() -> None:
    (one,) = with_history(1)
    client = member_of("Reporters")
    for path in (*PAGES, f"/directories/{one.pk}/", "/directories/import/"):
        assert client.get(path, secure=True).status_code == 403


def test_only_operators_have_a_server_probed_and_only_by_post() -> None:
    one = server("dc1")
    DirectoryServer.objects.update(next_probe_at=timezone.now() + timedelta(hours=1))
    path = f"/directories/{one.pk}/probe/"
    assert member_of("Viewers").post(path, secure=True).status_code == 403
    operator = member_of("Operators")
    assert operator.get(path, secure=True).status_code == 405
    assert operator.post(path, secure=True).status_code == 302
    assert DirectoryServer.objects.get().next_probe_at <= timezone.now()


def test_what_a_server_says_is_shown_as_text(browser: Client) -> None:
    words = "<script>alert(1)</script>"
    one = server("dc1", site=words, detail=words, notes=words)
    ProbeResult.objects.create(server=one, outcome="down", error="x", detail=words)
    for path in ("/directories/", f"/directories/{one.pk}/", f"/directories/compare/?site={words}"):
        assert words not in shown(browser, path)


def test_the_pages_hold_neither_inline_script_nor_style(browser: Client) -> None:
    (one,) = with_history(1)
    for path in (*PAGES, f"/directories/{one.pk}/", "/directories/import/"):
        page = shown(browser, path)
        assert not re.search(r"<script>|\sstyle=|\son[a-z]+=", page), path


# --- Pictures -----------------------------------------------------------------------------------


def test_a_spark_has_a_bar_for_each_answer_and_a_mark_for_each_failure() -> None:
    spark = pictures.spark([10.0, None, 40.0])
    assert (spark.bars.count("M"), spark.failures.count("M")) == (2, 1)
    # The newest stands at the right end, and the highest reaches the top.
    assert spark.bars.endswith("M140 28v-27h3v27z")
    assert pictures.spark([]).in_words == "not probed yet"


def test_the_phases_of_a_history_stand_upon_each_other() -> None:
    now = timezone.now()
    times = dict.fromkeys(Phase, 10.0) | {Phase.BIND: None}
    history = pictures.history([(now, "ok", times)], now - timedelta(hours=1), now)
    grounds = [
        float(re.match(r"M[\d.]+ ([\d.]+)v-([\d.]+)", band.path)[1]) for band in history.bands
    ]
    assert [band.phase for band in history.bands] == [p for p in Phase if p != Phase.BIND]
    assert grounds == [200, 150, 100, 50]
    assert history.top == 40


def test_the_pictures_are_well_formed(browser: Client) -> None:
    (one,) = with_history(1)
    for path in ("/directories/", f"/directories/{one.pk}/", "/directories/compare/?site=Oslo"):
        drawings = re.findall(
            r"<svg class=\"(?:probes|phases).*?</svg>", shown(browser, path), re.S
        )
        assert drawings
        for drawing in drawings:
            ET.fromstring(drawing)


def test_the_widest_span_of_a_history_is_read_in_one_query(browser: Client) -> None:
    now = timezone.now()
    assert max(lists.SPANS.values()) == timedelta(days=ProbeResult.retention.days)
    assert pictures.hours(now - timedelta(hours=4), now)[1] == now - timedelta(hours=3)


# --- The admin ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["directoryserver", "credential", "profile", "proberesult"])
def test_the_admin_lists_and_opens_everything(browser: Client, model: str) -> None:
    one = server("dc1", credential=credential(), profile=Profile.objects.get(name="standard"))
    ProbeResult.objects.create(server=one, outcome="ok")
    assert shown(browser, f"/admin/ldap_probe/{model}/")
    keys = {"directoryserver": one.pk, "credential": one.credential_id, "profile": one.profile_id}
    if model in keys:
        page = shown(browser, f"/admin/ldap_probe/{model}/{keys[model]}/change/")
        assert "secret" not in re.sub(r"\S*secret_\S*", "", page)
