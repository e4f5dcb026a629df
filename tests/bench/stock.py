"""Celery as it comes, for the benchmarks that compare with it."""

import ssl

import celery

IDENTITY = "/identity"


def app() -> celery.Celery:
    """Return an application of which is set only how to reach the site's broker."""
    return celery.Celery(
        "stock",
        broker="amqps://bench@rabbitmq:5671/bench",
        broker_login_method="EXTERNAL",
        broker_use_ssl={
            "ca_certs": f"{IDENTITY}/ca.pem",
            "certfile": f"{IDENTITY}/cert.pem",
            "keyfile": f"{IDENTITY}/key.pem",
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": None,
        },
    )
