"""Sign-in by an OpenID Connect provider: a real one, over TLS, with its own sign-in page."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from auditlog.models import LogEntry
from django.contrib.auth.models import Group, User
from django.http import HttpResponse
from django.test import Client
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from harness import missing
from identity_provider import CLIENT_SECRET, FOLDER, Provider
from soc.access import groups, oidc, roles
from soc.access.models import Identity
from soc.provision import environment

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

START = "/sign-in/provider/"
BACK = "/sign-in/provider/back/"
ACCOUNTS = {
    "vera": {"preferred_username": "vera", "email": "vera@soc.test", "groups": ["soc-viewers"]},
    "omar": {"preferred_username": "omar", "groups": ["staff", "soc-operators", "soc-viewers"]},
    "adam": {"preferred_username": "adam", "groups": ["soc-admins"]},
    "gus": {"preferred_username": "gus", "groups": ["guests"]},
    "twin": {"preferred_username": "Ann", "groups": ["soc-admins"]},
    "tess": {"preferred_username": "tess", "teams": ["soc-viewers"]},
    "kim": {"preferred_username": "kim", "realm_access": {"roles": ["soc-viewers"]}},
    "dina": {"preferred_username": "dina", "groups": ["CN=SOC, ou=Groups,dc=soc,dc=test"]},
    "odd": {"preferred_username": "odd", "groups": [5, {"name": "soc-admins"}, None]},
    "many": {
        "preferred_username": "many",
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "https://graph.test/getMemberObjects"}},
    },
}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    if shutil.which("node") is None or not (FOLDER / "node_modules").is_dir():
        missing(f"node is missing, or what `npm ci` installs in {FOLDER}")
    made = Provider(tmp_path_factory.mktemp("oidc"), f"https://testserver{BACK}", ACCOUNTS)
    made.start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def site(provider: Provider, settings: Any) -> None:
    """A site that has named the provider."""
    roles.complete()
    settings.OIDC_ISSUER = provider.issuer
    settings.OIDC_CLIENT_ID = "soc"
    settings.OIDC_CLIENT_SECRET = CLIENT_SECRET
    settings.OIDC_AUTHORITIES = str(provider.authority)
    settings.OIDC_ROLES = {
        "soc-viewers": "Viewers",
        "soc-operators": "Operators",
        "soc-admins": "Administrators",
    }


@pytest.fixture
def come(provider: Provider) -> Callable[..., tuple[Client, HttpResponse]]:
    """Sign in at the provider as somebody and return to the site."""

    def arrive(account: str, start: str = START) -> tuple[Client, HttpResponse]:
        client = Client()
        sent = client.get(start, secure=True)
        back = provider.sign_in(sent["Location"], account)
        return client, client.get(back.removeprefix("https://testserver"), secure=True)

    return arrive


Come = Callable[..., tuple[Client, HttpResponse]]


def user_of(client: Client) -> User | None:
    key = client.session.get("_auth_user_id")
    return User.objects.get(pk=key) if key else None


def groups_of(name: str) -> set[str]:
    return set(User.objects.get(username=name).groups.values_list("name", flat=True))


@pytest.mark.parametrize(
    ("account", "groups", "staff"),
    [
        ("vera", {"Viewers"}, False),
        ("omar", {"Viewers", "Operators"}, True),
        ("adam", {"Administrators"}, True),
    ],
)
def test_the_providers_groups_give_the_roles(
    come: Come, account: str, groups: set[str], staff: bool
) -> None:
    client, answer = come(account)
    assert answer["Location"] == "/"
    user = user_of(client)
    assert (user.username, user.is_staff, user.is_superuser) == (account, staff, False)
    assert groups_of(account) == groups
    assert not user.has_usable_password()
    assert Identity.objects.get(user=user).subject == account
    entry = LogEntry.objects.filter(additional_data__event="Signed in").get()
    assert (entry.actor, entry.remote_addr) == (user, "127.0.0.1")


def test_the_sign_in_page_offers_the_provider_and_keeps_where_to_go(come: Come) -> None:
    page = Client().get("/sign-in/?next=/alerts/", secure=True).content.decode()
    assert 'href="/sign-in/provider/?next=%2Falerts%2F"' in page
    assert come("vera", f"{START}?next=/alerts/")[1]["Location"] == "/alerts/"


@pytest.mark.parametrize("target", ["https://evil.test/", "//evil.test", "http://testserver/"])
def test_nobody_is_sent_elsewhere_afterwards(come: Come, target: str) -> None:
    assert come("vera", f"{START}?next={target}")[1]["Location"] == "/"


def test_without_a_provider_there_is_no_door(settings: Any) -> None:
    settings.OIDC_ISSUER = ""
    assert b"provider" not in Client().get("/sign-in/", secure=True).content
    for path in (START, BACK):
        assert Client().get(path, secure=True)["Location"] == "/sign-in/"


def test_the_request_has_a_challenge_a_state_and_a_nonce() -> None:
    query = parse_qs(urlsplit(Client().get(START, secure=True)["Location"]).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["response_type"] == ["code"]
    assert query["redirect_uri"] == [f"https://testserver{BACK}"]
    for name in ("code_challenge", "state", "nonce"):
        assert len(query[name][0]) >= 20, name


# --- Who may not come in ------------------------------------------------------------------------


def refusal(answer: HttpResponse, client: Client) -> str:
    assert answer.status_code == 403
    assert user_of(client) is None
    return answer.content.decode()


def test_who_has_no_role_is_told_so_and_gets_no_account(come: Come) -> None:
    client, answer = come("gus")
    assert "None of your groups has a role here" in refusal(answer, client)
    assert not User.objects.filter(username="gus").exists()
    event = "Sign-in by provider refused"
    assert LogEntry.objects.filter(additional_data__event__startswith=event).count() == 1


def test_a_name_does_not_open_a_local_account(come: Come) -> None:
    User.objects.create_superuser("ann", password="x")
    client, answer = come("twin")
    assert "A local account is named Ann" in refusal(answer, client)


def test_an_administrator_links_a_local_account(come: Come, provider: Provider) -> None:
    ann = User.objects.create_user("ann")
    Identity.objects.create(user=ann, issuer=provider.issuer, subject="twin")
    assert user_of(come("twin")[0]) == ann


def test_a_disabled_account_stays_outside(come: Come) -> None:
    come("vera")
    User.objects.update(is_active=False)
    client, answer = come("vera")
    assert "disabled" in refusal(answer, client)


def test_roles_follow_the_provider_and_own_groups_stay(come: Come, settings: Any) -> None:
    come("omar")
    User.objects.get().groups.add(Group.objects.create(name="night shift"))
    settings.OIDC_ROLES = {"soc-viewers": "Viewers"}
    client, _ = come("omar")
    assert groups_of("omar") == {"Viewers", "night shift"}
    assert not user_of(client).is_staff
    settings.OIDC_ROLES = {"nobody": "Viewers"}
    client, answer = come("omar")
    refusal(answer, client)
    assert groups_of("omar") == {"night shift"}


# --- Where providers put groups -----------------------------------------------------------------


def test_groups_of_a_scope_of_their_own_come_when_it_is_asked_for(
    come: Come, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Canaille and Dex send groups for the scope ``groups`` only."""
    settings.OIDC_GROUPS_CLAIM = "teams"
    client, answer = come("tess")
    refusal(answer, client)
    assert "claim teams is not sent: some providers send it for a scope of its own" in caplog.text
    settings.OIDC_SCOPES = ["openid", "profile", "teams"]
    come("tess")
    assert groups_of("tess") == {"Viewers"}


