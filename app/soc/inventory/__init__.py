"""Robots, locations, endpoints and directory servers from a site's inventory."""

SEALS = True
"""Its worker reads stored credentials: `soc.provision.site` gives it the keys to them."""
