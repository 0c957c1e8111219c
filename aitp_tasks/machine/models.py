"""Where a model's files are, which they are, and why they cannot be loaded.

A model is a folder, a name on the hub, or a storage prefix that is copied here once.

The copy of a storage prefix lies under ``AITP_CACHE`` (by default
``~/.cache/aitp``), in a folder named by its identity: another version of the
model is another folder, and no copy is ever changed. Old ones are the user's to
delete.
"""

import errno
import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

from aitp_tasks.config import Engine, Finetune, Model
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import digest
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

log = logging.getLogger(__name__)

CACHE_VARIABLE = "AITP_CACHE"
_PASSING_STATUSES = (408, 429, *range(500, 600))
_COMMIT = re.compile("[0-9a-f]{40}")
#: Of a hub model: no code.
_HUB_FILES = (
    "*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "LICENSE*", "NOTICE*",
)  # fmt: skip
#: The same weights in another layout, as some repositories have them.
_HUB_SECOND_COPIES = ("*/*", "consolidated*")
ModelKind = TypeVar("ModelKind", bound=Model)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


def local(model: Model) -> str:
    """What to load a model from: a folder of this machine, or its name on the hub.

    Raises:
        InputError: the storage prefix holds no model.
        TransientError: the model was replaced while it was copied.
    """
    if not model.stored:
        return model.model
    storage = open_storage(model.model)
    listing = _listing(storage)
    folder = cache_folder() / "models" / _listing_identity(listing)
    if not _whole(folder, listing):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(folder.with_suffix(".lock")):
            # Whoever held the lock before may have made the copy.
            if not _whole(folder, listing):
                _copy(storage, listing, folder)
    return str(folder)


def snapshot(model: Model) -> Path:
    """Folder of a hub model's files in the hub's own cache; what is missing there is fetched.

    Weights that are not safetensors only where there are no others.
    """
    from huggingface_hub import snapshot_download

    def fetched(patterns: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                model.model,
                revision=model.revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(_HUB_SECOND_COPIES),
            )
        )

    folder = fetched(_HUB_FILES)
    return folder if any(folder.glob("*.safetensors")) else fetched((*_HUB_FILES, "pytorch_model*.bin"))


def pinned(model: ModelKind) -> ModelKind:
    """The model with its revision as a commit: where it is a branch or a tag, what that names now.

    Raises:
        InputError: there is no such model or revision.
        TransientError: the hub does not answer.
    """
    if not model.on_hub or not model.revision or _COMMIT.fullmatch(model.revision):
        return model
    from huggingface_hub import HfApi

    with loading(model, "model"):
        commit = HfApi().model_info(model.model, revision=model.revision).sha
    if commit is None:
        raise InputError(f"the hub names no commit for {model.model}@{model.revision}: set the commit itself")
    log.info("model=%s revision=%s is commit=%s", model.model, model.revision, commit)
    return model.model_copy(update={"revision": commit})


