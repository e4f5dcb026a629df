"""Subscriptions, and the mail and messages that go out to them."""

SEALS = True
"""Its worker reads stored credentials: `soc.provision.site` gives it the keys to them."""