def test_a_claim_within_a_claim(come: Come, settings: Any) -> None:
    settings.OIDC_GROUPS_CLAIM = "realm_access.roles"
    come("kim")
    assert groups_of("kim") == {"Viewers"}


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("resource_access.soc.test.roles", {"resource_access": {"soc.test": {"roles": ["a"]}}}),
        ("https://soc.test/groups", {"https://soc.test/groups": ["a"]}),
        ("a.b", {"a.b": "a", "a": {"b": ["c"]}}),
        ("urn:roles", {"urn:roles": {"a": {"1": "soc.test"}}}),
    ],
)
def test_a_groups_claim_is_found(name: str, claims: dict[str, Any]) -> None:
    assert groups.of(claims, name) == {"a"}


@pytest.mark.parametrize("claims", [{}, {"a": 5}, {"a": {"b": None}}, {"a": ["b"]}])
def test_a_claim_that_is_not_there_is_no_group(claims: dict[str, Any]) -> None:
    assert groups.of(claims, "a.b") == set()


def test_a_group_that_is_a_distinguished_name(come: Come, settings: Any) -> None:
    settings.OIDC_ROLES = environment.roles_by_group(
        "cn=soc,ou=groups,dc=soc,dc=test=Operators, soc-admins=Administrators"
    )
    come("dina")
    assert groups_of("dina") == {"Operators"}


