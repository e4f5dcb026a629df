"""Whom a message to a subscription names: its recipients, and who is on call at the moment."""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property

from soc.notify import channels
from soc.notify.models import Subscription
from soc.oncall import plan


class Recipients:
    """The recipients of subscriptions at one moment; the rotas are read once, and only if asked."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    @cached_property
    def _on_call(self) -> dict[int, str]:
        found = {}
        for one in plan.read(self.now):
            if person := one.at(self.now).person:
                found[one.rota.pk] = person.email
        return found

    def of(self, subscription: Subscription, also: Sequence[str] = ()) -> list[str]:
        """Return whom a row of the outbox names: addresses, or the one host it is posted to.

        ``also`` are addresses besides: who was on call at an earlier moment.

        A subscription whose rota has a gap and that has no other recipients falls back to its
        fallback recipients; without any, the list is empty.
        """
        if subscription.channel != channels.EMAIL:
            return [subscription.url_host]
        addresses = [*subscription.addresses, *also]
        if subscription.rota_id is not None and (
            address := self._on_call.get(subscription.rota_id)
        ):
            addresses.append(address)
        return list(dict.fromkeys(addresses)) or subscription.fallback_addresses
