"""Creates a site and prepares it for a start: its env file, its secrets and its certificates.

``make site`` and ``make up`` run this in the app image; it needs no Django. Everything is created
once and kept; certificates and the files derived from the code are brought up to date each time.

    env/<site>.env          the variables, 0600
    env/<site>/ca/          the site's CA; never mounted into a container
    env/<site>/<service>/   what one service may know: its certificate, its passwords
"""

import argparse
import json
import os
import re
import secrets
import socket
import string
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from soc import environment
from soc.core import broker, pki
from soc.queues import BY_NAME, QUEUES, STREAMS

CONTAINER_UID = 999
"""Every container runs as this id: the public MariaDB and RabbitMQ images give it to theirs."""

DATABASE = "soc"
DATABASE_OWNER = "soc_owner"
DATABASE_USER = "soc_app"
CATCHER_LIFETIME = timedelta(days=20)
"""Short, so that a first look shows a certificate that expires soon, and the mail about it."""

APP_SERVICES = ("migrate", "web", *(queue.service for queue in QUEUES), "beat")
SERVERS = ("mariadb", "rabbitmq")
SERVICES = (*SERVERS, *APP_SERVICES, "flower", "catcher")
PUBLISHERS = tuple(stream.publisher for stream in STREAMS.values())
"""Who sends to the stack from outside: each has a certificate of the site and no container."""

SAMPLER = BY_NAME["shared"].service
"""The worker that asks the management API for the state of the queues."""

_DENIED = ("change", "password", "secret", "admin", "guest", "default", "example", "12345")
_SECRETS = {
    "mariadb": ("root_password", "owner_password", "app_password"),
    "flower": ("secret_key", "password", "monitor_password"),
    "migrate": ("secret_key", "admin_password"),
    **{service: ("secret_key",) for service in APP_SERVICES if service != "migrate"},
}


@dataclass(frozen=True)
class Site:
    """A site's name and the folder ``env/`` that holds its files."""

    name: str
    root: Path

    @property
    def env_file(self) -> Path:
        """The site's variables."""
        return self.root / f"{self.name}.env"

    @property
    def folder(self) -> Path:
        """The site's secrets and certificates."""
        return self.root / self.name

    def values(self) -> dict[str, str]:
        """Return the site's variables; ``problems`` tells whether they are usable."""
        return environment.parse(self.env_file.read_text(encoding="utf-8"))[0]


