"""Round trips of the site's own mail: from a submission server into a mailbox, and how long."""

SEALS = True
"""Its worker reads stored credentials: `soc.provision.site` gives it the keys to them."""
