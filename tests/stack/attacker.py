"""Attempts every forbidden act with every identity of a site; runs beside the stack.

Prints, as JSON, each identity's acts with the broker's answer, "" where it was obeyed.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amqp

IDENTITIES = Path("/identities")
LEVEL = "celery_delayed_27"
DIGITS = "0." * 27 + "1."
Act = Callable[[amqp.Channel], Any]


def connect(name: str, **options: Any) -> amqp.Connection:
    folder = IDENTITIES / name
    tls = {
        "ca_certs": f"{folder}/ca.pem",
        "certfile": f"{folder}/cert.pem",
        "keyfile": f"{folder}/key.pem",
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": "rabbitmq",
    }
    connection = amqp.Connection(
        "rabbitmq:5671",
        **{"login_method": "EXTERNAL", "ssl": tls, "connect_timeout": 5} | options,
        confirm_publish=True,
    )
    connection.connect()
    return connection


def publish(exchange: str, key: str, **headers: Any) -> Act:
    message = amqp.Message("x", application_headers=headers)
    return lambda channel: channel.basic_publish_confirm(message, exchange, key)


def acts(own: str, victim: str, mailbox: str) -> dict[str, Act]:
    """Return what nobody may do to the queue of another worker, and to what all share."""
    return {
        "get from another queue": lambda c: c.basic_get(victim),
        "consume another queue": lambda c: c.basic_consume(victim),
        "purge another queue": lambda c: c.queue_purge(victim),
        "delete another queue": lambda c: c.queue_delete(victim),
        "read dead letters": lambda c: c.basic_get(f"{victim}.dead"),
        "publish for another": publish("soc.tasks", victim),
        "publish for another, delayed": publish(LEVEL, DIGITS + victim),
        "publish for another by CC": publish("soc.tasks", own, CC=[victim]),
        "publish by queue name": publish("", victim),
        "publish an event of robots": publish("logstash", "logstash"),
        "publish a dead letter": publish("soc.dead", victim),
        "declare a queue": lambda c: c.queue_declare("stranger"),
        "publish for the mail": publish("soc.tasks", "email"),
        "declare an exchange": lambda c: c.exchange_declare("stranger", "topic"),
        "declare the exchange of robots": lambda c: c.exchange_declare(
            "logstash", "topic", durable=True, auto_delete=False
        ),
        "delete the exchange of tasks": lambda c: c.exchange_delete("soc.tasks"),
        "delete the exchange of events": lambda c: c.exchange_delete("celeryev"),
        "delete the exchange of control": lambda c: c.exchange_delete("celery.pidbox"),
        "bind another queue": lambda c: c.queue_bind(victim, "soc.tasks", "#"),
        "divert another's tasks": lambda c: c.queue_bind(mailbox, "soc.tasks", "#"),
        "broadcast control": publish("celery.pidbox", ""),
        "read another's control": lambda c: c.queue_declare(f"{victim}@x.celery.pidbox"),
        "sniff task events": lambda c: (
            c.queue_declare("celeryev.spy", exclusive=True),
            c.queue_bind("celeryev.spy", "celeryev", "#"),
        ),
        "send task events": publish("celeryev", "worker.heartbeat"),
    }


def attempt(connection: amqp.Connection, act: Act) -> str:
    channel = connection.channel()
    try:
        act(channel)
    except amqp.AMQPError as error:
        return str(error.reply_text or error)
    channel.close()
    return ""


def ask_management(name: str) -> str:
    context = ssl.create_default_context(cafile=IDENTITIES / name / "ca.pem")
    context.load_cert_chain(IDENTITIES / name / "cert.pem", IDENTITIES / name / "key.pem")
    request = urllib.request.Request("https://rabbitmq:15671/api/overview")
    # The name with the empty password that its user has.
    login = base64.b64encode(f"{name}:".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    try:
        urllib.request.urlopen(request, context=context, timeout=10)
    except urllib.error.HTTPError as error:
        return f"management API: {error.code}"
    return ""


def log_in_as(name: str, other: str) -> str:
    """Log in by a password as somebody else."""
    try:
        connect(name, login_method="PLAIN", userid=other, password="guest").close()
    except Exception as error:
        return f"{error}"
    return ""


def main(workers: dict[str, str]) -> None:
    """Attack as everybody; `workers` has the queue of each worker."""
    answers: dict[str, dict[str, str]] = {}
    for name in sorted(folder.name for folder in IDENTITIES.iterdir()):
        victim = "shared" if workers.get(name) != "shared" else "ssl_certs"
        answers[name] = mine = {}
        try:
            connection = connect(name)
        except Exception as error:
            mine["log in"] = f"{error}"
            continue
        mine["log in"] = ""
        own = workers.get(name, "stranger")
        mailbox = f"{own}@attacker.celery.pidbox"
        if name in workers:
            connection.channel().queue_declare(mailbox, auto_delete=True)
        for what, act in acts(own, victim, mailbox).items():
            mine[what] = attempt(connection, act)
        mine["log in as another"] = log_in_as(name, "beat" if name != "beat" else "flower")
        mine["ask the management API"] = ask_management(name)
        connection.close()
    print(json.dumps(answers))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
