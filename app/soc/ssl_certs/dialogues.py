"""What is said in clear text before TLS starts, and how each protocol is left.

A dialogue ends when the peer expects the TLS handshake; each names the document that it follows.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Awaitable, Callable

from soc.common.net import a_label
from soc.ssl_certs import farewells
from soc.ssl_certs.farewells import Farewell
from soc.ssl_certs.streams import EXCERPT_BYTES, place_of, printable, receive, send
from soc.ssl_certs.targets import Outcome, ProbeError, StartTls, Target

# What a peer may say in clear text before TLS. The longest honest dialogue, an EHLO reply with
# every extension, stays below 2 KiB.
MAX_CLEAR_BYTES = 64 * 1024


class ClearText:
    """A bounded reader and writer for the dialogue that leads to TLS."""

    def __init__(self, sock: socket.socket, target: Target) -> None:
        self._sock = sock
        self._target = target
        self._buffer = b""
        self._received = 0

    @property
    def name(self) -> str:
        """The name that the peer is addressed with."""
        return self._target.name

    async def send(self, data: bytes) -> None:
        """Send everything."""
        await send(self._sock, data)

    async def line(self) -> str:
        """Return the next line without its end."""
        line = await self.until(b"\n")
        return line.rstrip(b"\r\n").decode("ascii", "replace")

    async def until(self, *ends: bytes) -> bytes:
        """Return what comes up to and with the first of `ends`."""
        while not (
            found := [self._buffer.find(end) + len(end) for end in ends if end in self._buffer]
        ):
            await self._fill()
        size = min(found)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        while len(self._buffer) < size:
            await self._fill()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def finish(self) -> None:
        """Make sure that TLS is the next thing said.

        Clear text behind the agreement could pass for something said under TLS: RFC 3207 section 6.
        """
        if self._buffer:
            raise self.failed("it kept talking in clear text after it agreed to TLS")

    def failed(self, reason: str) -> ProbeError:
        """Return the error of a dialogue that does not lead to TLS."""
        return ProbeError(
            Outcome.STARTTLS_FAILED,
            f"{place_of(self._target)} did not start TLS: {reason}.",
        )

    def local_address(self) -> str:
        """Return this end's address."""
        return str(self._sock.getsockname()[0])

    async def _fill(self) -> None:
        received = await receive(self._sock)
        if not received:
            raise self.failed("it closed the connection")
        self._received += len(received)
        if self._received > MAX_CLEAR_BYTES:
            raise self.failed(f"it sent more than {MAX_CLEAR_BYTES} bytes of clear text")
        self._buffer += received


async def _smtp_dialogue(clear: ClearText) -> None:
    """Greeting, EHLO and STARTTLS: RFC 3207 section 4, replies as in RFC 5321 section 4.2."""
    await _reply(clear, "220")
    await clear.send(f"EHLO {_address_literal(clear.local_address())}\r\n".encode("ascii"))
    offered = await _reply(clear, "250")
    if "STARTTLS" not in (extension.strip().upper() for extension in offered):
        raise clear.failed("it does not offer STARTTLS in its EHLO reply")
    await clear.send(b"STARTTLS\r\n")
    await _reply(clear, "220")
    clear.finish()


async def _ftp_dialogue(clear: ClearText) -> None:
    """Greeting and AUTH TLS: RFC 4217 section 4, replies as in RFC 959 section 4.2."""
    await _reply(clear, "220")
    await clear.send(b"AUTH TLS\r\n")
    await _reply(clear, "234")
    clear.finish()


async def _reply(clear: ClearText, expected: str) -> list[str]:
    """Return the text of a reply line by line, or raise when its code is not the expected one.

    FTP's lines within a reply need not begin with the code; its last line does, as SMTP's.
    """
    texts = []
    while True:
        line = await clear.line()
        texts.append(line[4:])
        numbered = line[:3].isdecimal()
        if line[:3] != expected and (numbered or len(texts) == 1):
            raise clear.failed(f"it answered {printable(line)} where {expected} is due")
        if numbered and line[3:4] != "-":
            return texts


def _address_literal(address: str) -> str:
    """RFC 5321 section 4.1.3: how a client without a domain name introduces itself."""
    bare = address.partition("%")[0]
    return f"[IPv6:{bare}]" if ":" in bare else f"[{bare}]"


