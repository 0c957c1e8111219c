"""Servers for the endpoints' tests: a real vLLM, and one that fails as it is told to."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

KEY = "a-key-that-nobody-may-see"
#: Status, headers and body; a body in pieces ends where the connection does.
Reply = tuple[int, dict[str, str], bytes | Iterable[bytes]]
HTML = (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")
PASSING: dict[str, Reply] = {
    "500": (500, {}, b"boom"),
    "503": (503, {}, b'{"error": {"message": "loading"}}'),
    "408": (408, {}, b""),
    "409": (409, {}, b""),
    "429": (429, {}, b"slow down"),
    "connection lost": (200, {"Content-Length": "1000"}, b'{"data": ['),
}


@contextlib.contextmanager
def vllm_server(folder: Path, options: Sequence[str]) -> Iterator[str]:
    """vLLM's server, which wants KEY; its URL.

    Args:
        folder: for its log.
        options: of its command line, the model among them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not `vllm serve`: its CPU build looks for a distribution named vllm, and there is none.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--enforce-eager", "--distributed-executor-backend", "uni"]
    output = folder / "log"
    with output.open("wb") as stream:
        server = subprocess.Popen(
            [*command, *options],
            stdout=stream,
            stderr=stream,
            env=os.environ
            | {
                "VLLM_API_KEY": KEY,
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
                "VLLM_HOST_IP": "127.0.0.1",
                "VLLM_NO_USAGE_STATS": "1",
                "HF_HUB_OFFLINE": "1",
            },
        )
    try:
        while not _is_up(port):
            assert server.poll() is None, output.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        tree = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        server.terminate()
        for process in psutil.wait_procs(tree, timeout=15)[1]:
            process.kill()
        server.wait()


def _is_up(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
    except OSError:
        return False
    return True


class Served(ThreadingHTTPServer):
    """A server that answers by a rule, and otherwise when it is told to.

    Attributes:
        instead: gives the answer to a request in place of the rule, or None.
        requests: when each came, what it asked for, its headers.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, rule: Callable[[Any], bytes], asked: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule = rule
        self.asked = asked
        self.instead: Callable[[Any], Reply | None] = lambda _: None
        self.requests: list[tuple[float, Any, dict[str, str]]] = []
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def next_answers(self, *answers: Reply) -> None:
        """Give these once each before those of the rule."""
        rest = list(answers)
        self.instead = lambda _: rest.pop(0) if rest else None


@contextlib.contextmanager
def serving(
    rule: Callable[[Any], bytes], asked: Callable[[dict[str, Any]], Any] = lambda body: body
) -> Iterator[Served]:
    """A server while it runs.

    Args:
        rule: the body of the answer to what was asked for.
        asked: takes that out of a request's JSON.
    """
    server = Served(rule, asked)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Served

    def do_POST(self) -> None:
        asked = self.server.asked(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        with self.server.lock:
            self.server.requests.append((time.monotonic(), asked, dict(self.headers.items())))
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        status, headers, answer = self.server.instead(asked) or (200, {}, self.server.rule(asked))
        with self.server.lock:
            self.server.under_way -= 1
        length = {"Content-Length": str(len(answer))} if isinstance(answer, bytes) else {}
        # A client that is gone is no failure of the server.
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in (length | headers).items():
                self.send_header(name, value)
            self.end_headers()
            for piece in [answer] if isinstance(answer, bytes) else answer:
                self.wfile.write(piece)

    def log_message(self, format: str, *args: Any) -> None:
        pass