@contextmanager
def loading(model: Model, what: str) -> Iterator[None]:
    """Explain why a model cannot be loaded.

    Args:
        model: the model.
        what: how messages call it, e.g. "encoder".

    Raises:
        InputError: it is wrong.
        TransientError: see ``passing``.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        if passing(error):
            raise TransientError(f"{what} {model.model} cannot be loaded now, retry: {reason}") from error
        raise InputError(
            f"{what} {model.model} cannot be loaded: correct it or its revision: {reason}"
        ) from error


def passing(error: BaseException) -> bool:
    """Whether loading may succeed next time: the hub does not answer, or there is no room."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    chain = _chain(error)
    if any(isinstance(one, OfflineModeIsEnabled) for one in chain):
        return False
    return any(
        isinstance(one, ConnectionError | TimeoutError | LocalEntryNotFoundError)
        or (isinstance(one, HfHubHTTPError) and one.response.status_code in _PASSING_STATUSES)
        or (isinstance(one, OSError) and one.errno in _NO_ROOM)
        for one in chain
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error, and those that led to it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def identity(model: Model) -> str:
    """What a model contains, and with it the content of its chat template and DeepSpeed file, if configured.

    Of a folder its files' digest, of a storage prefix its listing's (keys, entity tags and
    sizes), of a hub name it and its revision.

    Raises:
        InputError: the folder, prefix or file does not exist, or a hub model has no revision.
    """
    found = _content_identity(model)
    if isinstance(model, Engine):
        return _with_file(found, model.chat_template, "engine.chat_template")
    if isinstance(model, Finetune):
        found = _with_file(found, model.chat_template, "finetune.chat_template")
        return _with_file(found, model.deepspeed, "finetune.deepspeed")
    return found


def require_planned(model: Model, planned: str, what: str) -> None:
    """Make sure that a model is the one that a run was planned with.

    What is made with it is kept under the planned one's name, wherever the plan says that it lies.

    Raises:
        InputError: it is another one now.
    """
    if identity(model) != planned:
        raise InputError(
            f"{what} {model.model}, or a file that belongs to it, was changed after the run was planned: "
            "plan the run anew"
        )


def _content_identity(model: Model) -> str:
    if model.folder is not None:
        if not model.folder.is_dir():
            raise InputError(
                f"model folder {model.model} does not exist: run the setup, or correct the configured path"
            )
        return digest.of_folder(model.folder)
    if model.stored:
        return _listing_identity(_listing(open_storage(model.model)))
    if not model.revision:
        raise InputError(
            f"model {model.model!r} is neither an absolute folder, a storage prefix nor pinned: "
            "set its revision to a commit of the hub repository"
        )
    return digest.of_value([model.model, model.revision])


def _with_file(found: str, path: str | None, setting: str) -> str:
    """A model's identity together with that of a file's content."""
    if path is None:
        return found
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{setting}={path} cannot be read ({error.strerror}): correct the path, or leave it out"
        )
    return digest.of_value([found, digest.of_bytes(content)])


def _listing_identity(listing: list[ObjectInfo]) -> str:
    return digest.of_value([[info.key, info.etag, info.size] for info in listing])


def _listing(storage: Storage) -> list[ObjectInfo]:
    # Some tools mark a folder by an empty object whose key ends with a slash.
    found = [info for info in storage.list("") if info.key and not info.key.endswith("/")]
    if not found:
        raise InputError(f"there is no model under {storage.root}: upload it, or correct the configured URI")
    for info in found:
        if info.key.startswith("/") or ".." in PurePosixPath(info.key).parts or "\0" in info.key:
            raise InputError(f"{storage.root} holds the key {info.key!r}, which leads out of it: remove it")
    if links := sorted(storage.unlisted("")):
        raise InputError(
            f"{storage.root} holds {links[0]!r}, a link to a folder or to nothing, which is not copied: put "
            "what it leads to there, or name the folder without file://"
        )
    return sorted(found, key=lambda info: info.key)


def _whole(folder: Path, listing: list[ObjectInfo]) -> bool:
    try:
        return all((folder / info.key).stat().st_size == info.size for info in listing)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _copy(storage: Storage, listing: list[ObjectInfo], folder: Path) -> None:
    """Copy the objects aside, and show them under ``folder`` all at once."""
    start = time.monotonic()
    aside = folder.with_suffix(".unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for info in listing:
            path = aside / info.key
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.download(info.key, path)
        if not _whole(aside, listing) or _listing(storage) != listing:
            raise TransientError(f"{storage.root} was changed while it was copied: run the task again")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    megabytes = sum(info.size for info in listing) / 1e6
    log.info("model=%s files=%d mb=%.0f seconds=%.1f folder=%s", storage.root, len(listing), megabytes,
             time.monotonic() - start, folder)  # fmt: skip


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process at the latest."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def cache_folder() -> Path:
    """Where this machine keeps what it has fetched or prepared."""
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured).resolve() if configured else Path.home() / ".cache" / "aitp"
