"""Lists of endpoints to import, judged line by line."""

from __future__ import annotations

import pytest

from soc.ssl_certs import imports, searches
from soc.ssl_certs.models import Endpoint, Group, Search
from soc.trust.models import Authority

pytestmark = pytest.mark.django_db


def plan(text: str, **defaults: object) -> imports.ImportPlan:
    return imports.plan(text, imports.Defaults(**defaults))


def verdicts(text: str) -> list[str]:
    return [line.verdict for line in plan(text).lines]


@pytest.mark.parametrize(
    ("line", "host", "port", "server_name"),
    [
        ("www.example.org", "www.example.org", 443, ""),
        ("WWW.Example.org.:8443", "www.example.org", 8443, ""),
        ("192.0.2.7:636 portal.example.org", "192.0.2.7", 636, "portal.example.org"),
        ("2001:DB8::1", "2001:db8::1", 443, ""),
        ("[2001:db8::1]:993", "2001:db8::1", 993, ""),
        ("bücher.example", "bücher.example", 443, ""),
        ("soc_web_1:8443", "soc_web_1", 8443, ""),
    ],
)
def test_a_plain_line(line: str, host: str, port: int, server_name: str) -> None:
    ((read,),) = [plan(line).lines]
    found = read.endpoint
    assert (found.host, found.port, found.server_name) == (host, port, server_name)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("www.example.org:0", "Invalid port '0': use 1 to 65535"),
        ("www.example.org:65536", "Invalid port"),
        ("https://www.example.org/", "Invalid port"),
        ("a..b", "Invalid host name"),
        ("a b c", "a line is a host"),
        ("[2001:db8::1", "is written [address]:port"),
        ("192.0.2.0/33", "does not appear to be"),
        ("192.0.2.9-192.0.2.1", "its end does not follow its start"),
        ("x" * 64 + ".example", "longer than 63"),
    ],
)
def test_a_line_that_is_not_understood_says_why(line: str, why: str) -> None:
    (verdict,) = verdicts(line)
    assert why in verdict


def test_comments_and_blank_lines_are_left_out_and_lines_keep_their_numbers() -> None:
    read = plan("# mine\n\nwww.example.org\n  \nmail.example.org:25\n")
    assert [line.number for line in read.lines] == [3, 5]


def test_what_is_watched_or_named_twice_is_not_added() -> None:
    Endpoint.objects.create(host="www.example.org")
    assert verdicts("www.example.org\nnew.example.org\nNEW.example.org:443") == [
        "is watched already",
        "is new",
        "line 2 says the same",
    ]


@pytest.mark.parametrize(
    ("line", "count", "first"),
    [
        ("192.0.2.0/28:25", 14, ("192.0.2.1", 25)),
        ("192.0.2.10-192.0.2.20", 11, ("192.0.2.10", 443)),
        ("2001:db8::/125", 7, ("2001:db8::1", 443)),
    ],
)
def test_a_range_is_counted(line: str, count: int, first: tuple[str, int]) -> None:
    targets = plan(line).targets
    assert (len(targets), targets[0]) == (count, first)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "2001:db8::/32", "10.0.0.0/23\n10.1.0.0/22"])
def test_a_range_that_is_too_long_is_refused(text: str) -> None:
    read = plan(text)
    assert "more than 1,024 addresses" in read.problems[0].problem
    assert len(read.targets) <= searches.MOST_ADDRESSES


def test_csv() -> None:
    authority = Authority.objects.create(name="site CA")
    group = Group.objects.create(name="by hand")
    text = (
        "Host,Port,Protocol,Authority,Group,Interval_minutes,Notes\n"
        'mail.example.org,25,smtp,site CA,by hand,30,"The relay, outside"\n'
        "www.example.org,,,,,,\n"
    )
    mail, www = (line.endpoint for line in plan(text).lines)
    assert (mail.authority, mail.group, mail.starttls) == (authority, group, "smtp")
    assert (mail.port, mail.interval_minutes, mail.notes) == (25, 30, "The relay, outside")
    assert (www.port, www.starttls, www.interval_minutes) == (443, "", 60)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("host;colour\na.example;red", "there is no column 'colour'"),
        ("port,notes\n443,x", "there is no column 'host'"),
        ("host,protocol\na.example,gopher", "there is no protocol 'gopher'"),
        ("host,authority\na.example,nobody", "there is no authority 'nobody', there are: none"),
        ("host,interval_minutes\na.example,0", "interval_minutes: Ensure this value"),
        ("host,interval_minutes\na.example,soon", "'soon' is no number of minutes"),
        ("host\na.example,b", "it has 2 cells for 1 columns"),
        ("host,port\n,443", "Invalid host name ''"),
    ],
)
def test_csv_that_is_not_understood_says_why(text: str, why: str) -> None:
    assert why in plan(text).problems[0].problem


def test_a_list_has_a_bound() -> None:
    (line,) = plan("a.example\n" * 10_001).lines
    assert "more than 10,000 lines" in line.problem


def test_what_is_imported_takes_the_defaults() -> None:
    group = Group.objects.create(name="by hand")
    read = plan("a.example\nb.example:25\n192.0.2.0/30", port=587, starttls="smtp", group=group)
    search = imports.carry_out(read, "ann")
    found = set(Endpoint.objects.values_list("host", "port", "starttls", "group"))
    assert found == {("a.example", 587, "smtp", group.pk), ("b.example", 25, "smtp", group.pk)}
    assert Search.objects.get() == search
    assert (search.targets, search.starttls) == ([("192.0.2.1", 587), ("192.0.2.2", 587)], "smtp")


def test_a_line_break_within_quotes_begins_no_line() -> None:
    text = 'host,port,notes\na.test,443,"first\nsecond.test"\nb.test,443,plain\n'
    lines = imports.plan(text, imports.Defaults()).new
    assert [(line.number, line.endpoint.host) for line in lines] == [(2, "a.test"), (4, "b.test")]
    assert lines[0].endpoint.notes == "first\nsecond.test"


def test_a_quote_that_is_never_closed_takes_no_other_line_along() -> None:
    text = 'host,port,notes\na.test,443,"open\nb.test,443,plain\n'
    hosts = [line.endpoint.host for line in imports.plan(text, imports.Defaults()).new]
    assert hosts == ["a.test", "b.test"]


def test_an_interval_that_no_date_can_be_reckoned_with() -> None:
    plan = imports.plan("host,interval_minutes\na.test,4294967295\n", imports.Defaults())
    assert "interval_minutes" in plan.problems[0].problem
