"""The mail routes' pages that mails link to."""

LINKED = {"mail-routes": "mail/routes/", "mail-route": "mail/routes/<int:key>/"}
