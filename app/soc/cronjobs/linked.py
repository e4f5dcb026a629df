"""The pages of cron jobs that alerts link to, and the address that an administrator is shown."""

LINKED = {"cronjobs": "cronjobs/", "ping": "ping/<str:secret>"}