def new_values(name: str, stack: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the values that differ from ``env/example.env`` in a new site.

    The site ``local`` gets the mail catcher, so that it works without a relay; any other must
    name its relay, and is refused until it does.
    """
    values = {"SOC_SITE": name, "SOC_STACK": stack, "COMPOSE_PROJECT_NAME": f"soc-{name}"}
    if name == "local":
        domain = "soc.internal"
        values |= {
            "COMPOSE_PROFILES": "catcher",
            "SOC_SMTP_HOST": "catcher" if stack == "containers" else "localhost",
            "SOC_SMTP_PORT": "2525",
            "SOC_MAIL_FROM": f"soc@{domain}",
            "SOC_MAIL_TO": f"operations@{domain}",
        }
    else:
        values |= {"SOC_SMTP_HOST": "", "SOC_MAIL_FROM": "", "SOC_MAIL_TO": ""}
    return values | dict(overrides)


def env_text(example: str, values: Mapping[str, str]) -> str:
    """Return the example's text with ``values`` in place of its own, comments kept."""

    def line(match: re.Match[str]) -> str:
        return f"{match[1]}={values.get(match[1], match[2])}"

    return re.sub(r"^([A-Z_]+)=(.*)$", line, example, flags=re.MULTILINE)


def create(site: Site, stack: str, overrides: Mapping[str, str]) -> bool:
    """Write the site's env file unless it exists; return whether it was written."""
    if site.env_file.exists():
        return False
    example = (site.root / "example.env").read_text(encoding="utf-8")
    _write(site.env_file, env_text(example, new_values(site.name, stack, overrides)))
    return True


def render(site: Site) -> list[str]:
    """Create what is missing in the site's folder and bring derived files up to date.

    Returns the services whose certificate was replaced: they must be started again to serve it.
    """
    renewed = []
    values = site.values()
    site.folder.mkdir(mode=0o700, exist_ok=True)
    authority = _authority(site)
    for service in (*SERVICES, *PUBLISHERS):
        folder = site.folder / service
        folder.mkdir(mode=0o755, exist_ok=True)
        for name in _SECRETS.get(service, ()):
            if not (folder / name).exists():
                _write(folder / name, new_secret())
        if _certify(folder, service, authority, values) and service in SERVICES:
            renewed.append(service)
    _render_database(site)
    _render_broker(site)
    return renewed


def new_secret() -> str:
    """Return 50 random letters and digits (297 bits): safe in SQL, URLs and option files."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(50))


def problems(site: Site, stack: str, *, ports: bool) -> list[str]:
    """Return everything that keeps the site from starting on this kind of stack."""
    found = environment.problems_of_file(site.env_file)
    if not site.env_file.is_file():
        return found
    values = site.values()
    if values.get("SOC_STACK", stack) != stack:
        found.append(f"SOC_STACK is {values['SOC_STACK']}, but this is the {stack} stack")
    found += _weak_secrets(site)
    if ports and not found:
        found += _taken_ports(values)
    return found


def _weak_secrets(site: Site) -> Iterator[str]:
    for service, names in _SECRETS.items():
        for name in names:
            path = site.folder / service / name
            if not path.exists():
                continue
            value = path.read_text(encoding="utf-8").strip()
            if len(value) < 20 or len(set(value)) < 8 or any(w in value.lower() for w in _DENIED):
                yield f"{path} is weak; write some 50 random letters and digits into it"


def _authority(site: Site) -> pki.Identity:
    folder = site.folder / "ca"
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not key.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        authority = pki.create_authority(site.name)
        _write(certificate, authority.certificate_pem)
        _write(key, authority.key_pem)
    return pki.Identity.load(certificate, key)


def _hostnames(service: str, values: Mapping[str, str]) -> list[str]:
    names = [service, "localhost", "127.0.0.1"]
    if service in ("web", "flower"):
        names += environment.split(values["SOC_HOSTNAMES"])
    return list(dict.fromkeys(names))


def _certify(
    folder: Path, service: str, authority: pki.Identity, values: Mapping[str, str]
) -> bool:
    """Give a service a certificate unless it has a good one; return whether it replaces one."""
    hostnames = _hostnames(service, values)
    _update(folder / "ca.pem", authority.certificate_pem)
    path = folder / "cert.pem"
    replaces = path.exists()
    if replaces:
        present = x509.load_pem_x509_certificate(path.read_bytes())
        if pki.is_current(present, authority.certificate) and pki.names(present) == set(hostnames):
            return False
    lifetime = CATCHER_LIFETIME if service == "catcher" else pki.SERVICE_LIFETIME
    identity = pki.issue(authority, service, hostnames, lifetime)
    _write(folder / "key.pem", identity.key_pem)
    _write(path, identity.certificate_pem)
    return replaces


def _render_database(site: Site) -> None:
    """Write the first-start SQL of the server and the option file of each client."""
    server = site.folder / "mariadb"
    app_password = (server / "app_password").read_text(encoding="utf-8")
    first_start = server / "initdb"
    first_start.mkdir(mode=0o755, exist_ok=True)
    _write(
        first_start / "users.sql",
        f"ALTER USER '{DATABASE_OWNER}'@'%' REQUIRE SSL;\n"
        f"CREATE USER '{DATABASE_USER}'@'%' IDENTIFIED BY '{app_password}' REQUIRE SSL;\n"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {DATABASE}.* TO '{DATABASE_USER}'@'%';\n",
    )
    for service in APP_SERVICES:
        owner = service == "migrate"
        password = (server / ("owner_password" if owner else "app_password")).read_text()
        user = DATABASE_OWNER if owner else DATABASE_USER
        _write(
            site.folder / service / "database.cnf",
            f"[client]\nuser={user}\npassword={password}\n"
            "ssl-ca=/run/site/ca.pem\nssl-verify-server-cert=1\n",
        )


def _render_broker(site: Site) -> None:
    path = site.folder / "rabbitmq" / "definitions.json"
    password = (site.folder / "flower" / "monitor_password").read_text(encoding="utf-8")
    _write(site.folder / SAMPLER / "monitor_password", password)
    # The hash is salted: keeping it keeps the file equal while nothing has changed.
    kept = _kept_hash(path, password)
    text = json.dumps(broker.definitions(kept or broker.password_hash(password)), indent=1)
    _update(path, text.encode())


def _kept_hash(path: Path, password: str) -> str:
    if not path.exists():
        return ""
    users = json.loads(path.read_text(encoding="utf-8"))["users"]
    present = next((u["password_hash"] for u in users if u["name"] == broker.MONITOR_USER), "")
    return present if broker.is_hash_of(present, password) else ""


def _write(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content.encode() if isinstance(content, str) else content)
    draft.replace(path)


def _update(path: Path, content: bytes) -> None:
    """Write a file if its content differs."""
    if not path.exists() or path.read_bytes() != content:
        _write(path, content)


def _taken_ports(values: Mapping[str, str]) -> Iterator[str]:
    variables = ["SOC_WEB_PORT", "SOC_FLOWER_PORT"]
    if values["SOC_STACK"] == "embedded" and values.get("COMPOSE_PROFILES") == "catcher":
        variables.append("SOC_SMTP_PORT")
    for variable in variables:
        family = socket.AF_INET6 if ":" in values["SOC_BIND"] else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((values["SOC_BIND"], int(values[variable])))
            except OSError as error:
                yield (
                    f"{variable}={values[variable]} cannot be used on {values['SOC_BIND']}: "
                    f"{error.strerror}; choose another in env/{values['SOC_SITE']}.env"
                )


def _hand_over(site: Site) -> None:
    """Give each service's files to the id that the containers run as, the rest to the caller."""
    caller = site.root.stat()
    for path in (site.env_file, site.folder, *site.folder.rglob("*")):
        of_service = path.is_file() and path.parent.name != "ca" and path != site.env_file
        uid, gid = (CONTAINER_UID,) * 2 if of_service else (caller.st_uid, caller.st_gid)
        os.chown(path, uid, gid)


def main(arguments: list[str] | None = None) -> int:
    """Run ``create`` or ``prepare`` for one site; return the exit status."""
    parser = argparse.ArgumentParser(prog="soc.core.site", description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("create", "prepare"))
    parser.add_argument("site")
    parser.add_argument("overrides", nargs="*", metavar="NAME=value")
    parser.add_argument("--root", type=Path, default=Path("env"))
    parser.add_argument("--stack", choices=("containers", "embedded"), default="containers")
    parser.add_argument("--ports", action="store_true", help="check that the ports are free")
    options = parser.parse_args(arguments)
    site = Site(options.site, options.root)
    if wrong := environment.name(options.site):
        print(f"the site's name {wrong}: {options.site!r}", file=sys.stderr)
        return 2
    try:
        _act(site, options)
    except environment.EnvironmentProblem as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        if options.stack == "containers" and site.env_file.exists():
            _hand_over(site)
    return 0


def _act(site: Site, options: argparse.Namespace) -> None:
    overrides = dict(pair.split("=", 1) for pair in options.overrides)
    if options.action == "create" and create(site, options.stack, overrides):
        render(site)
        print(f"{site.env_file} and {site.folder}/ are new")
        for todo in problems(site, options.stack, ports=False):
            print(f"  still to do: {todo}")
        return
    if found := problems(site, options.stack, ports=options.ports):
        raise environment.EnvironmentProblem(str(site.env_file), found)
    if renewed := render(site):
        print(f"renewed: {' '.join(renewed)}")


if __name__ == "__main__":
    sys.exit(main())
