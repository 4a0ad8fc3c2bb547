"""A stand-in for an engine, for what a real one cannot be made to do on demand: `stand_in_engine.py SOCKET BEHAVIOUR`.

Real engines on real weights are used wherever they can show the case (test_supervisor.py, test_orphans.py). None of
them dies while it loads, never becomes healthy, ignores SIGTERM or has grandchildren at a test's wish; this one does.
It is a real process that listens on a real socket, and its standard library is all it needs.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def main(path: str, behaviour: str) -> None:
    """Behave, then serve for ever."""
    print(f"stand-in {os.getpid()} {behaviour} {os.environ.get('STAND_IN_NOTE', '')}", flush=True)
    if behaviour == "hangs":
        time.sleep(600)
    if behaviour == "dies-loading":
        sys.exit("the weights are made of cheese")
    if behaviour == "ignores-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "has-grandchildren":
        near, far = subprocess.Popen(_SLEEP), subprocess.Popen(_SLEEP, start_new_session=True)
        print(f"grandchildren {near.pid} {far.pid}", flush=True)
    _serve(path, unhealthy_answers={"loads": 3, "never-healthy": 10**9}.get(behaviour, 0))


def _serve(path: str, unhealthy_answers: int) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    answers = 0
    while True:
        client, _ = server.accept()
        with client:
            client.recv(4096)
            status = "503 Loading" if answers < unhealthy_answers else "200 OK"
            client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        answers += 1


if __name__ == "__main__":
    Path(sys.argv[1]).unlink(missing_ok=True)
    main(*sys.argv[1:])
