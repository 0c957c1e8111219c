"""To a dataset repository of a hub: one commit, and a tag of the version's name on it.

A commit is whole or not there. Large files are uploaded before it, and those that the hub has
already are not uploaded again, so that what was broken off goes on. The repository is the
line's own: the next version takes the place of the one before on ``main``, whose tag stays.
Endpoint and token are the environment's, ``HF_ENDPOINT`` and ``HF_TOKEN``, and nobody else's.
"""

import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aitp_tasks.dataset.finished import LAST, Finished
from aitp_tasks.errors import InputError
from aitp_tasks.records import data_files
from aitp_tasks.tools.publish.refusals import explained

log = logging.getLogger(__name__)

_KIND = "dataset"
#: What a new repository has.
_BY_ITSELF = ".gitattributes"
_NAMED = 3
#: That the hub may take to accept or give a piece of a request; its client would wait for ever.
_SECONDS = 300.0

#: The ``version.json`` of a version of the line, by its name; None where there is none.
Known = Callable[[str], bytes | None]


def repository(name: str) -> str:
    """A repository's name.

    Raises:
        InputError: it is none.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if "@" in name:
        raise InputError("--to holds credentials: put a token into HF_TOKEN instead")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--to hf://{name}: {' '.join(str(error).split())}") from None
    if not all(name.partition("/")):
        raise InputError(f"--to hf://{name}: give owner and name, hf://owner/name")
    return name


def publish(finished: Finished, name: str, public: bool, known: Known) -> dict[str, Any]:
    """Commit and tag a version, unless that has been done.

    Args:
        finished: the version.
        name: of the repository; a new one is made where there is none.
        public: whether anybody may read it.
        known: tells which versions the line has.

    Raises:
        InputError: the hub refuses token, name, card or licence; the repository holds something else, or is
            read by others than was said.
        TransientError: the hub has failed, or somebody else has written there meanwhile.
    """
    _require_tag(finished.name)
    hub = _Hub(name)
    with tempfile.TemporaryDirectory(prefix="aitp-publish-") as folder, explained(hub.where, hub.token):
        written = _publish(hub, finished, Path(folder), public, known)
    return {"published": f"{hub.url}/tree/{finished.name}", "written": written}


def _publish(hub: "_Hub", finished: Finished, folder: Path, public: bool, known: Known) -> int:
    hub.require(public)
    tagged = hub.tags().get(finished.name)
    if tagged is not None:
        if different := _different(finished, hub.tree(tagged), folder):
            raise InputError(
                f"{hub.where} has a tag {finished.name} under which {_some(different)} is another: nothing "
                "was written; publish to another repository, or delete the tag there if nobody needs it"
            )
        return 0
    head = hub.head()
    tree = hub.tree(head)
    different = _different(finished, tree, folder)
    if different:
        gone = _replaced(hub, finished, tree, head, known)
        head = hub.commit(
            finished, [finished.fetch(path, folder) for path in finished.files], folder, gone, head
        )
        if left := _different(finished, hub.tree(head), folder):
            raise InputError(
                f"{hub.where} has committed {finished.name} without {_some(left)}, so that it has no tag: "
                "see its .gitignore, then publish again"
            )
    hub.tag(finished.name, head)
    return len(different)


def _different(finished: Finished, tree: Mapping[str, str], folder: Path) -> list[str]:
    """The files that a tree does not have as they are, and what it has among the rows besides."""
    return [
        *(
            path
            for path in finished.files
            if path not in tree or tree[path] != _id(finished, path, tree[path], folder)
        ),
        *(path for path in tree if _is_row_file(path) and path not in finished.files),
    ]


def _id(finished: Finished, path: str, like: str, folder: Path) -> str:
    """What a hub calls a file: its SHA-256, or where it is small git's SHA-1."""
    stored = finished.files[path]
    if len(like) == len(stored.sha256):
        return stored.sha256
    local = folder / path
    data = (local if local.exists() else finished.fetch(path, folder)).read_bytes()
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def _replaced(hub: "_Hub", finished: Finished, tree: Mapping[str, str], head: str, known: Known) -> list[str]:
    """What is taken away: files of the version that is there, which this one does not have.

    Raises:
        InputError: something is there that no version of the line has put there.
    """
    there = [path for path in tree if path != _BY_ITSELF]
    if not there:
        return []
    own = _files_of(hub.read(LAST, head), known) if LAST in tree else None
    if own is None:
        raise InputError(
            f"{hub.where} holds {_some(there)}, and no version of this dataset: nothing was written; publish "
            "to a repository of its own"
        )
    foreign = [path for path in there if _is_row_file(path) and path not in own]
    if foreign:
        raise InputError(
            f"{hub.where} holds {_some(foreign)}, which would be taken for rows: nothing was written; "
            "delete it there"
        )
    return sorted(own & tree.keys() - finished.files.keys())


