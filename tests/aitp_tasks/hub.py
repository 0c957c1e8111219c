"""A small hub on loopback: the requests that its own client makes to create, fill, tag and read a dataset.

It holds repositories as commits of whole trees, wants a token, and refuses what it is told to.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.aitp_tasks import loopback

TOKEN = "hf_that_nobody_may_see"
#: As the hub does it: large files, and Parquet whatever its size.
_LARGE_BYTES = 20_000
Tree = dict[str, bytes]
#: Status and what is told; None for the usual answer.
Refusal = tuple[int, dict[str, Any]] | None


@dataclass
class Repository:
    """One dataset: commits from the oldest on, and tags."""

    private: bool
    commits: list[tuple[str, Tree]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, tree: Tree) -> str:
        """A commit of a whole tree."""
        said = repr([len(self.commits), sorted((path, _git(data)) for path, data in tree.items())])
        oid = hashlib.sha1(said.encode()).hexdigest()
        self.commits.append((oid, tree))
        return oid

    def tree(self, revision: str) -> Tree | None:
        """Of a commit, a tag or ``main``."""
        wanted = self.commits[-1][0] if revision == "main" else self.tags.get(revision, revision)
        return next((tree for oid, tree in self.commits if oid == wanted), None)


@dataclass
class Hub:
    """What the hub holds, and how it behaves."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    #: Large files by their digests, committed or not.
    large: dict[str, bytes] = field(default_factory=dict)
    #: What was asked for, by short names, with what it was about.
    asked: list[tuple[str, str]] = field(default_factory=list)
    #: May answer in place of the hub.
    refuses: Callable[[str, str], Refusal] = lambda name, about: None
    #: Whether commits are made and their answers lost.
    loses_answers: bool = False
    #: Paths that a ``.gitignore`` names.
    ignores: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def writes(self) -> list[str]:
        """Names of the requests that change or check something, in their order."""
        reading = ("info", "refs", "tree", "resolve")
        return [name for name, _ in self.asked if name not in reading]

    def uploads(self) -> list[str]:
        """Digests of the large files that were sent, in their order."""
        return [about for name, about in self.asked if name == "upload"]


