"""What follows from prompts, model and settings alone, so that nothing is spent to find it out."""

import logging
import math
from importlib.util import find_spec
from pathlib import Path

from aitp_tasks import config
from aitp_tasks.config.engine import Speculation, gpus
from aitp_tasks.errors import InputError
from aitp_tasks.generation.engine.prompting import Prompter
from aitp_tasks.generation.prompt_files import FILES
from aitp_tasks.machine import devices, models
from aitp_tasks.records.plan import FrozenPrompt

log = logging.getLogger(__name__)

#: The shortest document, question and answer that are worth asking about: a sentence or two.
_TEXT, _QUESTION, _ANSWER = (
    "A sentence of a document that is to be read. " * 6,
    "What does the document say of it? " * 2,
    "It says so. ",
)
_ARGUMENTS = {"text": _TEXT, "question": _QUESTION, "answer": _ANSWER}


def require_room(settings: config.Engine, prompts: dict[str, FrozenPrompt]) -> None:
    """Make sure that each prompt leaves room for a document and the response.

    Not checked for a model whose files are in the storage: its tokenizer is not on this machine yet.

    Raises:
        InputError: one does not, or the tokenizer cannot be loaded or has no chat template.
        TransientError: the hub does not answer.
    """
    if settings.stored:
        log.info(
            "plan: the room that prompts leave is not checked: %s is not on this machine", settings.label
        )
        return
    prompter = Prompter(settings, models.local(settings))
    for name, prompt in prompts.items():
        room = int(prompt.sampling["max_tokens"])
        if "answer" in FILES[name][1]:
            # Beside an answer that is as long as it may be.
            room += int(prompts["answer"].sampling["max_tokens"])
        try:
            cut = prompter.render(prompt, _ARGUMENTS, room).cut_characters
        except ValueError as error:
            raise _no_room(str(error)) from None
        if cut:
            raise _no_room(
                f"prompt {name} and up to {room} tokens of responses leave no room for a document of "
                f"{len(_TEXT)} characters in engine.max_model_len={settings.max_model_len}"
            )


def require_memory(settings: config.Engine) -> None:
    """Make sure that the model's weights fit onto the GPUs, where this machine has the model and GPUs.

    Only what cannot fit in any case is refused: two bytes a weight, or less where they are stored in less.

    Raises:
        InputError: they do not.
    """
    count = gpus(settings.engine_args)
    found = [gpu for gpu in devices.usable(count, devices.visible()) if gpu.memory]
    if settings.folder is None or settings.endpoint is not None or not found:
        return
    share = settings.engine_args.get("gpu_memory_utilization", 1.0)
    room = min(gpu.memory for gpu in found) * (share if isinstance(share, float) else 1.0)
    needed = weights(settings.folder) / count
    if needed > room:
        raise InputError(
            f"the weights of {settings.label} take {needed / 1e9:.1f} GB a GPU, and {room / 1e9:.1f} GB may "
            "be used: raise tensor_parallel_size (engine.engine_args), or take a smaller or quantised model"
        )


def require_speculation(settings: config.Engine) -> None:
    """Make sure that what guesses tokens is installed.

    Raises:
        InputError: it is not.
    """
    if settings.speculation is Speculation.SUFFIX and find_spec("arctic_inference") is None:
        raise InputError(
            "engine.speculation=suffix needs the package arctic-inference, which is not installed here: "
            "install the version that vLLM names (0.1.1 for 0.32) into the worker environment, or set ngram, "
            "which needs nothing"
        )


def weights(folder: Path) -> float:
    """Bytes that a model's weights take at least."""
    from safetensors import safe_open

    total = 0.0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            count = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        total += min(path.stat().st_size, 2 * count)
    return total


def _no_room(why: str) -> InputError:
    return InputError(
        f"{why}: raise engine.max_model_len, lower max_tokens (prompts.sampling), or shorten the prompt"
    )
