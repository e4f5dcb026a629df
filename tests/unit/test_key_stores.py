"""Java finds in one file whom a publisher is and whom it trusts."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from harness import missing
from soc.provision import key_stores, pki

PASSWORD = b"3nough-0f-a-passw0rd"

CLIENT = """
import java.io.FileInputStream;
import java.security.KeyStore;
import javax.net.ssl.*;

/** Connects as march_hare does, Logstash's client: one file is key store and trust store. */
class Client {
    public static void main(String[] arguments) throws Exception {
        char[] password = System.getenv("PASSWORD").toCharArray();
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(new FileInputStream(arguments[0]), password);
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(store, password);
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLSv1.2");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        for (int index = 1; index < arguments.length; index++) {
            int port = Integer.parseInt(arguments[index]);
            SSLSocketFactory factory = context.getSocketFactory();
            try (var socket = (SSLSocket) factory.createSocket("127.0.0.1", port)) {
                socket.startHandshake();
                System.out.println("greeted by " + socket.getSession().getPeerPrincipal().getName()
                    + ", who saw " + new String(socket.getInputStream().readAllBytes()));
            } catch (SSLException error) {
                System.out.println("refused: " + error.getMessage());
            }
        }
    }
}
"""


@pytest.fixture
def authorities() -> list[pki.KeyPair]:
    return [pki.create_authority("one"), pki.create_authority("two")]


@pytest.fixture
def identity(authorities: list[pki.KeyPair]) -> pki.KeyPair:
    return pki.issue(authorities[0], "logstash", ["logstash"])


def store_of(identity: pki.KeyPair, authorities: list[pki.KeyPair]) -> bytes:
    trusted = [authority.certificate for authority in authorities]
    return key_stores.key_store("logstash", PASSWORD, identity, trusted)


def test_the_checksum_is_the_one_that_other_software_makes(identity: pki.KeyPair) -> None:
    encryption = serialization.BestAvailableEncryption(PASSWORD)
    made = pkcs12.serialize_key_and_certificates(
        b"other", identity.key, identity.certificate, None, encryption
    )
    read = asn1.decode_der(key_stores._Pfx, made)
    mac = read.mac
    assert mac.mac.digest == key_stores._checksum(read.safe.content, PASSWORD, mac.salt, mac.rounds)


def test_a_store_holds_the_key_and_each_trusted_authority(
    identity: pki.KeyPair, authorities: list[pki.KeyPair]
) -> None:
    content = store_of(identity, authorities)
    found = pkcs12.load_pkcs12(content, PASSWORD)
    assert found.cert.certificate == identity.certificate
    assert found.key.public_key() == identity.certificate.public_key()
    assert [other.certificate for other in found.additional_certs] == [
        authority.certificate for authority in authorities
    ]
    trusted = [authority.certificate for authority in authorities]
    assert key_stores.is_key_store_of(content, PASSWORD, identity, trusted)
    assert not key_stores.is_key_store_of(content, PASSWORD, identity, trusted[:1])
    assert not key_stores.is_key_store_of(content, b"another", identity, trusted)
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_pkcs12(content, b"another")


def test_the_bags_of_the_authorities_are_marked_as_trusted(
    identity: pki.KeyPair, authorities: list[pki.KeyPair], tmp_path: Path
) -> None:
    store = tmp_path / "logstash.p12"
    store.write_bytes(store_of(identity, authorities))
    shown = subprocess.run(
        ["openssl", "pkcs12", "-in", store, "-nokeys", "-passin", "env:PASSWORD"],
        env={**os.environ, "PASSWORD": PASSWORD.decode()},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.count("2.16.840.1.113894.746875.1.1") == 2


class Server(threading.Thread):
    """A TLS server that demands a certificate, and tells its clients whom it has seen."""

    def __init__(self, authority: pki.KeyPair, folder: Path) -> None:
        super().__init__(daemon=True)
        own = pki.issue(authority, "rabbitmq", ["rabbitmq"])
        (folder / "cert.pem").write_bytes(own.certificate_pem + own.key_pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "cert.pem")
        self._context.load_verify_locations(cadata=authority.certificate_pem.decode())
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(client, server_side=True) as link:
                    link.sendall(str(link.getpeercert()["subject"]).encode())
            except (ssl.SSLError, OSError):
                client.close()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join()


@pytest.fixture
def ports(authorities: list[pki.KeyPair], tmp_path: Path) -> Iterator[list[str]]:
    """Of a server that is trusted, and of one of an authority that nobody knows."""
    servers = [
        Server(authority, tmp_path) for authority in (authorities[0], pki.create_authority("three"))
    ]
    for server in servers:
        server.start()
    yield [str(server.port) for server in servers]
    for server in servers:
        server.stop()


def test_java_shows_the_certificate_and_trusts_the_sites_authority_only(
    identity: pki.KeyPair, authorities: list[pki.KeyPair], ports: list[str], tmp_path: Path
) -> None:
    if shutil.which("javac") is None:
        missing("no JDK is installed")
    store, source = tmp_path / "logstash.p12", tmp_path / "Client.java"
    store.write_bytes(store_of(identity, authorities))
    source.write_text(CLIENT)
    told = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", source, store, *ports],
        env={**os.environ, "PASSWORD": PASSWORD.decode()},
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert told[0] == "greeted by CN=rabbitmq, who saw ((('commonName', 'logstash'),),)"
    assert "PKIX path building failed" in told[1]
