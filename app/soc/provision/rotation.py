"""Replaces every secret and certificate of a site in three steps; the servers reload in between.

    begin   the next CA is trusted beside the present one, and the next sealing key is known
    switch  certificates, secret keys and passwords are new; what they replace still works
    end     what was replaced is deleted

``make rotate`` runs them and what has to happen between them. Each step may be run again, so that
a rotation that broke off is finished by the next.
"""

import argparse
import sys
from pathlib import Path

from cryptography.fernet import Fernet

from soc.provision import pki, shippers
from soc.provision.site import (
    APP_SERVICES,
    PUBLISHERS,
    SEALERS,
    Site,
    hand_over,
    new_secret,
    render,
    update,
    write,
)

ROOT_PASSWORD = "root_password"  # noqa: S105 (a file's name)
_PASSWORDS = (
    ("flower", "password"),
    ("flower", "monitor_password"),
    *((publisher, "password") for publisher in PUBLISHERS),
)


def begin(site: Site) -> None:
    """Make the next CA, sealing key and root password known, and use none of them yet."""
    folder = site.folder / "ca"
    if not (folder / "next.key").exists():
        # Last: everybody is to know it before anybody seals with it.
        _set_sealing_keys(site, [*_sealing_keys(site), Fernet.generate_key().decode()])
        authority = pki.create_authority(site.name)
        write(folder / "next.pem", authority.certificate_pem)
        write(folder / "next.key", authority.key_pem)
    waiting = site.folder / "mariadb" / f"{ROOT_PASSWORD}_next"
    if not waiting.exists():
        write(waiting, new_secret())
    render(site)


def switch(site: Site) -> None:
    """Let everything new take effect beside what it replaces."""
    folder = site.folder / "ca"
    if (folder / "next.key").exists():
        _replace_secrets(site)
        *keys, newest = _sealing_keys(site)
        _set_sealing_keys(site, [newest, *keys])
        if (folder / "next.pem").exists():
            update(folder / "old.pem", (folder / "ca.pem").read_bytes())
            (folder / "next.pem").replace(folder / "ca.pem")
        # The last act: with its key gone from there, the next CA is the present one.
        (folder / "next.key").replace(folder / "ca.key")
    render(site)


def _replace_secrets(site: Site) -> None:
    for service in (*APP_SERVICES, "flower"):
        path = site.folder / service / "secret_key"
        if service == "web":
            # Sessions that were signed with it outlive it for a day.
            update(path.with_name("secret_key_old"), path.read_bytes())
        write(path, new_secret())
    for service, name in _PASSWORDS:
        write(site.folder / service / name, new_secret())
    for shipper in shippers.registered(site.folder):
        write(shipper.folder / "password", new_secret())


def end(site: Site, *, keep_authority: bool) -> None:
    """Forget what was replaced; senders outside may need the old CA until they have new files."""
    if not keep_authority:
        (site.folder / "ca" / "old.pem").unlink(missing_ok=True)
    _set_sealing_keys(site, _sealing_keys(site)[:1])
    waiting = site.folder / "mariadb" / f"{ROOT_PASSWORD}_next"
    if waiting.exists():
        waiting.replace(waiting.with_name(ROOT_PASSWORD))
    render(site)


def _sealing_keys(site: Site) -> list[str]:
    return (site.folder / SEALERS[0] / "sealing_keys").read_text(encoding="utf-8").split()


def _set_sealing_keys(site: Site, keys: list[str]) -> None:
    text = "".join(f"{key}\n" for key in keys)
    for service in SEALERS:
        update(site.folder / service / "sealing_keys", text.encode())


def main(arguments: list[str] | None = None) -> int:
    """Run one step for one site; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="soc.provision.rotation", description=__doc__.split("\n")[0]
    )
    parser.add_argument("step", choices=("begin", "switch", "end"))
    parser.add_argument("site")
    parser.add_argument("--root", type=Path, default=Path("env"))
    parser.add_argument("--stack", choices=("containers", "embedded"), default="containers")
    parser.add_argument("--keep-authority", action="store_true", help="go on trusting the old CA")
    options = parser.parse_args(arguments)
    site = Site(options.site, options.root)
    try:
        if options.step == "begin":
            begin(site)
        elif options.step == "switch":
            switch(site)
        else:
            end(site, keep_authority=options.keep_authority)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        if options.stack == "containers" and site.env_file.exists():
            hand_over(site)
    return 0


if __name__ == "__main__":
    sys.exit(main())