async def _imap_dialogue(clear: ClearText) -> None:
    """Greeting and STARTTLS: RFC 9051 section 6.2.1; untagged lines may come in between."""
    greeting = await clear.line()
    if not greeting.upper().startswith("* OK"):
        raise clear.failed(f"it greeted with {printable(greeting)}")
    await clear.send(b"a STARTTLS\r\n")
    while (answer := await clear.line()).startswith("* "):
        pass
    if not answer.upper().startswith("A OK"):
        raise clear.failed(f"it answered {printable(answer)} to STARTTLS")
    clear.finish()


async def _pop3_dialogue(clear: ClearText) -> None:
    """Greeting and STLS: RFC 2595 section 4."""
    for command in (b"", b"STLS\r\n"):
        await clear.send(command)
        answer = await clear.line()
        if not answer.startswith("+OK"):
            raise clear.failed(f"it answered {printable(answer)} where +OK is due")
    clear.finish()


_LDAP_STARTTLS = b"1.3.6.1.4.1.1466.20037"
_LDAP_SUCCESS = 0


async def _ldap_dialogue(clear: ClearText) -> None:
    """Send the extended request StartTLS: RFC 4511 sections 4.12 and 4.14, BER in short form."""
    name = bytes([0x80, len(_LDAP_STARTTLS)]) + _LDAP_STARTTLS
    message = b"\x02\x01\x01" + bytes([0x77, len(name)]) + name
    await clear.send(bytes([0x30, len(message)]) + message)
    answer = await _ber_element(clear, 0x30)
    # The message's number is a one, as was ours.
    number, operation = answer[:3], answer[3:]
    if number != b"\x02\x01\x01" or operation[:1] != b"\x78":
        raise clear.failed(f"it answered {printable(answer)}, no extended response")
    content = operation[1 + _ber_length_size(operation[1:]) :]
    if len(content) < 3 or content[:2] != b"\x0a\x01":
        raise clear.failed(f"it answered {printable(answer)}, no extended response")
    if content[2] != _LDAP_SUCCESS:
        diagnostic = re.sub(rb"[^ -~]+", b" ", content[3:]).strip()
        raise clear.failed(f"it answered with result code {content[2]} {printable(diagnostic)}")
    clear.finish()


async def _ber_element(clear: ClearText, tag: int) -> bytes:
    """Return the content of the next BER element (X.690 section 8.1)."""
    head = await clear.exactly(2)
    if head[0] != tag:
        raise clear.failed(f"it answered {printable(head)}, which is no LDAP")
    size = head[1]
    if size >= 0x80:
        size = int.from_bytes(await clear.exactly(size - 0x80), "big")
    return await clear.exactly(size)


def _ber_length_size(data: bytes) -> int:
    return 1 if not data or data[0] < 0x80 else data[0] - 0x80 + 1


_POSTGRESQL_SSL_REQUEST = struct.pack(">ii", 8, 80877103)


async def _postgresql_dialogue(clear: ClearText) -> None:
    """Send an SSLRequest; PostgreSQL manual, "Message Formats" and "SSL Session Encryption"."""
    await clear.send(_POSTGRESQL_SSL_REQUEST)
    answer = await clear.exactly(1)
    if answer == b"N":
        raise clear.failed("TLS is not enabled in this PostgreSQL server")
    if answer != b"S":
        raise clear.failed(f"it answered {printable(answer)} where 'S' is due")
    clear.finish()


def _xmpp_dialogue(namespace: str) -> Callable[[ClearText], Awaitable[None]]:
    """Return the negotiation of a stream of clients or of servers: RFC 6120 section 5.4."""

    async def dialogue(clear: ClearText) -> None:
        await clear.send(_stream_header(clear.name, namespace))
        offered = await clear.until(b"</stream:features>", b"</stream:error>", b"</stream:stream>")
        if b"<starttls" not in offered:
            raise clear.failed(f"it does not offer STARTTLS but {_stream_end(offered)}")
        await clear.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        if b"<proceed" not in await clear.until(b"/>", b"</proceed>", b"</failure>"):
            raise clear.failed("it refused STARTTLS")
        clear.finish()

    return dialogue


_STREAM_ERROR = re.compile(rb"<stream:error[^>]*>\s*<([a-z-]+)")


