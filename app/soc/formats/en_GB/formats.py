"""How dates and times look on screens: the 24-hour clock of an operations room."""

DATETIME_FORMAT = "j M Y H:i:s"
TIME_FORMAT = "H:i:s"
