"""What a project can hang on to: a sign of life, and the end of it."""

from django.dispatch import Signal

ticked = Signal()
"""Sent once a second by a beat that works, active or not; ``scheduler`` is the sender's object."""

closed = Signal()
"""Sent when a beat stops in order."""
