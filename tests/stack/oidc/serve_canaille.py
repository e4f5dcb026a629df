"""Serves Canaille over TLS with one person in one group and one client, until it is stopped.

Run by the Python of an environment that has Canaille: the folder with cert.pem and key.pem, the
port, the client's redirect URI, its secret, and the person's password.
"""

import asyncio
import sys

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from hypercorn.asyncio import serve
from hypercorn.config import Config
from joserfc.jwk import RSAKey

folder, port, redirect_uri, secret, password = sys.argv[1:]
key = RSAKey.generate_key(2048, auto_kid=True)
app = create_app({
    "SECRET_KEY": secret,
    "SERVER_NAME": f"localhost:{port}",
    "PREFERRED_URL_SCHEME": "https",
    "CANAILLE": {"DATABASE": "memory", "JAVASCRIPT": False, "HTMX": False},
    "CANAILLE_OIDC": {"ACTIVE_JWKS": [key.as_dict(private=True)]},
})  # fmt: skip
with app.app_context():
    vera = models.User(
        user_name="vera",
        formatted_name="Vera Vogt",
        family_name="Vogt",
        emails=["vera@soc.test"],
        password=password,
    )
    client = models.Client(
        client_id="soc",
        client_secret=secret,
        client_name="SOC",
        redirect_uris=[redirect_uri],
        grant_types=["authorization_code"],
        response_types=["code"],
        scope=["openid", "profile", "email", "groups"],
        token_endpoint_auth_method="client_secret_basic",
    )
    Backend.instance.save(vera)
    Backend.instance.save(models.Group(display_name="soc-viewers", members=[vera]))
    Backend.instance.save(client)
    # Else its ID tokens are for nobody: `"aud": []`.
    client.audience = [client]
    Backend.instance.save(client)

config = Config()
config.bind = [f"127.0.0.1:{port}"]
config.certfile, config.keyfile = f"{folder}/cert.pem", f"{folder}/key.pem"
asyncio.run(serve(app, config, mode="wsgi"))
