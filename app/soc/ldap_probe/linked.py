"""The directory servers' pages that mails link to."""

LINKED = {"directories": "directories/", "directory": "directories/<int:key>/"}
