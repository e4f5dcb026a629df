"""The stack's own endpoints follow what its web servers present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pki
from soc.ssl_certs import own
from soc.ssl_certs.models import Endpoint
from soc.trust.models import Authority

pytestmark = pytest.mark.django_db

NAME = "soc.health.internal"


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    """The secrets of ``migrate`` in a site of containers with a CA of its own."""
    Authority.objects.all().delete()
    Endpoint.objects.all().delete()
    settings.IDENTITY, settings.EMBEDDED = tmp_path, False
    settings.SITE = {**settings.SITE, "SOC_HOSTNAMES": f"localhost,{NAME}"}
    (tmp_path / "ca.pem").write_bytes(pki.issue("site", ca=True).cert_pem)
    own.register()
    return tmp_path


def web() -> Endpoint:
    return Endpoint.objects.get(host="web")


def bring(folder: Path, *issuers: pki.Issued) -> None:
    leaf = pki.issue(NAME, *issuers[:1], san=[NAME])
    pem = b"".join(one.cert_pem for one in (leaf, *issuers))
    (folder / "web-own-cert.pem").write_bytes(pem)
    own.register()


def test_what_a_site_brings_is_expected_until_it_is_taken_away(folder: Path) -> None:
    middle = pki.issue("corporate CA", ca=True)
    bring(folder, middle)
    assert web().server_name == NAME
    assert web().authority.pem.encode() == middle.cert_pem
    assert Endpoint.objects.get(host="flower").authority.name == "site CA"
    (folder / "web-own-cert.pem").unlink()
    own.register()
    assert (web().server_name, web().authority.name) == ("", "site CA")


def test_one_that_comes_without_issuers_is_left_to_the_systems_authorities(folder: Path) -> None:
    bring(folder)
    assert (web().server_name, web().authority) == (NAME, None)


def test_an_endpoint_that_an_operator_has_taken_over_is_left_alone(folder: Path) -> None:
    Endpoint.objects.filter(host="web").update(notes="ours now")
    bring(folder)
    assert (web().server_name, web().authority.name) == ("", "site CA")


def test_an_operators_endpoint_of_the_same_name_is_no_obstacle(folder: Path) -> None:
    Endpoint.objects.create(host="web", port=8443, server_name=NAME)
    bring(folder)
    names = Endpoint.objects.filter(host="web").values_list("server_name", flat=True)
    assert sorted(names) == ["", NAME]
