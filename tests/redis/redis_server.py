# SPDX-License-Identifier: MIT
"""A redis server for a test."""

import shutil
import socket
import subprocess
import tempfile
import time

SERVER = shutil.which("redis-server")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Redis:
    """A server that keeps nothing on disk and ends with the test."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        for _ in range(5):  # somebody else may take the port
            self.port = free_port()
            self.process = subprocess.Popen(
                [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                 "--daemonize", "no", "--dir", self.folder.name], stdout=subprocess.DEVNULL)
            if self.answers():
                return self
            self.end()
        raise RuntimeError("redis-server does not answer")

    def answers(self):
        for _ in range(200):
            if self.process.poll() is not None:
                return False
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                    s.sendall(b"PING\r\n")
                    return s.recv(16) == b"+PONG\r\n"
            except OSError:
                time.sleep(0.02)
        return False

    def command(self, *words):
        """Returns: the first bytes of what the server replies."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
            s.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)]))
            return s.recv(4096)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __exit__(self, *_):
        self.end()
        self.folder.cleanup()
