"""The encoder, prepared once per machine: what every unit then loads in a second.

A model in the sentence-transformers layout takes a dozen seconds and several
hundred MB to import and load. ``prepare`` does it in a process of its own, keeps
the tokenizer and the facts that matter (limit, prompt, dimension), and on a
machine without a GPU compiles the whole model, pooling and normalisation
included, to OpenVINO's format; the copy is kept only if its vectors agree with
torch's. Cached below ``models.cache_folder()`` under the model's identity.
"""

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aitp_tasks import config
from aitp_tasks.encoder.facts import Facts
from aitp_tasks.errors import ExitCode, InputError, TransientError
from aitp_tasks.machine import models
from aitp_tasks.records import digest

log = logging.getLogger(__name__)

_FACTS, _TOKENIZER, _GRAPH = "encoder.json", "tokenizer.json", "model.xml"
#: Cosine that the compiled model must reach to torch's float32 vectors.
_LEAST_COSINE = 0.999
_PROBES = (
    "a",
    "The river carries grain to the port, where ships wait for the tide.",
    "def f(x):\n    return x ** 2 + 1\n" * 20,
    "Ünïcödé 你好 \U0001f600 in several scripts: привет, مرحبا, γειά. " * 12,
)


class Prepared:
    """A prepared encoder on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.facts = Facts.model_validate_json((folder / _FACTS).read_text(encoding="utf-8"))

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer in the tokenizers library's own format."""
        return (self._folder / _TOKENIZER).read_text(encoding="utf-8")

    @property
    def graph(self) -> Path | None:
        """The compiled model, where there is one."""
        return self._folder / _GRAPH if self.facts.precision else None


def prepare(settings: config.Encoder, identity: str) -> Prepared:
    """Find the prepared encoder, or prepare it.

    Raises:
        InputError: the model cannot be loaded, or has no tokenizer of the tokenizers library.
    """
    key = digest.of_value([identity, *_versions()])
    folder = models.cache_folder() / "encoders" / key
    if not (folder / _FACTS).exists():
        log.info("encoder=%s is prepared once for this machine", settings.model)
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
        try:
            _export_aside(settings, aside)
            os.replace(aside, folder)
        except OSError:
            # Another unit may have been faster: a folder that is not empty is not replaced.
            if not (folder / _FACTS).exists():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Prepared(folder)


def _versions() -> list[str]:
    names = ("openvino", "sentence-transformers", "tokenizers", "torch", "transformers")
    return [version(name) if importlib.util.find_spec(name.replace("-", "_")) else "" for name in names]


def _export_aside(settings: config.Encoder, folder: Path) -> None:
    # Imports of several hundred MB end with the process.
    done = subprocess.run(
        [sys.executable, "-m", "aitp_tasks.encoder.prepared", str(folder)],
        input=settings.model_dump_json(),
        stdout=sys.stderr,
        text=True,
        check=False,
    )
    if done.returncode == ExitCode.BAD_INPUT:
        raise InputError((folder / "error").read_text(encoding="utf-8"))
    if done.returncode:
        raise TransientError(
            f"preparing encoder {settings.model} ended with exit code {done.returncode}: see its output above"
        )


def _export(settings: config.Encoder, folder: Path) -> None:
    """Load the model with torch and write what ``Prepared`` reads."""
    from aitp_tasks.encoder.torch_backend import load

    model = load(settings, "cpu")
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise InputError(f"encoder {settings.model} has no tokenizer.json: use one that has")
    (folder / _TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    facts = Facts(
        dimension=int(model.get_embedding_dimension()),
        max_tokens=model.max_seq_length,
        prompt=prompt,
        prompt_tokens=_prompt_tokens(model.tokenizer, prompt),
        lower_case=bool(getattr(model[0], "do_lower_case", False)),
        normalised=any(type(module).__name__ == "Normalize" for module in model),
        pad=int(model.tokenizer.pad_token_id or 0),
    )
    if importlib.util.find_spec("openvino"):
        facts = facts.model_copy(update={"precision": _compile(model, facts, folder / _GRAPH)})
    (folder / _FACTS).write_text(facts.model_dump_json(indent=1), encoding="utf-8")


def _prompt_tokens(tokenizer: Any, prompt: str) -> int:
    if not prompt:
        return 0
    tokens: list[int] = tokenizer(prompt)["input_ids"]
    return len(tokens) - (tokens[-1] in tokenizer.all_special_ids)


def _compile(model: Any, facts: Facts, path: Path) -> str | None:
    """Write the model in OpenVINO's format; the precision that agrees with torch, or None."""
    import openvino

    from aitp_tasks.encoder import openvino_backend, torch_backend

    try:
        openvino.save_model(torch_backend.trace(model, facts), path, compress_to_fp16=False)
    except Exception as error:
        # Whatever a converter raises about an architecture: torch itself still runs it.
        log.warning("encoder cannot be compiled, torch will run it: %s", " ".join(str(error).split())[:500])
        return None
    probes = [facts.prompt + text for text in _PROBES]
    expected = torch_backend.vectors(model, _PROBES)
    for precision in openvino_backend.precisions():
        cosine = openvino_backend.least_cosine(path, precision, model.tokenizer, probes, expected)
        log.info("encoder compiled precision=%s least_cosine=%.6f", precision, cosine)
        if cosine >= _LEAST_COSINE:
            return precision
    path.unlink()
    path.with_suffix(".bin").unlink()
    return None


def _main(folder: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        _export(config.Encoder.model_validate(json.load(sys.stdin)), folder)
    except InputError as error:
        (folder / "error").write_text(str(error), encoding="utf-8")
        sys.exit(ExitCode.BAD_INPUT)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
