"""TLS peers of every bad kind, one port each; runs in the app image beside the stack.

usage: python3 serve.py FOLDER, where FOLDER holds <port>.pem with key and chain for each TLS port
"""

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

SILENT, CLEAR, HANGING = 4440, 4441, 4442


def listen(port: int, answer: Callable[[socket.socket], None]) -> None:
    server = socket.create_server(("0.0.0.0", port))
    while True:
        connection, address = server.accept()
        print(port, "accepted", address[0], flush=True)
        threading.Thread(target=guarded, args=(answer, connection), daemon=True).start()


def guarded(answer: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with connection:
        try:
            answer(connection)
        except OSError as error:
            print("peer left:", error, flush=True)


def hang(connection: socket.socket) -> None:
    time.sleep(60)


def speak_http(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


def tls(pem: Path) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    return answer


def main(folder: Path) -> None:
    peers = {SILENT: hang, CLEAR: speak_http, HANGING: hang}
    peers |= {int(pem.stem): tls(pem) for pem in folder.glob("*.pem")}
    for port, answer in peers.items():
        threading.Thread(target=listen, args=(port, answer), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main(Path(sys.argv[1]))