def test_groups_that_are_no_names_give_nothing(come: Come) -> None:
    client, answer = come("odd")
    refusal(answer, client)


def test_more_groups_than_the_provider_sends_take_no_role_away(
    come: Come, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """Microsoft Entra sends ``_claim_names`` in place of more than 200 groups."""
    client, answer = come("many")
    assert "more groups than your provider sends" in refusal(answer, client)
    known = User.objects.create_user("many")
    Identity.objects.create(user=known, issuer=provider.issuer, subject="many")
    client, answer = come("many")
    assert "more groups than your provider sends" in refusal(answer, client)
    roles.assign(known, ["Operators"])
    caplog.clear()
    client, _ = come("many")
    assert user_of(client) == known
    assert groups_of("many") == {"Operators"}
    assert "sends no groups of many, because there are too many" in caplog.text


# --- The way out --------------------------------------------------------------------------------


def test_signing_out_leads_to_the_end_of_the_session_at_the_provider(
    provider: Provider,
) -> None:
    client, person = Client(), provider.browser()
    sent = client.get(START, secure=True)["Location"]
    back = provider.sign_in(sent, "vera", person)
    client.get(back.removeprefix("https://testserver"), secure=True)
    again = client.get(START, secure=True)["Location"]
    known = person.get(again, allow_redirects=False, timeout=20)
    assert "/back/" in known.headers["Location"]
    page = client.post("/sign-out/", secure=True)
    assert user_of(client) is None
    (url,) = set(re.findall(r'href="(https://localhost[^"]+)"', page.content.decode()))
    assert f'content="0; url={url}"' in page.content.decode()
    assert provider.sign_out(html.unescape(url), person) == "https://testserver/sign-in/"
    asked = person.get(again, allow_redirects=False, timeout=20)
    assert "/interaction/" in asked.headers["Location"]


def test_a_local_account_signs_out_as_before() -> None:
    client = Client()
    client.force_login(User.objects.create_user("bob"))
    assert client.post("/sign-out/", secure=True)["Location"] == "/sign-in/"


# --- A provider that is away or not what it says ------------------------------------------------


@pytest.fixture
def failure(caplog: pytest.LogCaptureFixture) -> Callable[[HttpResponse], str]:
    """Check that a person learns no detail, and return what the log says."""

    def read(answer: HttpResponse) -> str:
        assert answer.status_code == 502
        page = answer.content.decode()
        assert "Local accounts can sign in as always" in page
        assert "Traceback" not in page
        (line,) = [r.getMessage() for r in caplog.records if r.name == "soc.access.oidc"]
        return line

    return read


Failure = Callable[[HttpResponse], str]


def test_a_provider_that_is_down_is_told_and_local_accounts_work(
    settings: Any, failure: Failure
) -> None:
    settings.OIDC_ISSUER = "https://localhost:1"
    client = Client()
    assert "ConnectionError" in failure(client.get(START, secure=True))
    User.objects.create_user("bob", password="Correct horse 1")
    form = {"username": "bob", "password": "Correct horse 1"}
    assert client.post("/sign-in/", form, secure=True)["Location"] == "/"


def test_a_provider_with_an_untrusted_certificate_is_refused(
    settings: Any, failure: Failure
) -> None:
    settings.OIDC_AUTHORITIES = ""
    assert "CERTIFICATE_VERIFY_FAILED" in failure(Client().get(START, secure=True))


def test_a_provider_with_another_name_is_refused(
    provider: Provider, settings: Any, failure: Failure
) -> None:
    settings.OIDC_ISSUER = f"{provider.issuer}/"
    assert "it says to be" in failure(Client().get(START, secure=True))


@pytest.mark.parametrize(
    ("name", "value"), [("jwks_uri", "http://localhost/jwks"), ("token_endpoint", None)]
)
def test_an_endpoint_without_tls_is_refused(
    monkeypatch: pytest.MonkeyPatch, failure: Failure, name: str, value: str | None
) -> None:
    load = oidc.DjangoOAuth2App.load_server_metadata

    def bent(client: Any) -> dict[str, Any]:
        return load(client) | {name: value}

    monkeypatch.setattr(oidc.DjangoOAuth2App, "load_server_metadata", bent)
    assert f"its {name} is {value!r} and not https" in failure(Client().get(START, secure=True))


def test_a_wrong_client_secret_lets_nobody_in(come: Come, settings: Any, failure: Failure) -> None:
    settings.OIDC_CLIENT_SECRET = "another"
    client, answer = come("vera")
    assert "invalid_client" in failure(answer)
    assert user_of(client) is None


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda url: url.replace("state=", "state=x"), "mismatching_state"),
        (lambda url: url.replace("code=", "code=x"), "invalid_grant"),
        (lambda url: url.replace("iss=https", "iss=https%3A%2F%2Fevil.test"), "another issuer"),
        (lambda _: f"{BACK}?error=access_denied", "access_denied"),
        (lambda _: BACK, "mismatching_state"),
    ],
    ids=["state", "code", "issuer", "denied", "nothing"],
)
def test_an_answer_that_was_tampered_with_lets_nobody_in(
    provider: Provider, failure: Failure, spoil: Callable[[str], str], error: str
) -> None:
    client = Client()
    back = provider.sign_in(client.get(START, secure=True)["Location"], "vera")
    answer = client.get(spoil(back.removeprefix("https://testserver")), secure=True)
    assert error in failure(answer)
    assert user_of(client) is None


