"""Directory servers as lists of an inventory have them."""

from soc.common.inventory import InventoryTarget
from soc.ldap_probe.models import Credential, DirectoryServer, Profile
from soc.trust.models import Authority

TARGETS = (
    InventoryTarget(
        "directories",
        DirectoryServer,
        ("host", "port"),
        (
            *("security", "certificate_name", "authority", "base", "filter", "credential"),
            *("profile", "site", "group", "interval_minutes", "enabled", "notes"),
        ),
        named={"authority": Authority, "credential": Credential, "profile": Profile},
        hosts=frozenset({"host", "certificate_name"}),
    ),
)
