"""What a stage hands on under fixed names: whole, and of the one try that was committed.

A killed task's process may live on beside the task's next try. Each try writes its
objects below a prefix of its own; the manifest that stands names the prefix that
counts, and only then are its objects copied to the fixed names, in the storage.
Whoever finds the manifest finishes that where it was not finished: a second time
changes nothing. A manifest of an earlier release names no prefix: its try wrote the
fixed names itself.
"""

import logging
import uuid

from aitp_tasks.errors import InputError
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run

log = logging.getLogger(__name__)

#: The output of a manifest that names the committed try's prefix.
ATTEMPT = "attempt"
#: Object that names the try whose objects have all been copied.
MARK = "published"


def attempt(run: Run, stage: str) -> str:
    """A prefix for the objects of one try at a stage; no other try has it."""
    return run.key(stage, f"attempt-{uuid.uuid4().hex}")


def publish(run: Run, done: Manifest, target: str, last: str = "") -> None:
    """Copy what a stage has committed to its fixed names, unless that has been done.

    Each object appears whole. Until this has returned, some of them may be missing, or
    be those of a manifest that was deleted in order to compute the stage anew.

    Args:
        run: the run.
        done: the stage's manifest, as it stands.
        target: prefix of the fixed names.
        last: file name of the object without which the others cannot be used.

    Raises:
        InputError: the committed objects were deleted before they were copied.
    """
    source = done.outputs.get(ATTEMPT)
    if source is None:
        return
    storage, mark = run.storage, run.key(done.stage, MARK)
    names = [info.key.removeprefix(f"{source}/") for info in storage.list(f"{source}/")]
    marked = storage.read_tagged(mark)
    finished = marked is not None and marked.data.decode("ascii", "replace") == source
    if not names and not finished:
        raise InputError(
            f"{storage.uri(source)} was deleted before its objects were copied to {storage.uri(target)}: "
            f"delete {storage.uri(run.manifest_key(done.stage))}, then run `aitp {done.stage}` again"
        )
    there = {info.key for info in storage.list(f"{target}/")} if finished else set()
    for name in sorted(names, key=lambda name: name == last):
        if f"{target}/{name}" not in there:
            storage.copy(f"{source}/{name}", f"{target}/{name}")
    if not finished:
        storage.write(mark, source.encode("ascii"))
        log.info("published stage=%s objects=%d target=%s", done.stage, len(names), target)


def committed_prefix(run: Run, done: Manifest, output: str) -> str:
    """Prefix of a folder of objects as it was committed, whether or not its fixed name is there yet.

    The fixed name where the try's own objects are not kept.
    """
    source = done.outputs.get(ATTEMPT)
    kept = source is not None and next(iter(run.storage.list(f"{source}/")), None) is not None
    return source if source is not None and kept else done.output(output)


def committed(run: Run, done: Manifest, key: str, target: str) -> str:
    """Key of an object as it was committed, whether or not its fixed name is there yet.

    The fixed name where the try's own object is not kept.

    Args:
        run: the run.
        done: the stage's manifest, as it stands.
        key: the fixed name.
        target: prefix of the fixed names.
    """
    source = done.outputs.get(ATTEMPT)
    if source is None:
        return key
    own = f"{source}/{key.removeprefix(f'{target}/')}"
    return key if run.storage.find(own) is None else own
