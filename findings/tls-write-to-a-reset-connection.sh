#!/bin/sh
# A failed write on one TLS connection makes reads on every other TLS connection of the thread fail.
#
# Software: Python 3.13.5 and OpenSSL 3.5 of Debian 13 (trixie), ssl module of the standard
# library; seen on 2026-11-27. Not with Python 3.11 on OpenSSL 3.0, nor in Python by itself before
# OpenSSL 3.2.
# Expected: a connection that its peer has reset raises ConnectionResetError when it is written to,
# and is closed. Another connection, to another peer, which has nothing to read, goes on waiting.
# Seen: the other connection raises "Connection reset by peer" too, at once instead of after its
# timeout, and again for each further read, although its peer is there. It ends only when
# something in the thread empties OpenSSL's queue of errors, such as a new TLS handshake. Not only
# unwrap() leaves the error (python/cpython#148594 and #81891 are about the queue): a plain send()
# does, so a program that drops a broken connection without a farewell is hit as well.
# It hurts whoever keeps several TLS connections in a thread: a client of two brokers, an SMTP
# client next to a database, a pool of HTTPS connections.
set -eu

image=${DEBIAN_IMAGE:-debian:trixie}
docker image inspect "$image" >/dev/null 2>&1 || image=soc-offline/debian:trixie
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/connections.py" <<'EOF'
import socket, ssl, struct, sys, threading, time

serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
serving.load_cert_chain("cert.pem", "key.pem")
asking = ssl.create_default_context(cafile="cert.pem")


def connect():
    ends = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accept = lambda: ends.append(serving.wrap_socket(listener.accept()[0], server_side=True))
        accepting = threading.Thread(target=accept)
        accepting.start()
        raw = socket.create_connection(listener.getsockname())
        client = asking.wrap_socket(raw, server_hostname="localhost")
        accepting.join()
    ends[0].sendall(b"x")
    assert client.recv(1) == b"x"
    return client, ends[0]


def outcome(call, *arguments):
    try:
        return repr(call(*arguments))
    except OSError as error:
        return type(error).__name__


good, good_peer = connect()
bad, bad_peer = connect()
good.settimeout(0.2)
print("version:", sys.version.split()[0], ssl.OPENSSL_VERSION)
print("before:  the good connection, nothing to read:", outcome(good.recv, 1))
bad_peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
bad_peer.close()
time.sleep(0.1)
print("         write to the connection that was reset:", outcome(bad.send, b"x"))
bad.close()
seen = [outcome(good.recv, 1) for _ in range(3)]
print("expected: three reads of the good connection:", ["TimeoutError"] * 3)
print("seen:    ", seen)
good_peer.sendall(b"y")
print("         its peer sends a byte:", outcome(good.recv, 1))
connect()
print("         after a new handshake in the thread:", outcome(good.recv, 1))
sys.exit(seen != ["ConnectionResetError"] * 3)
EOF

docker run --rm --network host --volume "$work:/finding:ro" "$image" sh -euc '
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends python3 openssl >/dev/null 2>&1
    mkdir /run/try && cd /run/try
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2>/dev/null
    python3 /finding/connections.py'
