"""The rotation of a site's files: at no step does anybody meet a stranger."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.fernet import Fernet, MultiFernet
from cryptography.x509.verification import PolicyBuilder, Store

from soc.core import rotation, site

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS: list[Callable[[site.Site], None]] = [
    rotation.begin,
    rotation.switch,
    lambda made: rotation.end(made, keep_authority=False),
]


@pytest.fixture
def made(tmp_path: Path) -> site.Site:
    shutil.copy(REPOSITORY / "env" / "example.env", tmp_path)
    new = site.Site("local", tmp_path)
    site.create(new, "containers", {})
    site.render(new)
    return new


def secrets(made: site.Site) -> dict[str, str]:
    return {
        f"{service}/{name}": (made.folder / service / name).read_text()
        for service, names in site._SECRETS.items()
        for name in names
    }


def trusts(made: site.Site, client: str, certificate: bytes, server: str) -> bool:
    authorities = x509.load_pem_x509_certificates((made.folder / client / "ca.pem").read_bytes())
    verifier = PolicyBuilder().store(Store(authorities)).build_server_verifier(x509.DNSName(server))
    try:
        verifier.verify(x509.load_pem_x509_certificate(certificate), [])
    except x509.verification.VerificationError:
        return False
    return True


def served(made: site.Site) -> bytes:
    return (made.folder / "rabbitmq" / "cert.pem").read_bytes()


def sealing_keys(made: site.Site, service: str = "web") -> list[str]:
    return (made.folder / service / "sealing_keys").read_text().split()


def rotate(made: site.Site) -> None:
    for step in STEPS:
        step(made)


def test_a_server_that_is_one_step_behind_is_trusted_and_trusts(made: site.Site) -> None:
    before = served(made)
    for step in STEPS[:2]:
        step(made)
        # A server loads its files a moment after they were written.
        assert trusts(made, "beat", before, "rabbitmq")
        assert trusts(made, "beat", served(made), "rabbitmq")
        before = served(made)


def test_after_it_the_old_ca_is_trusted_no_more(made: site.Site) -> None:
    before = served(made)
    rotate(made)
    assert not trusts(made, "beat", before, "rabbitmq")
    assert trusts(made, "beat", served(made), "rabbitmq")
    assert sorted(p.name for p in (made.folder / "ca").iterdir()) == ["ca.key", "ca.pem"]


def test_the_old_ca_stays_trusted_if_senders_outside_need_time(made: site.Site) -> None:
    before = served(made)
    rotation.begin(made)
    rotation.switch(made)
    rotation.end(made, keep_authority=True)
    site.render(made)
    assert trusts(made, "beat", before, "rabbitmq")
    rotation.end(made, keep_authority=False)
    assert not trusts(made, "beat", before, "rabbitmq")


def test_every_secret_is_new_but_the_password_that_a_person_chose(made: site.Site) -> None:
    before = secrets(made)
    rotate(made)
    kept = {name for name, value in secrets(made).items() if value == before[name]}
    assert kept == {"migrate/admin_password"}
    assert site.problems(made, "containers", ports=False) == []


def test_a_key_opens_everywhere_before_it_seals_anywhere(made: site.Site) -> None:
    (old,) = sealing_keys(made)
    token = Fernet(old).encrypt(b"credential")
    rotation.begin(made)
    first, second = sealing_keys(made)
    assert first == old
    rotation.switch(made)
    assert sealing_keys(made) == [second, old]
    for service in site.SEALERS:
        keys = MultiFernet([Fernet(key) for key in sealing_keys(made, service)])
        assert keys.decrypt(token) == b"credential"
    rotation.end(made, keep_authority=False)
    assert {tuple(sealing_keys(made, service)) for service in site.SEALERS} == {(second,)}


def test_what_was_signed_before_stays_valid_for_a_day(made: site.Site) -> None:
    before = secrets(made)["web/secret_key"]
    rotate(made)
    old = made.folder / "web" / "secret_key_old"
    assert old.read_text() == before
    yesterday = time.time() - site.OLD_SECRET_KEY_LIFETIME.total_seconds() - 1
    os.utime(old, (yesterday, yesterday))
    site.render(made)
    assert not old.exists()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_rotation_that_broke_off_is_finished_by_the_next(made: site.Site, steps: int) -> None:
    before = secrets(made)
    token = Fernet(sealing_keys(made)[0]).encrypt(b"credential")
    for step in STEPS[:steps]:
        step(made)
    site.render(made)
    for step in STEPS[:2]:
        step(made)
    keys = MultiFernet([Fernet(key) for key in sealing_keys(made)])
    assert keys.decrypt(token) == b"credential"
    STEPS[2](made)
    assert len(sealing_keys(made)) == 1
    changed = {name for name, value in secrets(made).items() if value != before[name]}
    assert changed == set(before) - {"migrate/admin_password"}
    assert trusts(made, "web", served(made), "rabbitmq")


def test_a_step_can_be_run_by_its_name(made: site.Site) -> None:
    arguments = ["local", "--root", str(made.root), "--stack", "embedded"]
    for step in ("begin", "switch", "end"):
        assert rotation.main([step, *arguments]) == 0
    assert len(sealing_keys(made)) == 1


def test_a_site_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert rotation.main(["begin", "nowhere", "--root", str(tmp_path)]) == 1
