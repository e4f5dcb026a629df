"""The tasks of the inventory."""

from soc.inventory import importing
from soc.notify.tasks import wake
from soc.runtime.celery import app


@app.task
def run_due() -> None:
    """Run one source that is due."""
    if importing.run_due():
        wake()
