"""A hub of models on loopback, with branches that move."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.aitp_tasks import loopback

REPOSITORY = "team/small"


class Hub:
    """One repository: commits with their files, and what branches and tags name."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.names: dict[str, str] = {}
        self.asked: list[str] = []
        self.status: int | None = None

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Let a branch name a new commit; its hash."""
        told = json.dumps({key: value.hex() for key, value in files.items()})
        found = hashlib.sha1(told.encode()).hexdigest()
        self.commits[found], self.names[name] = files, found
        return found

    def find(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a hash."""
        return revision if revision in self.commits else self.names.get(revision)


@contextmanager
def serving(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve it where the library looks for the hub, with an empty cache of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(self.path)
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0].strip("/")
            if hub.status is not None:
                return self._send(hub.status, b"{}", body)
            if path.startswith(f"api/models/{REPOSITORY}/revision/"):
                commit = hub.find(path.rpartition("/")[2])
                if commit is None:
                    return self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
                siblings = [{"rfilename": name} for name in hub.commits[commit]]
                told = {"id": REPOSITORY, "sha": commit, "siblings": siblings}
                return self._send(200, json.dumps(told).encode(), body)
            if path.startswith(f"api/models/{REPOSITORY}/tree/"):
                revision, _, folder = path.removeprefix(f"api/models/{REPOSITORY}/tree/").partition("/")
                if folder:
                    return self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
                files = hub.commits[hub.find(revision) or ""].items()
                tree = [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(content),
                        "oid": hashlib.sha1(content).hexdigest(),
                    }
                    for name, content in files
                ]
                return self._send(200, json.dumps(tree).encode(), body)
            if path.startswith(f"{REPOSITORY}/resolve/"):
                revision, _, name = path.removeprefix(f"{REPOSITORY}/resolve/").partition("/")
                commit = hub.find(revision)
                content = hub.commits[commit].get(name) if commit else None
                if commit is None or content is None:
                    return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
                tag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
                return self._send(200, content, body, tag)
            return self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

        def _send(
            self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with loopback.serving(Handler) as address:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield
