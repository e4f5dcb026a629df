"""The robots' pages that mails link to."""

LINKED = {"robots": "robots/", "robots-site": "robots/site/<int:key>/"}
