"""The event stream's pages that mails link to."""

LINKED = {"queues": "queues/"}
