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
import shutil
import socket
import string
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path

from cryptography import x509
from cryptography.fernet import Fernet

from soc.provision import broker, environment, key_stores, pki, shippers
from soc.provision.identity import OWN_CERTIFICATE, OWN_KEY, database_user
from soc.runtime.queues import BY_NAME, QUEUES, STREAMS, Queue

CONTAINER_UID = 999
"""Every container runs as this id: the public MariaDB and RabbitMQ images give it to theirs."""

PUBLISHER_UID = 1000
"""Logstash's image runs as this id (its Dockerfile, ``USER 1000``); the simulated robots read the
same files by their group, which is the containers' own."""

DATABASE = "soc"
CATCHER_LIFETIME = timedelta(days=20)
"""Short, so that a first look shows a certificate that expires soon, and the mail about it."""

OLD_SECRET_KEY_LIFETIME = timedelta(days=1)
"""Longer than any session lasts."""

APP_SERVICES = ("migrate", "web", *(queue.service for queue in QUEUES), "beat")
SERVERS = ("mariadb", "rabbitmq")
SERVICES = (*SERVERS, *APP_SERVICES, "flower", "catcher")
BROKERS = ("rabbitmq-1", "rabbitmq-2", "rabbitmq-3")
"""The brokers of a swarm, whose inter-node connections verify each other by these names."""

WEB_SERVERS = ("web", "flower")
"""What browsers talk to: a site may bring certificates of its own for them."""


def _seals(queue: Queue) -> bool:
    """Return whether an application of a queue declares that its worker reads credentials."""
    packages = (import_module(f"soc.{application}") for application in queue.applications)
    return any(getattr(package, "SEALS", False) for package in packages)


SEALERS = ("web", "migrate", *(queue.service for queue in QUEUES if _seals(queue)))
"""Who writes or reads stored credentials, and so has the keys that they are sealed with."""

PUBLISHERS = tuple(stream.publisher for stream in STREAMS.values())
"""Who sends to the stack from outside: each has a certificate of the site and no container."""

SAMPLER = BY_NAME["shared"].service
"""The worker that asks the management API for the state of the queues."""

