"""The event stream's place in the navigation."""

from soc.common.nav import Menu

MENU = Menu(
    "Event stream",
    ("Robots", "smart_toy", "events.bot"),
    ("Sites", "location_on", "events.site"),
    ("Sources", "input", "events.eventsource"),
    ("Events", "receipt_long", "events.event"),
    ("Dead letters", "mark_email_unread", "events.deadletter"),
    ("Field mappings", "account_tree", "events.fieldmapping"),
    ("Counts", "speed", "events.ingestcount"),
    ("Stream settings", "tune", "events.streamsettings"),
    ("Backlog actions", "cleaning_services", "events.backlogaction"),
)
