"""LLaMA-Factory's own reader of datasets, the reference for what it reads.

It comes from the sdist that `make setup` has fetched. Only the modules that read are
taken: the package's others need what the worker does not have.
"""

import importlib
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from datasets import load_dataset

_DOWNLOADS = Path(__file__).resolve().parents[2] / ".aitp" / "downloads"
_PACKAGES = ("llamafactory", "llamafactory.data", "llamafactory.extras")
#: Reads images, videos and sounds.
_MEDIA = "llamafactory.data.mm_plugin"


@dataclass(frozen=True)
class Read:
    """A conversation as it comes to be trained on."""

    turns: list[dict[str, str]]
    system: str
    tools: str


class LlamaFactory:
    """Loads datasets by their ``dataset_info.json`` and renders conversations."""

    def __init__(self, folder: Path) -> None:
        """``folder``: where the sdist is unpacked; an existing, empty one."""
        found = sorted(_DOWNLOADS.glob("llamafactory-*.tar.gz"))
        if not found:
            raise FileNotFoundError(f"no llamafactory in {_DOWNLOADS}: run `make setup`, which fetches it")
        with tarfile.open(found[-1]) as archive:
            archive.extractall(folder, filter="data")
        (source,) = folder.glob("*/src")
        for name in _PACKAGES:
            # Their __init__ would import all the rest.
            package = ModuleType(name)
            package.__path__ = [str(source.joinpath(*name.split(".")))]
            sys.modules[name] = package
        media = ModuleType(_MEDIA)
        media.get_mm_plugin = lambda *_, **__: None  # type: ignore[attr-defined]
        sys.modules[_MEDIA] = media
        self._parser: Any = importlib.import_module("llamafactory.data.parser")
        self._converter: Any = importlib.import_module("llamafactory.data.converter")
        self.templates: Any = importlib.import_module("llamafactory.data.template").TEMPLATES

    def read(self, folder: Path, dataset: str = "aitp") -> list[Read | None]:
        """Its reading of a dataset; None stands for what it leaves out."""
        (found,) = self._parser.get_dataset_list([dataset], str(folder))
        kind = Path(found.dataset_name).suffix[1:]
        files = str(folder / found.dataset_name)
        rows = load_dataset(kind, data_files=files, split="train", cache_dir=str(folder / ".cache"))
        return list(self._converted(found, rows))

    def render(self, template: str, tokenizer: Any, read: Read) -> list[tuple[str, str]]:
        """What one of its templates makes of a conversation: what is not learnt and what is, in turns."""
        pairs = self.templates[template].encode_multiturn(tokenizer, read.turns, read.system, read.tools)
        return [(tokenizer.decode(asked), tokenizer.decode(learnt)) for asked, learnt in pairs]

    def _converted(self, found: Any, rows: Iterator[Mapping[str, Any]]) -> Iterator[Read | None]:
        convert = self._converter.get_dataset_converter(
            found.formatting, found, SimpleNamespace(media_dir="")
        )
        for row in rows:
            made = convert(row)
            # As its processor for supervised training has it.
            if len(made["_prompt"]) % 2 != 1 or len(made["_response"]) != 1:
                yield None
            else:
                turns = [{**turn, "role": str(turn["role"])} for turn in made["_prompt"] + made["_response"]]
                yield Read(turns, made["_system"] or "", made["_tools"] or "")