def _stream_end(offered: bytes) -> str:
    """Return the condition of a stream error (RFC 6120, 4.9.3), or the end of what was said."""
    if error := _STREAM_ERROR.search(offered):
        return f"ends the stream ({error[1].decode()})"
    return printable(offered[-EXCERPT_BYTES:])


def _stream_header(name: str, namespace: str) -> bytes:
    to = name if _is_address(name) else a_label(name)
    return (
        f"<?xml version='1.0'?><stream:stream to='{_in_xml(to)}' version='1.0'"
        f" xmlns='{namespace}' xmlns:stream='http://etherx.jabber.org/streams'>"
    ).encode()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _in_xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("'", "&apos;").replace("<", "&lt;")


# Packets: MySQL internals manual, "Protocol::HandshakeV10" and "Protocol::SSLRequest"; MariaDB
# documentation, "Connecting" in the client/server protocol.
_MYSQL_PROTOCOL = 10
_MYSQL_ERROR = 0xFF
_MYSQL_ADVICE = {
    1129: "; clients from this address left without a login too often, FLUSH HOSTS unblocks it",
    1130: "; it greets an address that some account, even a locked one, may come from",
}
"""What to do about a refused address, by error number; the server's own words are cut before it."""


async def _mysql_dialogue(clear: ClearText) -> None:
    """Read the initial handshake packet and answer with an SSLRequest packet.

    A packet is a 3-byte little-endian length, a sequence number and the payload.
    """
    header = await clear.exactly(4)
    greeting = await clear.exactly(int.from_bytes(header[:3], "little"))
    if not _mysql_capabilities(clear, greeting) & farewells.CLIENT_SSL:
        raise clear.failed("TLS is not enabled in this MySQL or MariaDB server")
    request = farewells.mysql_flags(
        farewells.PROTOCOL_41
        | farewells.CLIENT_SSL
        | farewells.SECURE_CONNECTION
        | farewells.PLUGIN_AUTH
    )
    sequence = (header[3] + 1) % 256
    await clear.send(len(request).to_bytes(3, "little") + bytes([sequence]) + request)
    clear.finish()


def _mysql_capabilities(clear: ClearText, greeting: bytes) -> int:
    """Return the lower 16 capability flags of an initial handshake packet's payload."""
    if greeting[:1] == bytes([_MYSQL_ERROR]):
        # An error packet: type, 2 bytes of error number, text.
        advice = _MYSQL_ADVICE.get(int.from_bytes(greeting[1:3], "little"), "")
        raise clear.failed(f"it answered {printable(greeting[3:])}{advice}")
    # Protocol version; server version up to a NUL; thread id (4), scramble (8), filler (1).
    _version, terminator, rest = greeting[1:].partition(b"\0")
    if greeting[:1] != bytes([_MYSQL_PROTOCOL]) or not terminator or len(rest) < 15:
        raise clear.failed(f"it does not greet as MySQL or MariaDB do: {printable(greeting)}")
    return int.from_bytes(rest[13:15], "little")


DIALOGUES: dict[StartTls, Callable[[ClearText], Awaitable[None]]] = {
    StartTls.SMTP: _smtp_dialogue,
    StartTls.IMAP: _imap_dialogue,
    StartTls.POP3: _pop3_dialogue,
    StartTls.LDAP: _ldap_dialogue,
    StartTls.POSTGRESQL: _postgresql_dialogue,
    StartTls.MYSQL: _mysql_dialogue,
    StartTls.XMPP: _xmpp_dialogue("jabber:client"),
    StartTls.XMPP_SERVER: _xmpp_dialogue("jabber:server"),
    StartTls.FTP: _ftp_dialogue,
}

FAREWELLS: dict[StartTls, Farewell] = {
    StartTls.SMTP: farewells.saying(b"QUIT\r\n"),
    StartTls.IMAP: farewells.saying(b"b LOGOUT\r\n"),
    StartTls.POP3: farewells.saying(b"QUIT\r\n"),
    StartTls.LDAP: farewells.saying(farewells.LDAP_UNBIND),
    StartTls.MYSQL: farewells.mysql,
    StartTls.FTP: farewells.saying(b"QUIT\r\n"),
}
"""The others are best left by the end of TLS: PostgreSQL expects that, XMPP would have to begin a
second stream first, which Prosody logs more of; of TLS from the first byte nothing says what is
spoken under it."""
