"""The tasks of the ldap_probe queue."""

from soc.ldap_probe import rounds
from soc.notify.tasks import wake
from soc.runtime.celery import app


@app.task
def probe_due() -> int:
    """Probe the servers that are due, all in this one task, and return how many they were.

    Probes wait, they do not compute: threads of one process do in one task what a task per server
    would need as many worker processes for.
    """
    count, mails = rounds.run()
    if mails:
        wake()
    return count