def test_an_answer_works_once_and_in_the_browser_that_asked(
    provider: Provider, failure: Failure, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    back = provider.sign_in(client.get(START, secure=True)["Location"], "vera")
    path = back.removeprefix("https://testserver")
    assert "mismatching_state" in failure(Client().get(path, secure=True))
    caplog.clear()
    assert client.get(path, secure=True)["Location"] == "/"
    assert "mismatching_state" in failure(client.get(path, secure=True))


def by_client_secret(token: str) -> str:
    key = OctKey.import_key(CLIENT_SECRET)
    return jwt.encode({"alg": "HS256"}, claims_of(token), key, algorithms=["HS256"])


def by_another_key(token: str) -> str:
    key = RSAKey.generate_key(2048)
    return jwt.encode({"alg": "RS256"}, claims_of(token), key)


def unsigned(token: str) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    return f"{header}.{token.split('.')[1]}."


def changed(token: str) -> str:
    head, _, signature = token.split(".")
    body = json.dumps(claims_of(token) | {"sub": "adam"}).encode()
    return f"{head}.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.{signature}"


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


@pytest.mark.parametrize(
    "forge", [by_client_secret, by_another_key, unsigned, changed, lambda _: None]
)
def test_a_token_that_the_provider_has_not_signed_lets_nobody_in(
    come: Come,
    monkeypatch: pytest.MonkeyPatch,
    failure: Failure,
    forge: Callable[[str], str | None],
) -> None:
    fetch = oidc.DjangoOAuth2App.fetch_access_token

    def forged(*arguments: Any, **options: Any) -> dict[str, Any]:
        token = fetch(*arguments, **options)
        answer = token | {"id_token": forge(token["id_token"])}
        return {name: value for name, value in answer.items() if value is not None}

    monkeypatch.setattr(oidc.DjangoOAuth2App, "fetch_access_token", forged)
    client, answer = come("vera")
    failure(answer)
    assert user_of(client) is None


@pytest.mark.parametrize(
    ("audience", "party", "inside"),
    [
        ("soc", None, True),
        (["soc"], "soc", True),
        (["soc", "portal"], "soc", True),
        (["soc", "portal"], None, False),
        (["soc", "portal"], "portal", False),
        (["portal"], "soc", False),
        ("portal", None, False),
        ([], None, False),
        (None, None, False),
    ],
)
def test_a_token_is_for_this_site(
    come: Come,
    monkeypatch: pytest.MonkeyPatch,
    audience: Any,
    party: str | None,
    inside: bool,
) -> None:
    """OpenID Connect Core 1.0, 3.1.3.7, with a signature that is right."""
    key = RSAKey.generate_key(2048)
    fetch = oidc.DjangoOAuth2App.fetch_access_token

    def for_another(*arguments: Any, **options: Any) -> dict[str, Any]:
        token = fetch(*arguments, **options)
        claims = claims_of(token["id_token"]) | {"aud": audience, "azp": party}
        said = {name: value for name, value in claims.items() if value is not None}
        return token | {"id_token": jwt.encode({"alg": "RS256"}, said, key)}

    keys = {"keys": [key.as_dict(private=False)]}
    monkeypatch.setattr(oidc.DjangoOAuth2App, "fetch_jwk_set", lambda _, **__: keys)
    monkeypatch.setattr(oidc.DjangoOAuth2App, "fetch_access_token", for_another)
    client, answer = come("vera")
    assert answer.status_code == (302 if inside else 502)
    assert (user_of(client) is not None) is inside


def test_the_sign_in_gets_a_session_of_its_own(provider: Provider) -> None:
    client = Client()
    sent = client.get(START, secure=True)["Location"]
    before = client.session.session_key
    back = provider.sign_in(sent, "vera")
    client.get(back.removeprefix("https://testserver"), secure=True)
    assert client.session.session_key != before


# --- The site's variables -----------------------------------------------------------------------


def test_the_variables_come_together_or_not_at_all() -> None:
    values = {"SOC_OIDC_ISSUER": "https://id.test", "SOC_OIDC_CLIENT_ID": "soc"}
    assert any("SOC_OIDC_ROLES must be set too" in p for p in environment.problems_of(values))
    values["SOC_OIDC_ROLES"] = "a b=Viewers, /soc/admins=Administrators"
    assert not any("OIDC" in problem for problem in environment.problems_of(values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOC_OIDC_ISSUER", "http://id.test"),
        ("SOC_OIDC_ROLES", "soc=Emperors"),
        ("SOC_OIDC_ROLES", "soc"),
        ("SOC_OIDC_ROLES", "=Viewers"),
        ("SOC_OIDC_ROLES", "soc=Emperors,others=Viewers"),
        ("SOC_OIDC_SCOPES", "openid groups"),
        ("SOC_OIDC_SCOPES", "groups"),
    ],
)
def test_a_variable_that_would_not_work_is_refused(name: str, value: str) -> None:
    assert any(name in problem for problem in environment.problems_of({name: value}))


def test_a_site_without_the_secret_is_told_where_it_goes(tmp_path: Any) -> None:
    with pytest.raises(environment.EnvironmentProblem, match="oidc_client_secret"):
        environment.secret_of_site(tmp_path / "oidc_client_secret", "SOC_OIDC_ISSUER is set")