@contextmanager
def serving() -> Iterator[Hub]:
    """A running hub."""
    hub = Hub()

    class Handler(_Handler):
        held = hub

    with loopback.serving(Handler) as address:
        hub.address = address
        yield hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        with self.held.lock:
            name, about, answer = self._found(parts, body)
            self.held.asked.append((name, about))
            refused = self.held.refuses(name, about)
            if refused is None and name != "upload" and not self._is_known():
                refused = (401, {"error": f"no {self.headers.get('Authorization')}"})
            if refused is not None:
                self._answer(*refused)
                return
            status, told = answer()
            if name == "commit" and self.held.loses_answers and status == 200:
                self.close_connection = True
                return
            self._answer(status, told)

    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _found(
        self, parts: list[str], body: bytes
    ) -> tuple[str, str, Callable[[], tuple[int, dict[str, Any] | list[Any] | bytes]]]:
        """Name of a request, what it is about, and what makes the answer."""
        held = self.held
        match parts:
            case ["api", "repos", "create"]:
                told = json.loads(body)
                name = f"{told['organization']}/{told['name']}"
                return "create", name, lambda: self._create(name, told)
            case ["api", "validate-yaml"]:
                warnings = [{"message": message} for message in held.warnings]
                return "validate", "", lambda: (200, {"errors": [], "warnings": warnings})
            case ["lfs", oid]:
                return "upload", oid, lambda: self._upload(oid, body)
            case ["datasets", owner, name, "info", "lfs", "objects", "batch"]:
                return "batch", name, lambda: (200, self._batch(json.loads(body)))
            case ["datasets", owner, name, "resolve", revision, *path]:
                return "resolve", "/".join(path), lambda: self._resolve(f"{owner}/{name}", revision, path)
            case ["api", "datasets", owner, name, *rest]:
                what = rest[0] if rest else "info"
                repository = f"{owner}/{name}"
                return what, repository, lambda: self._of(repository, what, rest[1:], body)
        return "unknown", self.path, lambda: (404, {"error": "unknown"})

    def _create(self, name: str, told: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        url = {"url": f"{self.held.address}/datasets/{name}"}
        if name in self.held.repositories:
            return 409, url
        assert told["type"] == "dataset"
        made = Repository(private=told.get("visibility") == "private")
        made.add({".gitattributes": b"*.parquet filter=lfs"})
        self.held.repositories[name] = made
        return 200, url

    def _upload(self, oid: str, body: bytes) -> tuple[int, dict[str, Any]]:
        assert hashlib.sha256(body).hexdigest() == oid
        self.held.large[oid] = body
        return 200, {}

    def _batch(self, told: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for one in told["objects"]:
            href = {"actions": {"upload": {"href": f"{self.held.address}/lfs/{one['oid']}"}}}
            objects.append(one if one["oid"] in self.held.large else one | href)
        return {"transfer": "basic", "objects": objects}

    def _resolve(self, name: str, revision: str, path: list[str]) -> tuple[int, Any]:
        found = self.held.repositories[name]
        tree = found.tree(revision)
        if tree is None or "/".join(path) not in tree:
            return 404, {"error": "no such entry"}
        return 200, tree["/".join(path)]

    def _of(self, name: str, what: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        found = self.held.repositories.get(name)
        if found is None:
            return 404, {"error": "Repository not found", "code": "RepoNotFound"}
        if what in ("info", "revision"):
            return 200, {"id": name, "sha": found.commits[-1][0], "private": found.private, "tags": []}
        if what == "refs":
            tags = [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": of} for tag, of in found.tags.items()
            ]
            return 200, {"branches": [], "converts": [], "tags": tags}
        if what == "tree":
            tree = found.tree(rest[0])
            return 200, [_entry(path, data) for path, data in (tree or {}).items()]
        if what == "preupload":
            return 200, {"files": [self._mode(found, one) for one in json.loads(body)["files"]]}
        if what == "commit":
            return self._commit(name, [json.loads(line) for line in body.splitlines()])
        if what == "tag":
            tag = json.loads(body)["tag"]
            if tag in found.tags:
                return 409, {"error": "tag exists"}
            found.tags[tag] = rest[0]
            return 200, {}
        return 404, {"error": what}

    def _mode(self, found: Repository, one: dict[str, Any]) -> dict[str, Any]:
        path = one["path"]
        there = found.commits[-1][1].get(path)
        return {
            "path": path,
            "uploadMode": "lfs" if _is_large(path, one["size"]) else "regular",
            "shouldIgnore": path in self.held.ignores,
            **({} if there is None else {"oid": _id(path, there)}),
        }

    def _commit(self, name: str, told: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        found = self.held.repositories[name]
        head, tree = found.commits[-1][0], dict(found.commits[-1][1])
        if told[0]["value"].get("parentCommit", head) != head:
            return 412, {"error": "the branch has moved"}
        for one in told[1:]:
            value = one["value"]
            if one["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                tree[value["path"]] = self.held.large[value["oid"]]
            else:
                del tree[value["path"]]
        oid = found.add(tree)
        return 200, {"commitUrl": f"{self.held.address}/datasets/{name}/commit/{oid}", "commitOid": oid}

    def _answer(self, status: int, told: Any) -> None:
        data = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if isinstance(told, dict) and "error" in told:
            self.send_header("X-Error-Message", str(told["error"]))
            self.send_header("X-Error-Code", told.get("code", ""))
        if isinstance(told, bytes):
            self.send_header("ETag", f'"{_git(told)}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _is_large(path: str, size: int) -> bool:
    return path.endswith((".parquet", ".png")) or size > _LARGE_BYTES


def _id(path: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if _is_large(path, len(data)) else _git(data)


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": _git(data)}
    if _is_large(path, len(data)):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry
