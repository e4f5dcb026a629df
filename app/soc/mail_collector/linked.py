"""The mail collector's page, which mails link to."""

LINKED = {"mail-matrix": "mail/"}
