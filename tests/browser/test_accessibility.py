"""Every page of the product, and a mail, without violations of axe-core's rules."""

import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page

from harness import REPOSITORY, Stack, missing

Shoot = Callable[[Page, str], None]
Sample = tuple[dict[str, str], str]

AXE = REPOSITORY / "tests" / "lint" / "node_modules" / "axe-core" / "axe.min.js"

SAMPLE = """
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from soc.alerts import actions, engine, shifts
from soc.alerts.conditions import Condition
from soc.alerts.models import Alert, EscalationStep, Rule, Silence
from soc.core.severity import Severity
from soc.cronjobs.models import CronJob
from soc.events.models import Bot, Shipper, Site
from soc.ldap_probe.models import DirectoryServer
from soc.notify import digest, templates
from soc.notify.models import OutboundMail, Subscription
from soc.oncall.models import Rota, RotaMember, ShiftOverride

now = timezone.now()


def report(name, severity, minutes):
    engine.report([Condition(
        application="axe", rule="sample", subject=name, severity=severity,
        observed_at=now - timedelta(minutes=minutes), summary="No answer on port 25 for 30 s.",
        facts={"Port": 25}, link="/robots/", site="axe",
    )])


def sample():
    person = User.objects.create(
        username="axe", first_name="Ann", last_name="Axe", email="ann@health.internal"
    )
    rota = Rota.objects.create(
        name="axe", starts_on=now.date() - timedelta(days=9), weekdays="MO,TU,WE,TH,FR"
    )
    RotaMember.objects.create(rota=rota, person=person)
    ShiftOverride.objects.create(
        rota=rota, person=person, starts_at=now, ends_at=now + timedelta(hours=3)
    )
    mail = Subscription.objects.create(
        name="axe mail", rota=rota, recipients="axe@health.internal", applications="axe"
    )
    Subscription.objects.create(
        name="axe webhook", channel="webhook", url="https://hooks.example.org/", enabled=False
    )
    rule = Rule.objects.create(application="axe", name="sample", stale_after=10**6)
    EscalationStep.objects.create(rule=rule, subscription=mail, after=30)
    for name in ("mail1.example.org", "mail2.example.org", "mail3.example.org"):
        report(name, Severity.WARNING, 60)
        report(name, Severity.CRITICAL, 30)
    report("mail3.example.org", Severity.OK, 5)
    first = Alert.objects.filter(subject__name="mail1.example.org")
    actions.acknowledge(first, "axe", "The vendor was called.", timedelta(hours=2))
    Silence.objects.create(
        comment="axe", application="axe", site="nowhere", ends_at=now + timedelta(hours=1),
        starts_at=now,
    )
    CronJob.objects.create(name="axe backup", digest="axe")
    Bot.objects.create(host="axe-1", site=Site.objects.create(name="axe"))
    DirectoryServer.objects.create(host="axe.example.org", enabled=False)
    shipper = Shipper.objects.create(name="axe")
    shipper.messages.create(at=now, body=b"{" * 500, size=9_000, accepted=False, outcome="refused")
    mails = OutboundMail.objects.filter(application="axe").order_by("created_at")
    last = mails.exclude(ticket="").last()
    shift = templates.cleaned(shifts.notice(shifts.read(now - timedelta(days=1), now)))
    return {
        "notice": last.html,
        "digest": digest.render(mail, list(mails)).html,
        "handover": templates.render(shift, site="axe").html,
    }, last.acknowledge


def clear():
    Alert.objects.filter(rule__application="axe").delete()
    Rule.objects.filter(application="axe").delete()
    OutboundMail.objects.filter(application="axe").delete()
    Silence.objects.filter(comment="axe").delete()
    for model, name in (
        (Subscription, "name"), (Rota, "name"), (CronJob, "name"), (Bot, "host"), (Site, "name"),
        (DirectoryServer, "host"), (User, "username"), (Shipper, "name"),
    ):
        model.objects.filter(**{f"{name}__startswith": "axe"}).delete()
"""

_RUN = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"], preload: false});
  return found.violations.flatMap(rule => rule.nodes.map(
    node => [rule.id, ...node.target, node.html.slice(0, 120), node.any[0]?.message].join(" ")
  ));
}"""

_NOT_A_PAGE = re.compile(r"\.ics$|\.csv$|[?&]_popup=1")
"""A form that opens in a window of its own is the same form."""

_KINDS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=/)\d+(?=/)"), "1"),
    (re.compile(r"/admin/\w+/\w+/.*/(?=history/|delete/)"), "/admin/one/"),
    (re.compile(r"/admin/\w+/$"), "/admin/application/"),
    (re.compile(r"/(1/change|add)/$"), "/form/"),
)
"""What pages have in their addresses that differ in what they show only."""


@pytest.fixture(autouse=True)
def _axe() -> None:
    if not AXE.exists():
        missing("axe-core is not installed: npm ci --prefix tests/lint")


@pytest.fixture
def sample(stack: Stack) -> Iterator[Sample]:
    """One of each thing that has a page; yields mails' HTML, and a link that acknowledges."""
    mails, address = stack.data(f"{SAMPLE}\nanswer = sample()")
    yield mails, address
    stack.python("web", f"{SAMPLE}\nclear()")


def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with a page: the rule, and the element."""
    page.evaluate(AXE.read_text())
    found: list[str] = page.evaluate(_RUN)
    return found


def kind_of(address: str) -> str:
    """Return one name for all pages of a kind."""
    path = urlsplit(address).path
    for pattern, name in _KINDS:
        path = pattern.sub(name, path)
    return path


def pages(page: Page, within: re.Pattern[str]) -> Iterator[str]:
    """Go to one page of each kind that links lead to, and yield its address."""
    waiting, seen = ["/"], {"/"}
    while waiting:
        address = waiting.pop()
        answer = page.goto(address)
        assert answer is not None
        assert answer.status == 200, address
        yield address
        links: list[str] = page.evaluate(
            "[...document.links].filter(link => link.origin === location.origin)"
            ".map(link => link.pathname + link.search)"
        )
        # What is stored has more in its form than what is new.
        for link in sorted(links, key=lambda link: "/add/" in link):
            if kind_of(link) in seen or _NOT_A_PAGE.search(link):
                continue
            if within.match(link):
                seen.add(kind_of(link))
                waiting.append(link)


@pytest.mark.parametrize(
    "within",
    [
        re.compile(r"/(?!admin/.)|/admin/(notify|oncall)/"),
        # Seventy pages more, which are the theme's but for their fields.
        pytest.param(re.compile("/"), marks=pytest.mark.drill, id="with all of the admin"),
    ],
)
def test_every_page_is_accessible(signed_in: Page, sample: Sample, within: re.Pattern[str]) -> None:
    checked = {address: violations(signed_in) for address in pages(signed_in, within)}
    assert len(checked) > 20
    assert {address: wrong for address, wrong in checked.items() if wrong} == {}


def test_mails_and_what_needs_no_sign_in_are_accessible(
    context: BrowserContext, sample: Sample, shoot: Shoot
) -> None:
    mails, acknowledge = sample
    for scheme in ("light", "dark"):
        page = context.new_page()
        page.emulate_media(color_scheme=scheme)
        # Before any page of the site, whose policy would hold for it.
        page.set_viewport_size({"width": 600, "height": 900})
        for name, html in mails.items():
            page.set_content(html)
            assert violations(page) == [], name
            assert page.evaluate("document.documentElement.scrollWidth") <= 600
            shoot(page, f"mail-{name}-{scheme}")
        for address in ("/sign-in/", urlsplit(acknowledge).path):
            page.goto(address)
            assert violations(page) == [], address
