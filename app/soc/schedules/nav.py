"""The schedules' place in the navigation."""

from soc.common.nav import Menu

MENU = Menu(
    "Operations",
    ("Schedules", "schedule", "django_celery_beat.periodictask"),
    ("Intervals", "timer", "django_celery_beat.intervalschedule"),
    ("Crontabs", "calendar_month", "django_celery_beat.crontabschedule"),
    ("Clocked times", "alarm", "django_celery_beat.clockedschedule"),
    ("Solar events", "wb_twilight", "django_celery_beat.solarschedule"),
)
