"""Somebody who asks for ``/healthz`` all the time: a process of its own, ``python -m tests.benchmarks.health PORT``.

For each line of standard input it prints the longest wait in milliseconds since the line before.
"""

import json
import socket
import sys
import threading
import time

EVERY_S = 0.005


class Probe:
    """One kept-alive connection that asks again and again; a wait counts once it is over."""

    def __init__(self, port: int) -> None:
        self.longest_s = 0.0
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._request = f"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()

    def run(self) -> None:
        """Ask for ever."""
        while True:
            asked_at = time.perf_counter()
            self._socket.sendall(self._request)
            if not self._read():
                return
            self.longest_s = max(self.longest_s, time.perf_counter() - asked_at)
            time.sleep(EVERY_S)

    def _read(self) -> bool:
        """Read one whole answer, its body too, which may come behind its head; False: the connection has ended."""
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < _length(answer):
            piece = self._socket.recv(65_536)
            if not piece:
                return False
            answer += piece
        return True

    def take(self) -> float:
        """Return the longest wait so far, in seconds, and begin anew."""
        longest_s, self.longest_s = self.longest_s, 0.0
        return longest_s


def _length(answer: bytes) -> int:
    return int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def main() -> None:
    """Serve standard input."""
    probe = Probe(int(sys.argv[1]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Thread(target=probe.run, daemon=True).start()
    for _line in sys.stdin:
        sys.stdout.write(json.dumps({"longest_ms": probe.take() * 1000}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
