"""How stored accounts are used, so that a wrong password locks none of them.

Mail servers count refused logins as directories do, and often of the same accounts: after two in a
row an account is not tried any more, until it is changed or a person says so.
"""

from collections.abc import Collection, Mapping
from typing import Any

from django.db.models import F, Q, QuerySet
from django.db.models.functions import Least
from django.utils import timezone

from soc.mail_routes.ends import MailEnd, MailLogin
from soc.mail_routes.models import MailAccount, MailRoute

MOST_REFUSALS = 2
"""Below the lowest limit in use, 3."""

_DECIDES = ("user", "method", "secret", "token_url", "client_id", "scope")
"""The fields that a login is made of."""

_NOT_REFUSED: Mapping[str, Any] = {
    "refusals": 0,
    "refused_at": None,
    "refused_by": "",
    "refusal": "",
}


def is_held(account: MailAccount | None) -> bool:
    """Return whether an account is not tried any more."""
    return account is not None and account.refusals >= MOST_REFUSALS


def login_of(account: MailAccount | None) -> MailLogin | None:
    """Return an account as a session takes it.

    Raises:
        SealProblem: the keys of this service do not open its secret.
    """
    if account is None:
        return None
    secret = account.secret.reveal()
    if account.method == MailAccount.Method.PASSWORD:
        return MailLogin(account.user, secret)
    # Nobody else needs the library.
    from soc.notify.xoauth2 import TokenClient

    authorities = account.authority.pem if account.authority else ""
    client = TokenClient(account.token_url, account.client_id, secret, account.scope, authorities)
    return MailLogin(account.user, tokens=client)


def note_refusal(account: MailAccount | None, end: MailEnd, words: str) -> None:
    """Count a refused login, unless the account was changed meanwhile."""
    if account is not None:
        _unchanged(account).update(
            refusals=F("refusals") + 1,
            refused_at=timezone.now(),
            refused_by=str(end),
            refusal=words,
        )


def note_success(account: MailAccount | None, end: MailEnd) -> None:
    """Clear the refusals of a server that takes the account; another's count goes on."""
    if account is not None and account.refused_by == str(end):
        _unchanged(account).update(**_NOT_REFUSED)


def _unchanged(account: MailAccount) -> QuerySet[MailAccount]:
    decides = {name: getattr(account, name) for name in _DECIDES}
    return MailAccount.objects.filter(pk=account.pk, **decides)


def try_now(keys: Collection[int]) -> int:
    """Allow one more login with each account, and make its routes due; return their number."""
    MailAccount.objects.filter(pk__in=keys).update(refusals=Least("refusals", MOST_REFUSALS - 1))
    using = Q(smtp_account__in=keys) | Q(imap_account__in=keys)
    return MailRoute.objects.filter(using, enabled=True).update(next_run_at=timezone.now())


def clear_refusals(instance: MailAccount, **_: object) -> None:
    """Have an account that was changed tried again."""
    stored = MailAccount.objects.filter(pk=instance.pk).first()
    if stored and any(getattr(stored, name) != getattr(instance, name) for name in _DECIDES):
        for name, value in _NOT_REFUSED.items():
            setattr(instance, name, value)
