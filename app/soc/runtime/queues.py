"""The list of queues: everything that knows a queue's name derives from here.

Celery's ``task_queues`` and routing, the broker's definitions, the worker's options and the
contract tests (compose services, supervisor programs) read this catalogue.
"""

from dataclasses import dataclass

TASK_EXCHANGE = "soc.tasks"
DEAD_LETTER_EXCHANGE = "soc.dead"
QUORUM = {"x-queue-type": "quorum"}
"""The arguments of every task queue: replicated, and safe with late acknowledgement."""


@dataclass(frozen=True)
class Stream:
    """The topic exchange whose messages, which are no tasks, a queue gathers."""

    exchange: str
    routing_key: str
    publisher: str
    """The broker user who may publish there, and nothing else."""

    @property
    def unrouted(self) -> str:
        """The exchange that takes what was published with another routing key."""
        return f"{self.exchange}.unrouted"


@dataclass(frozen=True)
class Queue:
    """One queue and the worker that empties it: of tasks, unless it has a stream.

    Times are in seconds. A message is dead-lettered after ``delivery_limit`` deliveries that were
    not acknowledged, after ``message_ttl`` in the queue, or when a worker rejects it.
    """

    name: str
    purpose: str
    applications: tuple[str, ...] = ()
    stream: Stream | None = None
    concurrency: int = 1
    prefetch: int = 1
    soft_time_limit: int = 60
    time_limit: int = 90
    message_ttl: int = 3600
    max_length: int = 10_000
    delivery_limit: int = 5

    @property
    def routing_key(self) -> str:
        """The topic under which the queue's tasks are published."""
        return self.name

    @property
    def dead_letter_name(self) -> str:
        """The queue where this queue's rejected and expired messages wait for a person."""
        return f"{self.name}.dead"

    @property
    def service(self) -> str:
        """The compose service, supervisor program and broker user of the queue's worker."""
        return "worker-" + self.name.replace("_", "-")

    @property
    def policy(self) -> dict[str, str | int]:
        """The queue's limits (RabbitMQ documentation: policies, quorum queues, dead lettering).

        A policy, because it can change: a queue keeps the arguments it was declared with.
        """
        return {
            "dead-letter-exchange": DEAD_LETTER_EXCHANGE,
            "dead-letter-routing-key": self.routing_key,
            "dead-letter-strategy": "at-least-once",
            "delivery-limit": self.delivery_limit,
            "max-length": self.max_length,
            "message-ttl": self.message_ttl * 1000,
            "overflow": "reject-publish",
        }


QUEUES: tuple[Queue, ...] = (
    Queue("email", "mail to subscribers, for every application", applications=("notify",)),
    Queue(
        "shared",
        "housekeeping and small tasks of every application",
        applications=("core", "alerts", "events", "cronjobs"),
    ),
    Queue("ssl_certs", "certificate scans", applications=("ssl_certs",), concurrency=2),
    Queue("ldap_probe", "probes of directory servers", applications=("ldap_probe",)),
    Queue(
        "mail_collector",
        "judges the robots' mails and logons, sends mail round, reads inventories",
        applications=("mail_collector", "logons", "mail_routes", "inventory"),
        # A mail server that hangs must not keep robots from being judged.
        concurrency=2,
    ),
    Queue(
        "events",
        "Windows events of the robots",
        stream=Stream("logstash", "logstash", publisher="logstash"),
        message_ttl=7 * 24 * 3600,
        max_length=2_000_000,
    ),
)

TASK_QUEUES = tuple(queue for queue in QUEUES if queue.stream is None)
STREAMS = {queue.name: queue.stream for queue in QUEUES if queue.stream is not None}

BY_NAME = {queue.name: queue for queue in QUEUES}
BY_APPLICATION = {name: queue for queue in QUEUES for name in queue.applications}


def queue_of(task_name: str) -> Queue:
    """Return the queue of a task by its name, ``soc.<application>.tasks.<function>``.

    Raises:
        LookupError: no queue belongs to the task's application.
    """
    match task_name.split("."):
        case ["soc", application, "tasks", _] if application in BY_APPLICATION:
            return BY_APPLICATION[application]
    raise LookupError(
        f"{task_name} has no queue: a task is named soc.<application>.tasks.<function> "
        f"and its application stands in soc/runtime/queues.py"
    )
