"""Sign-in by an OpenID Connect provider: a real one, over TLS, with its own sign-in page."""

from __future__ import annotations

import base64
import json
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
from soc import environment
from soc.access import oidc, roles
from soc.access.models import Identity

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

START = "/sign-in/provider/"
BACK = "/sign-in/provider/back/"
ACCOUNTS = {
    "vera": {"preferred_username": "vera", "email": "vera@soc.test", "groups": ["soc-viewers"]},
    "omar": {"preferred_username": "omar", "groups": ["staff", "soc-operators", "soc-viewers"]},
    "adam": {"preferred_username": "adam", "groups": ["soc-admins"]},
    "gus": {"preferred_username": "gus", "groups": ["guests"]},
    "twin": {"preferred_username": "Ann", "groups": ["soc-admins"]},
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
    ],
)
def test_a_variable_that_would_not_work_is_refused(name: str, value: str) -> None:
    assert any(name in problem for problem in environment.problems_of({name: value}))


def test_a_site_without_the_secret_is_told_where_it_goes(tmp_path: Any) -> None:
    with pytest.raises(environment.EnvironmentProblem, match="oidc_client_secret"):
        environment.secret_of_site(tmp_path / "oidc_client_secret", "SOC_OIDC_ISSUER is set")