def _files_of(data: bytes, known: Known) -> set[str] | None:
    """The files of the version that a ``version.json`` is of; None where it is of none of the line."""
    try:
        told = json.loads(data)
        name, files = str(told["name"]), set(told["contents"]["files"])
    except (ValueError, TypeError, KeyError):
        return None
    return files | {LAST} if known(name) == data else None


def _is_row_file(path: str) -> bool:
    return path.startswith(f"{data_files.FOLDER}/")


def _some(paths: Iterable[str]) -> str:
    named = list(paths)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def _require_tag(name: str) -> None:
    if ".." in name or name.endswith((".", ".lock")):
        raise InputError(f"git allows no tag {name}: publish the version to s3:// or file://")


class _Hub:
    """One repository of a hub, through its own client."""

    def __init__(self, name: str) -> None:
        """
        Raises:
            InputError: the environment has no token, or an address with credentials.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars, get_session

        address = os.environ.get("HF_ENDPOINT") or None
        if address and "@" in address:
            raise InputError("HF_ENDPOINT holds credentials: put a token into HF_TOKEN instead")
        self.token = os.environ.get("HF_TOKEN", "")
        if not self.token:
            raise InputError(
                "HF_TOKEN is not set: give it a token of the hub that may write to the repository"
            )
        disable_progress_bars()
        get_session().timeout = _SECONDS
        self._api, self._name = HfApi(endpoint=address, token=self.token), name
        self.where = f"{name} at {self._api.endpoint}"
        self.url = f"{self._api.endpoint}/datasets/{name}"

    def require(self, public: bool) -> None:
        """Make the repository, or see that just those may read it who are to.

        Raises:
            InputError: it is there, and others may.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            found = self._api.repo_info(self._name, repo_type=_KIND, timeout=_SECONDS)
        except RepositoryNotFoundError:
            self._api.create_repo(self._name, repo_type=_KIND, private=not public, exist_ok=True)
            found = self._api.repo_info(self._name, repo_type=_KIND, timeout=_SECONDS)
        if not found.private and not public:
            raise InputError(
                f"{self.where} is public: nothing was written; give --public if anybody may read the "
                "version, or make the repository private"
            )
        if found.private and public:
            raise InputError(
                f"{self.where} is private, which --public does not change: make it public there, or leave "
                "--public out"
            )

    def tags(self) -> dict[str, str]:
        """Commits by tag."""
        refs = self._api.list_repo_refs(self._name, repo_type=_KIND)
        return {tag.name: tag.target_commit for tag in refs.tags}

    def head(self) -> str:
        """The commit that ``main`` is."""
        return str(self._api.repo_info(self._name, repo_type=_KIND, timeout=_SECONDS).sha)

    def tree(self, commit: str) -> dict[str, str]:
        """Paths of all files of a commit: SHA-256 of large ones, git's SHA-1 of the others."""
        from huggingface_hub.hf_api import RepoFile

        found = self._api.list_repo_tree(self._name, repo_type=_KIND, revision=commit, recursive=True)
        files = [entry for entry in found if isinstance(entry, RepoFile)]
        return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

    def read(self, path: str, commit: str) -> bytes:
        """A small file of a commit."""
        with tempfile.TemporaryDirectory(prefix="aitp-publish-") as folder:
            local = self._api.hf_hub_download(
                self._name, path, repo_type=_KIND, revision=commit, local_dir=folder
            )
            return Path(local).read_bytes()

    def commit(
        self, finished: Finished, local: Iterable[Path], folder: Path, gone: Iterable[str], parent: str
    ) -> str:
        """Commit files, on what was there when it was looked at; the commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        added = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in local]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made = self._api.create_commit(
                self._name,
                [*added, *map(CommitOperationDelete, gone)],
                commit_message=f"Add version {finished.name}",
                repo_type=_KIND,
                parent_commit=parent,
            )
        # Others are of the client's own making.
        for one in (one for one in said if issubclass(one.category, UserWarning)):
            log.warning("%s says: %s", self.where, " ".join(str(one.message).split()))
        return str(made.oid)

    def tag(self, name: str, commit: str) -> None:
        """Give a commit a name; one that has it keeps it."""
        self._api.create_tag(self._name, tag=name, revision=commit, repo_type=_KIND, exist_ok=True)
