"""The site generator: strong, private, kept, and refused when it was weakened."""

import json
import shutil
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.verification import PolicyBuilder, Store

import pki as keys
from soc.provision import broker, pki, site

REPOSITORY = Path(__file__).resolve().parents[2]


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def change(made: site.Site, **values: str) -> None:
    made.env_file.write_text(site.env_text(made.env_file.read_text(), values))


def contents(made: site.Site) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}


def test_a_new_local_site_can_start_at_once(new_site: site.Site) -> None:
    assert site.problems(new_site, "containers", ports=False) == []


def test_a_new_real_site_says_what_is_left_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(REPOSITORY / "env" / "example.env", tmp_path)
    arguments = ["vancouver", "--root", str(tmp_path), "--stack", "embedded"]
    assert site.main(["create", *arguments]) == 0
    assert "still to do: SOC_SMTP_HOST is missing" in capsys.readouterr().out
    assert site.main(["prepare", *arguments]) == 1
    assert "SOC_MAIL_TO is missing" in capsys.readouterr().err


def test_nothing_can_be_read_by_others(new_site: site.Site) -> None:
    assert stat.S_IMODE(new_site.folder.stat().st_mode) == 0o700
    for path in [new_site.env_file, *contents(new_site)]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_two_sites_share_no_secret(new_site: site.Site) -> None:
    other = site.Site("other", new_site.root)
    site.create(other, "containers", {})
    site.render(other)
    secrets = {
        path.read_text()
        for made in (new_site, other)
        for service, names in site._SECRETS.items()
        for path in (made.folder / service / name for name in names)
    }
    assert len(secrets) == 2 * sum(len(names) for names in site._SECRETS.values())


def test_rendering_again_changes_nothing(new_site: site.Site) -> None:
    before = contents(new_site)
    site.render(new_site)
    assert contents(new_site) == before


def test_an_existing_env_file_is_kept(new_site: site.Site) -> None:
    text = new_site.env_file.read_text()
    assert not site.create(new_site, "containers", {})
    assert new_site.env_file.read_text() == text


def test_a_new_site_takes_the_values_it_is_given(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "env" / "example.env", tmp_path)
    made = site.Site("local", tmp_path)
    site.create(made, "containers", {"MARIADB_IMAGE": "mariadb:11.8.9"})
    assert made.values()["MARIADB_IMAGE"] == "mariadb:11.8.9"


@pytest.mark.parametrize("weak", ["short", "a" * 50, "change-me-change-me-change-me-123"])
def test_a_weak_secret_is_refused(new_site: site.Site, weak: str) -> None:
    (new_site.folder / "web" / "secret_key").write_text(weak)
    (problem,) = site.problems(new_site, "containers", ports=False)
    assert "web/secret_key is weak" in problem


def test_everything_wrong_with_a_site_is_said_at_once(new_site: site.Site) -> None:
    (new_site.folder / "web" / "secret_key").write_text("short")
    new_site.env_file.chmod(0o644)
    change(new_site, SOC_PIDS="none")
    found = "\n".join(site.problems(new_site, "embedded", ports=True))
    for words in ("secret_key is weak", "read by others", "SOC_PIDS", "the embedded stack"):
        assert words in found


def test_every_service_has_a_certificate_of_the_site(new_site: site.Site) -> None:
    authority = certificate(new_site.folder / "ca" / "ca.pem")
    for service in site.SERVICES:
        leaf = certificate(new_site.folder / service / "cert.pem")
        verifier = PolicyBuilder().store(Store([authority]))
        verifier.build_server_verifier(x509.DNSName(service)).verify(leaf, [])
        with pytest.raises(x509.verification.VerificationError):
            verifier.build_server_verifier(x509.DNSName("elsewhere")).verify(leaf, [])


def test_no_service_gets_the_key_of_the_authority(new_site: site.Site) -> None:
    key = (new_site.folder / "ca" / "ca.key").read_bytes()
    holders = [path for path, content in contents(new_site).items() if key in content]
    assert holders == [new_site.folder / "ca" / "ca.key"]


def test_a_certificate_is_renewed_near_its_end_and_for_new_names(new_site: site.Site) -> None:
    folder = new_site.folder / "web"
    first = certificate(folder / "cert.pem")
    change(new_site, SOC_HOSTNAMES="soc.health.internal")
    assert site.render(new_site) == ["web", "flower"]
    renamed = certificate(folder / "cert.pem")
    assert "soc.health.internal" in pki.names(renamed)
    assert first.serial_number != renamed.serial_number

    authority = pki.KeyPair.load(
        new_site.folder / "ca" / "ca.pem", new_site.folder / "ca" / "ca.key"
    )
    names = pki.names(renamed)
    dying = pki.issue(authority, "web", names, lifetime=timedelta(seconds=30))
    (folder / "cert.pem").write_bytes(dying.certificate_pem)
    site.render(new_site)
    renewed = certificate(folder / "cert.pem")
    assert renewed.not_valid_after_utc - datetime.now(UTC) > timedelta(days=300)


