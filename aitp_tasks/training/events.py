"""The log history as TensorBoard's event files, beside the checkpoint."""

import json
from pathlib import Path

#: The folder in the checkpoint.
FOLDER = "runs"
#: TensorBoard takes a file by its beginning; what would follow names the machine.
_NAME = "events.out.tfevents.training"
_PLACES = {"step", "epoch", "seconds"}


def write(history: Path, folder: Path) -> None:
    """Write one scalar a figure and step, at the seconds that the training had taken until then.

    Args:
        history: the training's log history, as ``train`` leaves it.
        folder: is made.
    """
    # Importing it takes a second, which only a training that has ended pays.
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for entry in json.loads(history.read_bytes()):
            for name in sorted(name for name in entry.keys() - _PLACES if entry[name] is not None):
                # As transformers and its trackers name them.
                tag = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
                writer.add_scalar(tag, entry[name], entry["step"], entry.get("seconds", 0.0))
    (written,) = folder.iterdir()
    written.rename(folder / _NAME)
