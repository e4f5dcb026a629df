"""The cron jobs' place in the navigation."""

from soc.common.nav import Menu, Page

PAGES = (Page("Cron jobs", "cronjobs", "cronjobs.view_cronjob"),)
MENU = Menu("Watch", ("Cron jobs", "schedule_send", "cronjobs.cronjob"))
