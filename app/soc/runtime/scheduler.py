"""Starts beat.

python -m soc.runtime.scheduler
"""

from soc.runtime.celery import app


def main() -> None:
    """Run beat until it is asked to stop."""
    # Not through Celery's command line, which loads every other command, Flower with it.
    app.Beat(loglevel="WARNING").run()


if __name__ == "__main__":
    main()
