"""Mail, by the site's one relay; what the relay may say stands in ``soc.notify.smtp``."""

from collections.abc import Mapping

from soc.notify import channels, smtp
from soc.notify.channels.base import Channel
from soc.notify.models import OutboundMail, Subscription


class Email(Channel):
    """The relay is the site's, not a subscription's: a subscription has recipients only."""

    def validate(self, url: str, secret: str) -> dict[str, str]:
        """Refuse an address of another channel."""
        fields = {"url": url, "secret": secret}
        return {name: "E-mail has recipients instead." for name, value in fields.items() if value}

    def deliver(self, mail: OutboundMail) -> Mapping[str, smtp.SmtpReply]:
        """Hand a mail to the relay.

        Raises:
            RelayDown, ConnectionLost: as ``smtp.deliver``; the relay is held for all mail.
        """
        return smtp.deliver(mail, site_addresses)


def site_addresses() -> list[str]:
    """Return whom the site mails to, one of each domain before the others."""
    subscriptions = Subscription.objects.filter(enabled=True).order_by("pk")
    addresses = [
        address
        for subscription in subscriptions
        for address in (
            *(subscription.addresses if subscription.channel == channels.EMAIL else ()),
            *subscription.fallback_addresses,
        )
    ]
    of_domains = {address.rpartition("@")[2].lower(): address for address in reversed(addresses)}
    return list(dict.fromkeys((*of_domains.values(), *addresses)))