def test_a_new_authority_replaces_every_certificate(new_site: site.Site) -> None:
    shutil.rmtree(new_site.folder / "ca")
    assert set(site.render(new_site)) == set(site.SERVICES)
    authority = certificate(new_site.folder / "ca" / "ca.pem")
    for service in site.SERVICES:
        certificate(new_site.folder / service / "cert.pem").verify_directly_issued_by(authority)
        assert certificate(new_site.folder / service / "ca.pem") == authority


def test_the_catcher_shows_an_expiry_soon(new_site: site.Site) -> None:
    left = certificate(new_site.folder / "catcher" / "cert.pem").not_valid_after_utc - datetime.now(
        UTC
    )
    assert timedelta(days=18) < left < timedelta(days=21)


def test_only_flower_and_the_sampler_can_ask_the_management_api(new_site: site.Site) -> None:
    password = (new_site.folder / "flower" / "monitor_password").read_bytes()
    holders = {p.parent.name for p, content in contents(new_site).items() if password in content}
    assert holders == {"flower", site.SAMPLER}
    users = json.loads((new_site.folder / "rabbitmq" / "definitions.json").read_text())["users"]
    hashed = next(user["password_hash"] for user in users if user["name"] == "monitor")
    assert broker.is_hash_of(hashed, password.decode())
    assert not broker.is_hash_of(hashed, "guess")


def statements(made: site.Site) -> list[str]:
    return (made.folder / "mariadb" / "users.sql").read_text().splitlines()


def test_every_service_logs_in_at_the_database_by_its_certificate(new_site: site.Site) -> None:
    for service in site.APP_SERVICES:
        login = f"'soc_{service.replace('-', '_')}'@'%' IDENTIFIED BY '' REQUIRE SUBJECT"
        mine = [line for line in statements(new_site) if login in line]
        assert len(mine) == 2
        assert all(line.endswith(f" '/CN={service}';") for line in mine)
        subject = certificate(new_site.folder / service / "cert.pem").subject
        assert subject.rfc4514_string() == f"CN={service}"


def test_only_migrate_owns_the_database(new_site: site.Site) -> None:
    granted = [line for line in statements(new_site) if line.startswith("GRANT")]
    assert granted == ["GRANT ALL ON soc.* TO 'soc_migrate'@'%' WITH GRANT OPTION;"]


def test_a_site_of_before_loses_its_database_passwords(new_site: site.Site) -> None:
    server = new_site.folder / "mariadb"
    (server / "initdb").mkdir()
    (server / "initdb" / "users.sql").touch()
    old = [server / "owner_password", server / "app_password", new_site.folder / "web/database.cnf"]
    for path in old:
        path.touch()
    site.render(new_site)
    assert not any(path.exists() for path in [*old, server / "initdb"])
    assert "DROP USER IF EXISTS 'soc_owner'@'%', 'soc_app'@'%';" in statements(new_site)


def test_only_who_seals_or_opens_has_the_sealing_keys(new_site: site.Site) -> None:
    key = (new_site.folder / "web" / "sealing_keys").read_bytes()
    holders = {p.parent.name for p, content in contents(new_site).items() if content == key}
    assert holders == set(site.SEALERS)


def test_a_site_of_before_gets_sealing_keys(new_site: site.Site) -> None:
    for service in site.SEALERS:
        (new_site.folder / service / "sealing_keys").unlink()
    site.render(new_site)
    keys = {(new_site.folder / name / "sealing_keys").read_bytes() for name in site.SEALERS}
    assert len(keys) == 1


@pytest.fixture
def brought(new_site: site.Site) -> Callable[..., list[str]]:
    """Put a certificate of the site's own in place; return what `make up` says of it."""
    change(new_site, SOC_HOSTNAMES="soc.health.internal,localhost")
    root = keys.issue("corporate root", ca=True)
    middle = keys.issue("corporate issuing CA", root, ca=True)

    def put(san: Sequence[str] = ("soc.health.internal",), **options: Any) -> list[str]:
        leaf = keys.issue("soc.health.internal", middle, san=san, **options)
        chain, key = keys.write_server_files(new_site.folder / "web", leaf, middle)
        chain.rename(chain.with_name(site.OWN_CERTIFICATE))
        # The service's own key is rendered again.
        key.rename(key.with_name(site.OWN_KEY))
        return site.problems(new_site, "containers", ports=False)

    return put


def test_logstash_gets_its_certificate_as_java_reads_it(new_site: site.Site) -> None:
    folder = new_site.folder / "logstash"
    password = (folder / "password").read_bytes()
    store = (folder / "logstash.p12").read_bytes()
    key, leaf, authorities = pkcs12.load_key_and_certificates(store, password)
    assert leaf == certificate(folder / "cert.pem")
    assert key.public_key() == leaf.public_key()
    assert authorities == [certificate(new_site.folder / "ca" / "ca.pem")]
    site.render(new_site)
    assert (folder / "logstash.p12").read_bytes() == store
    (folder / "password").write_text(site.new_secret())
    site.render(new_site)
    pkcs12.load_key_and_certificates(
        (folder / "logstash.p12").read_bytes(), (folder / "password").read_bytes()
    )
    users = json.loads((new_site.folder / "rabbitmq" / "definitions.json").read_text())["users"]
    (hashed,) = [user["password_hash"] for user in users if user["name"] == "logstash"]
    assert broker.is_hash_of(hashed, (folder / "password").read_text())


