"""Real directory servers for tests: OpenLDAP's slapd as a plain process on loopback ports."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pki
from harness import free_port, missing, run, wait_for

MODULES = "/usr/lib/ldap"
SCHEMAS = "/etc/ldap/schema"
SUFFIX = "dc=directory,dc=internal"
READER = f"cn=reader,{SUFFIX}"
LIMITED = f"cn=limited,{SUFFIX}"
PASSWORD = "Secret, and long enough"
PEOPLE = 200

ENTRIES = f"""\
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: directory
o: Directory

dn: {READER}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {PASSWORD}

dn: {LIMITED}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: limited
userPassword: {PASSWORD}

dn: ou=people,{SUFFIX}
objectClass: organizationalUnit
ou: people

dn: ou=closed,{SUFFIX}
objectClass: organizationalUnit
ou: closed

dn: ou=branch,{SUFFIX}
objectClass: referral
objectClass: extensibleObject
ou: branch
ref: ldap://branch.directory.internal/ou=branch,{SUFFIX}
"""

# retcode(5) answers below its parent with the codes of RFC 4511, appendix A, after a pause.
CONFIGURATION = """\
include {schemas}/core.schema
include {schemas}/cosine.schema
pidfile {folder}/pid
modulepath {modules}
moduleload back_mdb
moduleload retcode
moduleload syncprov
TLSCertificateFile {folder}/tls/chain.pem
TLSCertificateKeyFile {folder}/tls/key.pem
sizelimit unlimited
{globally}
database mdb
suffix "{suffix}"
rootdn "cn=root,{suffix}"
rootpw root
directory {folder}/data
maxsize 16777216
limits dn.exact="cn=limited,{suffix}" size=3
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=closed,{suffix}" by * none
access to * by * read
overlay syncprov
overlay retcode
retcode-parent "ou=codes,{suffix}"
retcode-item "cn=busy" 0x33 text="too many clients"
retcode-item "cn=unavailable" 0x34 text="shutting down"
retcode-item "cn=limit" 0x0b text="administrative limit"
retcode-item "cn=elsewhere" 0x0a ref="ldap://other.directory.internal/"
{overlays}
"""


def need_the_client() -> None:
    """Skip a test of the probe where python-ldap could not be compiled."""
    if importlib.util.find_spec("ldap") is None:
        missing("python-ldap is not installed")


@dataclass
class Slapd:
    """A running server with a port for clear text and StartTLS, and one for ldaps."""

    folder: Path
    process: subprocess.Popen
    plain: int
    tls: int

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Make it hang as it is: the kernel goes on accepting connections for it."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def start(
    folder: Path, certificate: Sequence[pki.Issued], *, address: str = "127.0.0.1",
    people: int = PEOPLE, globally: str = "", overlays: str = "", entries: str = "",
    ports: Sequence[int] = (),
) -> Slapd:  # fmt: skip
    """Start a server with a few entries; its certificate is the first, then its issuers.

    It also speaks ldaps on ``ports``.
    """
    if shutil.which("slapd") is None:
        missing("slapd is not installed")
    for name in ("data", "tls"):
        (folder / name).mkdir(parents=True)
    pki.write_server_files(folder / "tls", *certificate)
    configuration = CONFIGURATION.format(
        schemas=SCHEMAS, modules=MODULES, folder=folder, suffix=SUFFIX, globally=globally,
        overlays=overlays,
    )  # fmt: skip
    (folder / "slapd.conf").write_text(configuration)
    persons = "".join(
        f"\ndn: cn=person {n},ou=people,{SUFFIX}\nobjectClass: person\ncn: person {n}\nsn: {n}\n"
        for n in range(people)
    )
    run("slapadd", "-q", "-f", f"{folder}/slapd.conf", stdin=ENTRIES + entries + persons)
    # A port that was free a moment ago may be taken by now.
    for _ in range(5):
        plain, tls = free_port(), free_port()
        urls = f"ldap://{address}:{plain} " + " ".join(
            f"ldaps://{address}:{port}" for port in (tls, *ports)
        )
        log = (folder / "log").open("wb")
        process = subprocess.Popen(
            ["slapd", "-f", f"{folder}/slapd.conf", "-h", urls, "-d", "none"],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        wait_for("slapd", lambda p=process, a=tls: p.poll() is not None or _listens(address, a))
        if process.poll() is None:
            return Slapd(folder, process, plain, tls)
    raise AssertionError((folder / "log").read_text())


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


Conversation = Callable[[socket.socket], None]


class Peer:
    """A scripted server on a port of its own: each connection is given to a function."""

    def __init__(self, conversation: Conversation, address: str = "127.0.0.1") -> None:
        self._conversation = conversation
        self._listener = socket.create_server((address, 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that waits in accept(2) holds the port: shutting down wakes it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                self._conversation(sock)
            except OSError:
                # The client has hung up.
                return


def ldap_message(
    number: int, operation: int, *parts: bytes, controls: Mapping[str, bytes] | None = None
) -> bytes:
    """Return an LDAPMessage (RFC 4511, 4.1.1) of an application tag."""
    message = _element(0x02, bytes([number])) + _element(operation, b"".join(parts))
    if controls:
        listed = (
            _element(0x30, _element(0x04, kind.encode()) + _element(0x04, value))
            for kind, value in controls.items()
        )
        message += _element(0xA0, b"".join(listed))
    return _element(0x30, message)


def ldap_result(code: int, diagnostic: str | bytes) -> bytes:
    """Return the content of an LDAPResult (RFC 4511, 4.1.9)."""
    words = diagnostic.encode() if isinstance(diagnostic, str) else diagnostic
    return _element(0x0A, bytes([code])) + _element(0x04, b"") + _element(0x04, words)


def _element(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes(4)
    return bytes([tag, 0x84]) + size + content


BIND_RESPONSE, SEARCH_ENTRY, SEARCH_DONE, EXTENDED_RESPONSE = 0x61, 0x64, 0x65, 0x78
SEARCH_REFERENCE = 0x73
BIND_REQUEST, UNBIND_REQUEST, SEARCH_REQUEST, EXTENDED_REQUEST = 0x60, 0x42, 0x63, 0x77


def active_directory(code: int, diagnostic: str | bytes) -> Conversation:
    """Return a server that refuses every user's bind, and shows its RootDSE to strangers.

    Active Directory runs on no Linux: this speaks its part by Microsoft's documents.
    """
    entry = _element(0x04, b"") + _element(0x30, b"")

    def converse(sock: socket.socket) -> None:
        while request := sock.recv(4096):
            number, operation = request[4], request[5]
            if operation == BIND_REQUEST:
                anonymous = request.endswith(b"\x04\x00\x80\x00")
                result = ldap_result(0, "") if anonymous else ldap_result(code, diagnostic)
                sock.sendall(ldap_message(number, BIND_RESPONSE, result))
            elif operation == SEARCH_REQUEST:
                done = ldap_message(number, SEARCH_DONE, ldap_result(0, ""))
                sock.sendall(ldap_message(number, SEARCH_ENTRY, entry) + done)
            else:
                return

    return converse


def searching(
    *answers: tuple[int, bytes], controls: Mapping[str, bytes] | None = None
) -> Conversation:
    """Return a server that accepts every bind, with controls, and gives each search the answers."""

    def converse(sock: socket.socket) -> None:
        while request := sock.recv(4096):
            number, operation = request[4], request[5]
            if operation == BIND_REQUEST:
                taken = ldap_result(0, "")
                sock.sendall(ldap_message(number, BIND_RESPONSE, taken, controls=controls))
            elif operation == SEARCH_REQUEST:
                for kind, content in answers:
                    sock.sendall(ldap_message(number, kind, content))
            else:
                return

    return converse


def entry(name: str) -> tuple[int, bytes]:
    """Return an entry without attributes, as an answer of ``searching``."""
    return SEARCH_ENTRY, _element(0x04, name.encode()) + b"\x30\x00"


def reference(url: str) -> tuple[int, bytes]:
    """Return a reference to another server, as an answer of ``searching``."""
    return SEARCH_REFERENCE, _element(0x04, url.encode())


def done(code: int, words: str = "") -> tuple[int, bytes]:
    """Return the end of a search, as an answer of ``searching``."""
    return SEARCH_DONE, ldap_result(code, words)


def greeting(banner: bytes) -> Conversation:
    """Return a server of another protocol: it speaks first, and does not understand the answer."""

    def converse(sock: socket.socket) -> None:
        sock.sendall(banner)
        while sock.recv(4096):
            pass

    return converse


def after(seconds: float) -> Conversation:
    """Return a server that shows its RootDSE to everybody, after a while."""
    answer = active_directory(0, "")

    def converse(sock: socket.socket) -> None:
        time.sleep(seconds)
        answer(sock)

    return converse


def hanging(sock: socket.socket) -> None:
    """Listen, and never answer."""
    while sock.recv(4096):
        pass


def delaying(port: int, seconds: float, host: str = "127.0.0.1") -> Conversation:
    """Return a proxy that holds back whatever a server on ``port`` answers."""

    def converse(sock: socket.socket) -> None:
        with socket.create_connection((host, port)) as server:
            forward = threading.Thread(target=_pump, args=(sock, server, 0), daemon=True)
            forward.start()
            _pump(server, sock, seconds)

    return converse


def _pump(source: socket.socket, sink: socket.socket, seconds: float) -> None:
    try:
        while data := source.recv(65536):
            time.sleep(seconds)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def ldapsearch(url: str, *arguments: str, authority: Path | None = None) -> tuple[int, str]:
    """Return the exit status of ldapsearch, 124 if it does not end in 3 s, and what it says."""
    if shutil.which("ldapsearch") is None:
        missing("ldapsearch is not installed")
    environment = {
        "PATH": os.environ["PATH"],
        "LDAPTLS_REQCERT": "demand",
        "LDAPTLS_CACERT": str(authority) if authority else "/etc/ssl/certs/ca-certificates.crt",
    }
    done = subprocess.run(
        ["timeout", "3", "ldapsearch", "-x", "-LLL", "-o", "nettimeout=2", "-H", url, *arguments],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    return done.returncode, " ".join(done.stderr.split())
