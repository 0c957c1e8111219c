"""One trial's process: a configuration on standard input, one line of JSON on standard output.

Each trial does a little of a stage's real work with the real parts, and compares it with
something that is known.
"""

import contextlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import AitpError, InputError
from aitp_tasks.machine import devices, models, processes
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.doctor.bounded import level_of
from aitp_tasks.tools.doctor.finding import Level

_TEXTS = (
    "The river carries grain to the port, where ships wait for the tide.",
    "A function returns the sum of the squares of its arguments.",
    "Grain comes down the river to the harbour, and the ships wait there for high water.",
)
_POINTS, _PLACES, _BANDWIDTH = 400, 200, 1.0
_FOLDER = "probes/doctor"


def embed(config: RunConfig) -> str:
    """Embed three texts: two that say the same are nearer to each other than to the third."""
    import numpy as np

    from aitp_tasks.encoder.opened import open_encoder

    encoder = open_encoder(config.encoder, models.identity(config.encoder))
    values = np.concatenate([found.values for found, _ in encoder.vectors_of(_TEXTS)]).astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    near, far = values[0] @ values[2], values[0] @ values[1]
    if not np.isfinite(values).all() or near <= far:
        raise InputError(
            f"{config.encoder.label} finds two texts of one meaning no nearer (cosine {near:.3f}) than "
            f"others ({far:.3f}): name a sentence encoder in encoder.model"
        )
    dimension = values.shape[1]
    return f"3 texts, dimension {dimension}, on {encoder.backend.name}; cosines {near:.2f} and {far:.2f}"


def densities(_: RunConfig | None) -> str:
    """Densities of some points by the grid, against the sum over all of them."""
    import numpy as np

    from aitp_tasks.densities.field import FLOOR, Field, Window, cells_per_bandwidth
    from aitp_tasks.densities.grid import SparseGrid

    random, error = np.random.default_rng(0), 1e-3
    points, places = random.normal(size=(_POINTS, 2)) * 3, random.normal(size=(_PLACES, 2)) * 4
    grid = SparseGrid.of(points, _BANDWIDTH / cells_per_bandwidth(error, _BANDWIDTH, 2))
    window = Window.around([grid, SparseGrid.of(places, grid.step)], _BANDWIDTH)
    found = Field.of(grid, _BANDWIDTH, window).at(places)
    squares = ((points[None] - places[:, None]) ** 2).sum(axis=2)
    exact = np.exp(-squares / (2 * _BANDWIDTH**2)).mean(axis=1) / (2 * np.pi * _BANDWIDTH**2)
    worst = float(np.abs(found / exact - 1)[exact > FLOOR].max())
    if worst > error:
        raise InputError(
            f"densities are off by {worst:.2g} where {error:g} is promised: numpy, scipy or numba are not "
            "the lock's; install the environment anew by requirements/install.sh"
        )
    return f"{_PLACES} densities of {_POINTS} points, off by {worst:.1e} at most"


def engine(config: RunConfig) -> str:
    """Start the engine and rewrite one document, as the schema has it."""
    from aitp_tasks.generation import prompt_files
    from aitp_tasks.generation.engine import Job, open_engine
    from aitp_tasks.generation.engine.prompting import Prompter
    from aitp_tasks.generation.requests import parse
    from aitp_tasks.generation.stored import Response
    from aitp_tasks.inputs.rows import Refusal

    prompt = prompt_files.load(config.prompts, "rewrite")
    model = models.local(config.engine)
    rendered = Prompter(config.engine, model).render(
        prompt, {"text": " ".join(_TEXTS)}, int(prompt.sampling["max_tokens"])
    )
    with open_engine(config.engine, model) as opened:
        opened.submit(
            Job("doctor", rendered.content, rendered.token_ids, prompt.output_schema, prompt.sampling)
        )
        ((_, outcome),) = opened.finished()
        loaded = opened.load_seconds
    if isinstance(outcome, Refusal):
        raise InputError(f"the engine refuses a plain request: {outcome.message}")
    parsed = parse(Response(outcome), prompt)
    # One answer that is cut or cannot be read says something of the model, and nothing of the machine.
    said = f"not readable ({parsed.message})" if isinstance(parsed, Refusal) else "as the schema has it"
    return f"loaded in {loaded:.0f} s; {outcome.generated_tokens} tokens, {said}"


def storage(config: RunConfig) -> str:
    """Write, read, and write on conditions that hold and do not, in a folder that is removed."""
    opened = open_storage(config.root)
    folder = f"{_FOLDER}-{uuid.uuid4().hex}/"
    keys = [f"{folder}new", f"{folder}object"]
    try:
        _use(opened, folder, keys)
    except AitpError:
        # What has failed first is the finding, not what cannot be removed after it.
        with contextlib.suppress(AitpError):
            opened.delete(keys)
        raise
    finally:
        _remove(opened.uri(folder))
    opened.delete(keys)
    if left := [info.key for info in opened.list(folder)]:
        raise _unfit(opened.root, f"does not delete {left}")
    return f"{opened.root}: written, read, listed, written on conditions, deleted"


def _use(opened: Storage, folder: str, keys: list[str]) -> None:
    """Do with two objects what a stage does with any."""
    new, key = keys
    data = b"AITP's doctor has written this, and removes it.\n"
    opened.write(key, data)
    if opened.read(key) != data:
        raise _unfit(opened.root, "does not give back what was written")
    if (opened.write_if_absent(new, data), opened.write_if_absent(new, data)) != (True, False):
        raise _unfit(opened.root, "does not keep conditional writes (If-None-Match)")
    tagged = opened.read_tagged(key)
    if tagged is None or not opened.write_if_matches(key, b"changed", tagged.tag):
        raise _unfit(opened.root, "refuses the right If-Match")
    if opened.write_if_matches(key, b"again", tagged.tag):
        raise _unfit(opened.root, "does not keep conditional writes (If-Match)")
    if [info.key for info in opened.list(folder)] != keys:
        raise _unfit(opened.root, "does not list what was written")


def _remove(uri: str) -> None:
    """A folder of this machine with the locks in it; in a bucket there is none."""
    # Not read as a URL, which ends at a # in a folder's name: another folder would be removed.
    scheme, _, path = uri.partition("://")
    if scheme == "file":
        folder = Path(path)
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def _unfit(root: str, does: str) -> InputError:
    return InputError(
        f"the store of {root} {does}: use a store with conditional writes (Amazon S3, SeaweedFS 4.48)"
    )


_TRIALS: dict[str, Callable[[Any], str]] = {
    "embed": embed,
    "densities": densities,
    "engine": engine,
    "storage": storage,
}


def main() -> None:
    """Do the trial that the command line names."""
    processes.end_with_starter()
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    handed = sys.stdin.read()
    config = RunConfig.model_validate_json(handed) if handed else None
    if config is not None:
        devices.demand(config.devices.require)
    try:
        level, says = Level.OK, _TRIALS[sys.argv[1]](config)
    except AitpError as error:
        level, says = level_of(error), str(error)
    result.write(json.dumps({"level": level.name, "says": says, "remedy": ""}) + "\n")
    result.flush()


if __name__ == "__main__":
    main()