def test_a_key_store_of_before_whose_authority_java_does_not_trust_is_replaced(
    new_site: site.Site,
) -> None:
    folder = new_site.folder / "logstash"
    password = (folder / "password").read_bytes()
    own = pki.KeyPair.load(folder / "cert.pem", folder / "key.pem")
    encryption = serialization.BestAvailableEncryption(password)
    authority = certificate(folder / "ca.pem")
    old = pkcs12.serialize_key_and_certificates(
        b"logstash", own.key, own.certificate, [authority], encryption
    )
    (folder / "logstash.p12").write_bytes(old)
    site.render(new_site)
    found = pkcs12.load_pkcs12((folder / "logstash.p12").read_bytes(), password)
    assert all(authority.friendly_name for authority in found.additional_certs)


def test_what_a_publisher_gets_belongs_to_the_id_that_logstash_runs_as(
    new_site: site.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: dict[Path, tuple[int, int]] = {}
    monkeypatch.setattr(site.os, "chown", lambda path, *ids: owners.update({path: ids}))
    site.hand_over(new_site)
    for name in ("logstash.p12", "password", "ca.pem"):
        path = new_site.folder / "logstash" / name
        assert owners[path] == (site.PUBLISHER_UID, site.CONTAINER_UID)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    other = new_site.folder / "web" / "key.pem"
    assert owners[other] == (site.CONTAINER_UID, site.CONTAINER_UID)
    assert stat.S_IMODE(other.stat().st_mode) == 0o600


def test_a_site_may_bring_its_own_certificate(brought: Callable[..., list[str]]) -> None:
    assert brought() == []
    assert brought(san=("*.health.internal",)) == []
    assert brought(key=rsa.generate_private_key(65537, 2048)) == []


def test_what_a_site_brings_is_shown_to_who_has_it_watched(
    new_site: site.Site, brought: Callable[..., list[str]]
) -> None:
    brought()
    site.render(new_site)
    own = new_site.folder / "web" / site.OWN_CERTIFICATE
    shown = new_site.folder / "migrate" / "web-own-cert.pem"
    assert shown.read_bytes() == own.read_bytes()
    own.unlink()
    site.render(new_site)
    assert not shown.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"san": ["elsewhere.internal"]}, "is not for soc.health.internal, which SOC_HOSTNAMES"),
        ({"not_after": keys.NOW - timedelta(hours=1)}, "holds CN=soc.health.internal, which exp"),
        ({"not_before": keys.NOW + timedelta(hours=1)}, "which is not valid before"),
    ],
)
def test_an_own_certificate_that_browsers_would_refuse_is_refused(
    brought: Callable[..., list[str]], options: dict[str, Any], words: str
) -> None:
    (problem,) = brought(**options)
    assert "web/own-cert.pem" in problem
    assert words in problem


def test_an_own_certificate_of_another_key_is_refused(
    new_site: site.Site, brought: Callable[..., list[str]]
) -> None:
    brought()
    path = new_site.folder / "web" / site.OWN_KEY
    path.write_bytes(keys.issue("other").key_pem)
    (problem,) = site.problems(new_site, "containers", ports=False)
    assert problem.endswith("does not belong to the key in own-key.pem")
    path.write_text("no key")
    (problem,) = site.problems(new_site, "containers", ports=False)
    assert problem.endswith("has in own-key.pem no PEM key without a password")
    path.unlink()
    (problem,) = site.problems(new_site, "containers", ports=False)
    assert "own-key.pem is not: put both there or none" in problem


def test_an_own_chain_in_the_wrong_order_is_refused(
    new_site: site.Site, brought: Callable[..., list[str]]
) -> None:
    brought()
    path = new_site.folder / "web" / site.OWN_CERTIFICATE
    path.write_bytes(path.read_bytes() + keys.issue("stranger", ca=True).cert_pem)
    (problem,) = site.problems(new_site, "containers", ports=False)
    assert problem.endswith("is out of order: certificate 3 did not issue the one before")
    path.write_text("no certificate")
    (problem,) = site.problems(new_site, "containers", ports=False)
    assert problem.endswith("own-cert.pem is no PEM certificate")


def test_a_taken_port_is_named(new_site: site.Site) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        change(new_site, SOC_WEB_PORT=str(taken.getsockname()[1]))
        found = site.problems(new_site, "containers", ports=True)
    (problem,) = [problem for problem in found if problem.startswith("SOC_WEB_PORT=")]
    assert "choose another in env/local.env" in problem


def test_a_site_of_the_other_stack_is_refused(new_site: site.Site) -> None:
    (problem,) = site.problems(new_site, "embedded", ports=False)
    assert "this is the embedded stack" in problem


def test_a_bad_site_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.main(["create", "../elsewhere", "--root", str(tmp_path)]) == 2
    assert "not a name" in capsys.readouterr().err
