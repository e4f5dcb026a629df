"""A person's groups as an OpenID Connect provider says them, and the roles that they give."""

from collections.abc import Mapping
from typing import Any

_MISSING = object()


class Unsent(Exception):
    """The provider knows groups and has left them out of its answer for their number."""


def in_claims(claims: Mapping[str, Any], name: str) -> bool:
    """Return whether a claim is there; its name may be a path, like ``realm_access.roles``."""
    return _at(claims, name) is not _MISSING


def of(claims: Mapping[str, Any], name: str) -> set[str]:
    """Return the groups that a claim names: a list, one text, or an object's keys.

    Raises:
        Unsent: OpenID Connect Core 1.0, 5.6.2: the claim is to be asked for elsewhere. Microsoft
            Entra answers so for more than 200 groups, and gives an address that wants another
            permission.
    """
    found = _at(claims, name)
    if found is _MISSING:
        elsewhere = claims.get("_claim_names")
        if isinstance(elsewhere, Mapping) and name in elsewhere:
            raise Unsent
        return set()
    if isinstance(found, str):
        return {found}
    if not isinstance(found, list | Mapping):
        return set()
    return {group for group in found if isinstance(group, str)}


def roles(groups: set[str], given: Mapping[str, str]) -> set[str]:
    """Return the roles that groups give; a group may be a distinguished name (RFC 4514)."""
    by_group = {_same(group): role for group, role in given.items()}
    return {by_group[_same(group)] for group in groups if _same(group) in by_group}


def _at(claims: Mapping[str, Any], path: str) -> Any:
    if path in claims:
        return claims[path]
    # A name within the path may have dots too.
    for dot in (place for place, letter in enumerate(path) if letter == "."):
        inner = claims.get(path[:dot])
        if isinstance(inner, Mapping) and (found := _at(inner, path[dot + 1 :])) is not _MISSING:
            return found
    return _MISSING


def _same(group: str) -> str:
    """Return a group's name as it is compared: a distinguished name without case and blanks."""
    if "=" not in group:
        return group
    return ",".join(part.strip() for part in group.split(",")).casefold()
