"""The alerts' pages that mails link to."""

LINKED = {"alerts": "alerts/", "alert": "alerts/<int:key>/"}
