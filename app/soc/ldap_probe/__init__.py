"""Directory servers: do they answer, rightly, and soon enough."""

SEALS = True
"""Its worker reads stored credentials: `soc.provision.site` gives it the keys to them."""