_SECRETS = {
    "mariadb": ("root_password",),
    "rabbitmq": ("erlang_cookie",),
    "flower": ("secret_key", "password", "monitor_password"),
    "migrate": ("secret_key", "admin_password"),
    **{service: ("secret_key",) for service in APP_SERVICES if service != "migrate"},
    **dict.fromkeys(PUBLISHERS, ("password",)),
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
        """Return the site's variables; ``problems`` says whether they are usable."""
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
    write(site.env_file, env_text(example, new_values(site.name, stack, overrides)))
    return True


def render(site: Site) -> list[str]:
    """Create what is missing in the site's folder and bring derived files up to date.

    Returns the services whose certificate was replaced.
    """
    renewed = []
    values = site.values()
    site.folder.mkdir(mode=0o700, exist_ok=True)
    _forget_old_secret_key(site)
    authority = _authority(site)
    trusted = _trusted(site)
    for service in (*SERVICES, *PUBLISHERS):
        folder = site.folder / service
        folder.mkdir(mode=0o755, exist_ok=True)
        for name in _SECRETS.get(service, ()):
            if not (folder / name).exists():
                write(folder / name, new_secret())
        update(folder / "ca.pem", trusted)
        if _certify(folder, service, authority, values) and service in SERVICES:
            renewed.append(service)
    for shipper in shippers.registered(site.folder):
        _render_shipper(shipper, authority, trusted, values)
    _render_sealing_keys(site)
    _render_database(site)
    _render_broker(site)
    _render_key_stores(site)
    _show_own_certificates(site)
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
    if not found:
        found += _own_certificates(site, values)
    if ports and not found:
        found += _taken_ports(values)
    return found


def _own_certificates(site: Site, values: Mapping[str, str]) -> Iterator[str]:
    """Check the certificates that a site brings for its web pages and for Flower."""
    hostnames = environment.public_hostnames(values)
    for service in WEB_SERVERS:
        paths = [site.folder / service / name for name in (OWN_CERTIFICATE, OWN_KEY)]
        present = [path for path in paths if path.exists()]
        if len(present) == 1:
            (other,) = set(paths) - set(present)
            yield f"{present[0]} is there but {other.name} is not: put both there or none"
        elif present:
            certificate, key = paths
            wrong = pki.problems_of_own(certificate, key, hostnames)
            yield from (f"{certificate} {problem}" for problem in wrong)


def _weak_secrets(site: Site) -> Iterator[str]:
    for service, names in _SECRETS.items():
        for name in names:
            path = site.folder / service / name
            if not path.exists():
                continue
            if environment.is_weak(path.read_text(encoding="utf-8").strip()):
                yield f"{path} is weak; write some 50 random letters and digits into it"


def _authority(site: Site) -> pki.KeyPair:
    folder = site.folder / "ca"
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not key.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        authority = pki.create_authority(site.name)
        write(certificate, authority.certificate_pem)
        write(key, authority.key_pem)
    return pki.KeyPair.load(certificate, key)


def _trusted(site: Site) -> bytes:
    """Return the CAs that the services trust: while a rotation runs, also the next or the old."""
    paths = (site.folder / "ca" / name for name in ("ca.pem", "next.pem", "old.pem"))
    return b"".join(path.read_bytes() for path in paths if path.exists())


def _forget_old_secret_key(site: Site) -> None:
    path = site.folder / "web" / "secret_key_old"
    if (
        path.exists()
        and time.time() - path.stat().st_mtime > OLD_SECRET_KEY_LIFETIME.total_seconds()
    ):
        path.unlink()


def _hostnames(service: str, values: Mapping[str, str]) -> list[str]:
    names = [service, "localhost", "127.0.0.1"]
    if service == "rabbitmq":
        names += BROKERS
    if service in WEB_SERVERS:
        names += environment.split(values["SOC_HOSTNAMES"])
    return list(dict.fromkeys(names))


def _certify(folder: Path, service: str, authority: pki.KeyPair, values: Mapping[str, str]) -> bool:
    """Give a service a certificate unless it has a good one; return whether it replaces one."""
    hostnames = _hostnames(service, values)
    path = folder / "cert.pem"
    replaces = path.exists()
    if replaces:
        present = x509.load_pem_x509_certificate(path.read_bytes())
        if pki.is_current(present, authority.certificate) and pki.names(present) == set(hostnames):
            return False
    lifetime = CATCHER_LIFETIME if service == "catcher" else pki.SERVICE_LIFETIME
    identity = pki.issue(authority, service, hostnames, lifetime)
    write(folder / "key.pem", identity.key_pem)
    write(path, identity.certificate_pem)
    return replaces


def _render_shipper(
    shipper: shippers.RegisteredShipper,
    authority: pki.KeyPair,
    trusted: bytes,
    values: Mapping[str, str],
) -> None:
    folder = shipper.folder
    if not (folder / "password").exists():
        write(folder / "password", new_secret())
    update(folder / "ca.pem", trusted)
    _certify(folder, shipper.user, authority, values)
    for name, text in shippers.files(shipper):
        update(folder / name, text.encode())


def add_shipper(site: Site, name: str, kind: str) -> shippers.RegisteredShipper:
    """Register a shipper and write its folder.

    Raises:
        ShipperProblem: the name or the kind is none, or the name is taken.
    """
    shipper = shippers.new(site.folder, name, kind)
    shipper.folder.mkdir(mode=0o755, parents=True)
    file, text = shippers.register(shipper)
    write(shipper.folder / file, text)
    render(site)
    return shipper


def revoke_shipper(site: Site, name: str) -> shippers.RegisteredShipper:
    """Delete a shipper's folder, so that the broker's definitions know it no more.

    Raises:
        ShipperProblem: there is none of that name.
    """
    shipper = shippers.find(site.folder, name)
    shutil.rmtree(shipper.folder)
    render(site)
    return shipper


def _render_sealing_keys(site: Site) -> None:
    first = site.folder / SEALERS[0] / "sealing_keys"
    if not first.exists():
        write(first, Fernet.generate_key() + b"\n")
    for service in SEALERS[1:]:
        update(site.folder / service / "sealing_keys", first.read_bytes())


def _render_database(site: Site) -> None:
    """Write the SQL that the server runs whenever it starts: who may log in.

    What each may do with which table, ``migrate`` grants when there are tables.
    """
    statements = []
    for service in APP_SERVICES:
        user = f"'{database_user(service)}'@'%'"
        # ALTER for a server that knows the user already.
        for verb in ("CREATE USER IF NOT EXISTS", "ALTER USER"):
            statements.append(f"{verb} {user} IDENTIFIED BY '' REQUIRE SUBJECT '/CN={service}';")
    owner = f"'{database_user('migrate')}'@'%'"
    statements.append(f"GRANT ALL ON {DATABASE}.* TO {owner} WITH GRANT OPTION;")
    statements.append("DROP USER IF EXISTS 'soc_owner'@'%', 'soc_app'@'%';")
    update(site.folder / "mariadb" / "users.sql", "\n".join([*statements, ""]).encode())
    _forget_database_passwords(site)


def _forget_database_passwords(site: Site) -> None:
    """Delete what sites had before services logged in by certificate."""
    server = site.folder / "mariadb"
    shutil.rmtree(server / "initdb", ignore_errors=True)
    for path in (server / "owner_password", server / "app_password"):
        path.unlink(missing_ok=True)
    for service in APP_SERVICES:
        (site.folder / service / "database.cnf").unlink(missing_ok=True)


def _render_broker(site: Site) -> None:
    path = site.folder / "rabbitmq" / "definitions.json"
    known = shippers.registered(site.folder)
    passwords = {
        broker.MONITOR_USER: (site.folder / "flower" / "monitor_password").read_text(),
        **{name: (site.folder / name / "password").read_text() for name in PUBLISHERS},
        **{shipper.user: (shipper.folder / "password").read_text() for shipper in known},
    }
    update(site.folder / SAMPLER / "monitor_password", passwords[broker.MONITOR_USER].encode())
    # A hash is salted: keeping it keeps the file equal while nothing has changed.
    present = json.loads(path.read_text(encoding="utf-8"))["users"] if path.exists() else []
    kept = {user["name"]: user["password_hash"] for user in present if user["password_hash"]}
    hashes = {
        user: kept[user]
        if user in kept and broker.is_hash_of(kept[user], password)
        else broker.password_hash(password)
        for user, password in passwords.items()
    }
    update(path, json.dumps(broker.definitions(hashes, known), indent=1).encode())


def _show_own_certificates(site: Site) -> None:
    """Let ``migrate`` see what the web servers present: it has their endpoints watched."""
    for service in WEB_SERVERS:
        shown = site.folder / "migrate" / f"{service}-{OWN_CERTIFICATE}"
        try:
            update(shown, (site.folder / service / OWN_CERTIFICATE).read_bytes())
        except FileNotFoundError:
            shown.unlink(missing_ok=True)


def _render_key_stores(site: Site) -> None:
    """Write each publisher's certificate as Java reads it, PKCS #12 under its password."""
    publishers = [site.folder / publisher for publisher in PUBLISHERS]
    publishers += [shipper.folder for shipper in shippers.registered(site.folder)]
    for folder in publishers:
        password = (folder / "password").read_bytes()
        identity = pki.KeyPair.load(folder / "cert.pem", folder / "key.pem")
        authorities = x509.load_pem_x509_certificates((folder / "ca.pem").read_bytes())
        path = folder / f"{folder.name}.p12"
        if not path.exists() or not key_stores.is_key_store_of(
            path.read_bytes(), password, identity, authorities
        ):
            write(path, key_stores.key_store(folder.name, password, identity, authorities))


def write(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content.encode() if isinstance(content, str) else content)
    draft.replace(path)


def update(path: Path, content: bytes) -> None:
    """Write a file if its content differs."""
    if not path.exists() or path.read_bytes() != content:
        write(path, content)


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


def hand_over(site: Site) -> None:
    """Give each service's files to the id that the containers run as, the rest to the caller.

    A publisher's and a shipper's belong to the id that Logstash's image runs as.
    """
    caller = site.root.stat()
    for path in (site.env_file, site.folder, *site.folder.rglob("*")):
        of_service = path.is_file() and path.parent.name != "ca" and path != site.env_file
        uid, gid = (CONTAINER_UID,) * 2 if of_service else (caller.st_uid, caller.st_gid)
        of_shipper = path.parent.parent.name == shippers.FOLDER
        if of_service and (of_shipper or path.parent.name in PUBLISHERS):
            uid = PUBLISHER_UID
            path.chmod(0o640)
        os.chown(path, uid, gid)


def main(arguments: list[str] | None = None) -> int:
    """Run ``create`` or ``prepare`` for one site; return the exit status."""
    parser = argparse.ArgumentParser(prog="soc.provision.site", description=__doc__.split("\n")[0])
    parser.add_argument(
        "action", choices=("create", "prepare", "add-shipper", "revoke-shipper", "shippers")
    )
    parser.add_argument("site")
    parser.add_argument("overrides", nargs="*", metavar="NAME=value")
    parser.add_argument("--name", default="", help="of a shipper")
    parser.add_argument("--kind", default="", help="of a new shipper")
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
    except (environment.EnvironmentProblem, shippers.ShipperProblem) as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        if options.stack == "containers" and site.env_file.exists():
            hand_over(site)
    return 0


def _act(site: Site, options: argparse.Namespace) -> None:
    if options.action == "add-shipper":
        print(add_shipper(site, options.name, options.kind).user)
        return
    if options.action == "revoke-shipper":
        print(revoke_shipper(site, options.name).user)
        return
    if options.action == "shippers":
        for shipper in shippers.registered(site.folder):
            print(shipper.name, shipper.kind, shipper.user)
        return
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
