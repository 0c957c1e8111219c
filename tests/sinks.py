"""Where messages end up: a real SMTP server and a real HTTP server, on free ports of 127.0.0.1."""

import email
import json
import socket
import threading
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

HOST = "127.0.0.1"


class Sinks:
    """Both servers, and what they have been sent.

    Attributes:
        mails: in the order of their arrival.
        posts: path, headers and JSON of each.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.posts: list[tuple[str, dict[str, str], Any]] = []
        self.mail_port = free_port()
        self._smtp = Controller(self, hostname=HOST, port=self.mail_port)
        self._smtp.start()
        self._http = ThreadingHTTPServer((HOST, 0), _handler(self.posts))
        self.web_port = int(self._http.server_address[1])
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """aiosmtpd's call for each mail."""
        made = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(made, EmailMessage)
        made["X-Envelope-To"] = ", ".join(envelope.rcpt_tos)
        self.mails.append(made)
        return "250 OK"

    def stop(self) -> None:
        """End both."""
        self._smtp.stop()
        self._http.shutdown()
        self._http.server_close()

    def mail_connection(self, port: int | None = None) -> dict[str, Any]:
        """The Airflow connection of the mail server, or of one at another port."""
        extra = {"from_email": "airflow@example.org", "disable_ssl": True, "disable_tls": True}
        return {
            "conn_type": "smtp",
            "host": HOST,
            "port": port or self.mail_port,
            "extra": json.dumps(extra),
        }

    def web_connection(self, port: int | None = None) -> dict[str, Any]:
        """The Airflow connection of the webhook, or of one elsewhere; its password is its secret path."""
        return {
            "conn_type": "http",
            "schema": "http",
            "host": HOST,
            "port": port or self.web_port,
            "password": "/services/T0/B0/secret-path",
        }


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _handler(posts: list[tuple[str, dict[str, str], Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posts.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
