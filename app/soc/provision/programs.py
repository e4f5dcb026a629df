"""Prints supervisord's programs of the embedded stack, by the names of compose.yaml's services.

``docker/embedded/stack`` writes them next to a site's state, where
``configs/supervisor/supervisord.conf`` includes them (supervisor's manual, "Configuration File").
"""

from collections.abc import Iterator
from pathlib import Path

from soc.runtime.queues import QUEUES

ROOT = Path(__file__).resolve().parents[3]

BEFORE_KILL = 40
"""Seconds from the request to stop until a program is killed: above gunicorn's graceful_timeout."""

WORKER_BEFORE_KILL = max(queue.time_limit for queue in QUEUES) + 10
"""A worker finishes the task that it has begun."""

_PROGRAM = """
[program:{name}]
command="{root}/var/venv/bin/python" -m {command}
directory={root}/app
environment=SOC_SERVICE="{name}",SOC_IDENTITY="{root}/env/%(ENV_SOC_SITE)s/{name}",SOC_STATE="%(ENV_SOC_STATE)s"
autostart={autostart}
stopwaitsecs={patience}
startsecs=3
autorestart=true
killasgroup=true
redirect_stderr=true
stdout_logfile=%(ENV_SOC_STATE)s/logs/{name}.log
stdout_logfile_maxbytes=2MB
stdout_logfile_backups=2
"""


def _commands() -> Iterator[tuple[str, str]]:
    """Yield the name of each program and the module that it runs, with arguments."""
    yield "beat", "soc.runtime.scheduler"
    yield "catcher", "soc.notify.catcher"
    yield "flower", "soc.flower"
    yield "web", "gunicorn soc.wsgi --config=gunicorn.conf.py"
    for queue in QUEUES:
        yield queue.service, f"soc.runtime.worker {queue.name}"


def render() -> str:
    """Return the programs as sections of a configuration file."""
    return "".join(
        _PROGRAM.format(
            name=name,
            command=command,
            root=str(ROOT).replace("%", "%%"),
            autostart="%(ENV_CATCHER)s" if name == "catcher" else "true",
            patience=WORKER_BEFORE_KILL if name.startswith("worker-") else BEFORE_KILL,
        )
        for name, command in _commands()
    )


if __name__ == "__main__":
    print(render())
