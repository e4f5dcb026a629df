#!/bin/sh
# A client secret with a plus or percent sign, as generators make them, is refused as invalid_client
# when Authlib sends it to oidc-provider: one form-encodes it, the other does not.
#
# Software: Authlib 1.9.9 (PyPI), oidc-provider 9.13.3 (npm); 2026-11-27.
# Guess: client_secret_basic is HTTP Basic authentication, so that any secret which both sides have
#   works; both are certified or widely used and agree.
# Expected: the token endpoint answers invalid_grant to an unknown code, for each secret: the client
#   itself is known.
# Seen: so for a secret of letters; invalid_client for "a+b%2Fc". RFC 6749, 2.3.1 wants name and
#   secret form-encoded before Basic, which oidc-provider undoes and Authlib does not do. Encoded by
#   hand it works; servers built on Authlib (Canaille 0.3.6) refuse the encoded form in turn.
# Exit 0: still so. Exit 1: the behaviour has changed.
set -eu

folder=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT INT TERM
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check Authlib==1.9.9 requests==2.34.2 2>/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts oidc-provider@9.13.3 >/dev/null
cat > server.mjs <<'END'
import Provider from "oidc-provider";
const client = (id, secret) => ({ client_id: id, client_secret: secret,
  redirect_uris: ["https://client.test/back"] });
const provider = new Provider("http://localhost", {
  clients: [client("letters", "abc"), client("signs", "a+b%2Fc")],
});
const server = provider.listen(0, "127.0.0.1", () => console.log(server.address().port));
END
node server.mjs >port 2>log &
server=$!
until [ -s port ]; do kill -0 "$server"; sleep 0.1; done
venv/bin/python - "$(cat port)" <<'END'
import sys
from importlib.metadata import version
from urllib.parse import quote_plus

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session


def answer(name: str, secret: str) -> str:
    session = OAuth2Session(name, secret, redirect_uri="https://client.test/back")
    session.trust_env = False
    try:
        session.fetch_token(f"http://127.0.0.1:{sys.argv[1]}/token", code="unknown")
    except OAuthError as error:
        return error.error
    return "a token"


seen = [answer("letters", "abc"), answer("signs", "a+b%2Fc"), answer("signs", quote_plus("a+b%2Fc"))]
print(f"version:  Authlib {version('authlib')}, oidc-provider 9.13.3")
print("expected: letters invalid_grant, signs invalid_grant")
print(f"seen:     letters {seen[0]}, signs {seen[1]}, signs encoded by hand {seen[2]}")
raise SystemExit(seen != ["invalid_grant", "invalid_client", "invalid_grant"])
END
