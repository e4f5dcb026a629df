"""Endpoints as lists of an inventory have them."""

from soc.common.inventory import InventoryTarget
from soc.ssl_certs.models import Endpoint, Group
from soc.trust.models import Authority

TARGETS = (
    InventoryTarget(
        "endpoints",
        Endpoint,
        ("host", "port", "server_name"),
        (
            *("starttls", "authority", "group", "interval_minutes", "expected_issuer"),
            *("enabled", "notes"),
        ),
        named={"authority": Authority, "group": Group},
        hosts=frozenset({"host", "server_name"}),
    ),
)
