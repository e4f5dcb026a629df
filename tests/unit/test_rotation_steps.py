"""The rotation of a site's files: at no step does anybody meet a stranger."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.fernet import Fernet, MultiFernet
from cryptography.x509.verification import PolicyBuilder, Store

from soc.provision import rotation, site

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS: list[Callable[[site.Site], None]] = [
    rotation.begin,
    rotation.switch,
    lambda new_site: rotation.end(new_site, keep_authority=False),
]


def secrets(new_site: site.Site) -> dict[str, str]:
    return {
        f"{service}/{name}": (new_site.folder / service / name).read_text()
        for service, names in site._SECRETS.items()
        for name in names
    }


def trusts(new_site: site.Site, client: str, certificate: bytes, server: str) -> bool:
    authorities = x509.load_pem_x509_certificates(
        (new_site.folder / client / "ca.pem").read_bytes()
    )
    verifier = PolicyBuilder().store(Store(authorities)).build_server_verifier(x509.DNSName(server))
    try:
        verifier.verify(x509.load_pem_x509_certificate(certificate), [])
    except x509.verification.VerificationError:
        return False
    return True


def served(new_site: site.Site) -> bytes:
    return (new_site.folder / "rabbitmq" / "cert.pem").read_bytes()


def sealing_keys(new_site: site.Site, service: str = "web") -> list[str]:
    return (new_site.folder / service / "sealing_keys").read_text().split()


def rotate(new_site: site.Site) -> None:
    for step in STEPS:
        step(new_site)


def test_a_server_that_is_one_step_behind_is_trusted_and_trusts(new_site: site.Site) -> None:
    before = served(new_site)
    for step in STEPS[:2]:
        step(new_site)
        # A server loads its files a moment after they were written.
        assert trusts(new_site, "beat", before, "rabbitmq")
        assert trusts(new_site, "beat", served(new_site), "rabbitmq")
        before = served(new_site)


def test_after_it_the_old_ca_is_trusted_no_more(new_site: site.Site) -> None:
    before = served(new_site)
    rotate(new_site)
    assert not trusts(new_site, "beat", before, "rabbitmq")
    assert trusts(new_site, "beat", served(new_site), "rabbitmq")
    assert sorted(p.name for p in (new_site.folder / "ca").iterdir()) == ["ca.key", "ca.pem"]


def test_the_old_ca_stays_trusted_if_senders_outside_need_time(new_site: site.Site) -> None:
    before = served(new_site)
    rotation.begin(new_site)
    rotation.switch(new_site)
    rotation.end(new_site, keep_authority=True)
    site.render(new_site)
    assert trusts(new_site, "beat", before, "rabbitmq")
    rotation.end(new_site, keep_authority=False)
    assert not trusts(new_site, "beat", before, "rabbitmq")


KEPT = {"migrate/admin_password", "rabbitmq/erlang_cookie"}
"""What a person chose; and the cookie, because brokers with two cookies are two clusters."""


def test_every_secret_is_new_but_the_password_that_a_person_chose(new_site: site.Site) -> None:
    before = secrets(new_site)
    rotate(new_site)
    kept = {name for name, value in secrets(new_site).items() if value == before[name]}
    assert kept == KEPT
    assert site.problems(new_site, "containers", ports=False) == []


def test_a_key_opens_everywhere_before_it_seals_anywhere(new_site: site.Site) -> None:
    (old,) = sealing_keys(new_site)
    token = Fernet(old).encrypt(b"credential")
    rotation.begin(new_site)
    first, second = sealing_keys(new_site)
    assert first == old
    rotation.switch(new_site)
    assert sealing_keys(new_site) == [second, old]
    for service in site.SEALERS:
        keys = MultiFernet([Fernet(key) for key in sealing_keys(new_site, service)])
        assert keys.decrypt(token) == b"credential"
    rotation.end(new_site, keep_authority=False)
    assert {tuple(sealing_keys(new_site, service)) for service in site.SEALERS} == {(second,)}


def test_what_was_signed_before_stays_valid_for_a_day(new_site: site.Site) -> None:
    before = secrets(new_site)["web/secret_key"]
    rotate(new_site)
    old = new_site.folder / "web" / "secret_key_old"
    assert old.read_text() == before
    yesterday = time.time() - site.OLD_SECRET_KEY_LIFETIME.total_seconds() - 1
    os.utime(old, (yesterday, yesterday))
    site.render(new_site)
    assert not old.exists()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_rotation_that_broke_off_is_finished_by_the_next(new_site: site.Site, steps: int) -> None:
    before = secrets(new_site)
    token = Fernet(sealing_keys(new_site)[0]).encrypt(b"credential")
    for step in STEPS[:steps]:
        step(new_site)
    site.render(new_site)
    for step in STEPS[:2]:
        step(new_site)
    keys = MultiFernet([Fernet(key) for key in sealing_keys(new_site)])
    assert keys.decrypt(token) == b"credential"
    STEPS[2](new_site)
    assert len(sealing_keys(new_site)) == 1
    changed = {name for name, value in secrets(new_site).items() if value != before[name]}
    assert changed == set(before) - KEPT
    assert trusts(new_site, "web", served(new_site), "rabbitmq")


def test_a_step_can_be_run_by_its_name(new_site: site.Site) -> None:
    arguments = ["local", "--root", str(new_site.root), "--stack", "embedded"]
    for step in ("begin", "switch", "end"):
        assert rotation.main([step, *arguments]) == 0
    assert len(sealing_keys(new_site)) == 1


def test_a_site_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert rotation.main(["begin", "nowhere", "--root", str(tmp_path)]) == 1
