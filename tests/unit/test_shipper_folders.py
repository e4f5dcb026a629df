"""The folders that `make shipper` writes, and what of them the broker learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from soc.provision import rotation, shippers, site


def definitions(made: site.Site) -> dict[str, list[dict[str, str]]]:
    return json.loads((made.folder / "rabbitmq" / "definitions.json").read_text())


def users(made: site.Site) -> set[str]:
    return {user["name"] for user in definitions(made)["users"]}


@pytest.mark.parametrize("kind", shippers.KINDS)
def test_a_folder_has_all_that_a_shipper_needs(new_site: site.Site, kind: str) -> None:
    shipper = site.add_shipper(new_site, "north-1", kind)
    files = {path.name: path.read_text(errors="replace") for path in shipper.folder.iterdir()}
    assert {*shippers.KINDS[kind], "test.sh", "ca.pem", "cert.pem", "key.pem"} <= set(files)
    certificate = x509.load_pem_x509_certificate((shipper.folder / "cert.pem").read_bytes())
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == shipper.user
    store = (shipper.folder / "north-1.p12").read_bytes()
    found = pkcs12.load_pkcs12(store, files["password"].encode())
    assert found.cert
    assert found.cert.certificate == certificate
    assert not any("@NAME@" in text or "@USER@" in text for text in files.values())
    for name in (*shippers.KINDS[kind], "test.sh"):
        assert "shipper.north-1" in files[name]


def test_a_shipper_is_a_user_who_may_write_to_an_exchange_of_its_own_only(
    new_site: site.Site,
) -> None:
    shipper = site.add_shipper(new_site, "north", "logstash")
    found = definitions(new_site)
    (allowed,) = (one for one in found["permissions"] if one["user"] == shipper.user)
    own = r"^(shipper\.north)$"
    assert (allowed["configure"], allowed["write"], allowed["read"]) == (own, own, "^$")
    bound = [one for one in found["bindings"] if one["source"] == "shipper.north"]
    assert [(one["destination"], one["routing_key"]) for one in bound] == [("events", "#")]
    user = next(one for one in found["users"] if one["name"] == shipper.user)
    assert user["password_hash"]
    assert not user["tags"]


def test_a_revoked_shipper_is_known_no_more_and_its_user_never_again(new_site: site.Site) -> None:
    first = site.add_shipper(new_site, "north", "other")
    assert first.user in users(new_site)
    site.revoke_shipper(new_site, "north")
    assert first.user not in users(new_site)
    assert not first.folder.exists()
    second = site.add_shipper(new_site, "north", "other")
    assert second.user != first.user
    assert users(new_site) >= {second.user}


def test_rendering_again_changes_nothing(new_site: site.Site) -> None:
    shipper = site.add_shipper(new_site, "north", "logstash")
    before = {path: path.read_bytes() for path in shipper.folder.iterdir()}
    site.render(new_site)
    assert {path: path.read_bytes() for path in shipper.folder.iterdir()} == before


def test_a_rotation_renews_the_folders(new_site: site.Site) -> None:
    shipper = site.add_shipper(new_site, "north", "logstash")
    before = {path.name: path.read_bytes() for path in shipper.folder.iterdir()}
    rotation.begin(new_site)
    rotation.switch(new_site)
    after = {path.name: path.read_bytes() for path in shipper.folder.iterdir()}
    renewed = {"password", "cert.pem", "key.pem", "ca.pem", "north.p12"}
    assert {name for name in before if before[name] != after[name]} == renewed
    assert shipper.user in users(new_site)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add-shipper", "--name=../web", "--kind=other"], "Invalid NAME '../web'"),
        (["add-shipper", "--name=Web", "--kind=other"], "use a small letter first"),
        (["add-shipper", "--name=north", "--kind=beats"], "use one of logstash, syslog-ng"),
        (["add-shipper", "--name=taken", "--kind=other"], "There is a shipper taken already"),
        (["revoke-shipper", "--name=north"], "There is no shipper 'north'; there are: taken."),
    ],
)
def test_what_cannot_be_done_is_said(
    new_site: site.Site, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    site.add_shipper(new_site, "taken", "other")
    action, *options = arguments
    where = ["--root", str(new_site.root), "--stack", "embedded"]
    assert site.main([action, new_site.name, *options, *where]) == 1
    assert words in capsys.readouterr().err


def test_they_are_made_listed_and_revoked_by_command(
    new_site: site.Site, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [new_site.name, "--root", str(new_site.root), "--stack", "embedded"]
    assert site.main(["add-shipper", *where, "--name=north", "--kind=syslog-ng"]) == 0
    user = capsys.readouterr().out.strip()
    assert site.main(["shippers", *where]) == 0
    assert capsys.readouterr().out == f"north syslog-ng {user}\n"
    assert site.main(["revoke-shipper", *where, "--name=north"]) == 0
    assert capsys.readouterr().out.strip() == user
    assert not list(Path(new_site.folder / "shippers").iterdir())
