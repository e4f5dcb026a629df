"""The application's pages that mails link to."""

LINKED = {"demo": "demo/"}
