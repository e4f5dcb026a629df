"""The roles that people have: groups, made by migrations, and what comes with them."""

from collections.abc import Iterable

from django.contrib.auth.models import Group, Permission, User

from soc.provision.environment import ROLES

ADMINISTRATORS = "Administrators"
STAFF = frozenset({ADMINISTRATORS, "Operators"})
"""The roles whose work needs pages of the admin."""


def complete() -> None:
    """Let the administrators do everything: who may do less is no administrator."""
    group, _ = Group.objects.get_or_create(name=ADMINISTRATORS)
    group.permissions.set(Permission.objects.all())


def of(user: User) -> set[str]:
    """Return the roles of a user."""
    return set(user.groups.filter(name__in=ROLES).values_list("name", flat=True))


def assign(user: User, roles: Iterable[str]) -> None:
    """Give a user exactly these of the roles; groups that a site has made itself stay."""
    present = of(user)
    wanted = set(roles)
    user.groups.remove(*Group.objects.filter(name__in=present - wanted))
    user.groups.add(*Group.objects.filter(name__in=wanted - present))
    if user.is_staff != bool(wanted & STAFF):
        user.is_staff = not user.is_staff
        user.save(update_fields=["is_staff"])
