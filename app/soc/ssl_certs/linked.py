"""The certificate tracker's pages that mails link to."""

LINKED = {"certificates": "certificates/", "endpoint": "certificates/<int:key>/"}
