"""Nights of a line of versions in a world of a few places: real stages, a made encoder, a stand-in engine.

Each text lies at the place that its first word names, with a little of its own around
that, so that places are far apart in the plane and texts of one place are no
near-duplicates. What a night is to bring is told as in ``nights.json``.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from aitp_tasks.config import RunConfig
from aitp_tasks.generation import checks, generator
from aitp_tasks.machine import models
from aitp_tasks.records import data_files, generated, pairs, versions
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.selection import contest
from aitp_tasks.stages import (
    allocate,
    answer,
    assemble,
    density,
    difference,
    embed,
    evaluate,
    finetune,
    index,
    merge,
    plan,
    promote,
    report,
    rewrite,
    score,
)
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.training import checks as training_checks
from aitp_tasks.training import memory
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import REPOSITORY, write_shard
from tests.aitp_tasks.generation.test_part import StandIn, StandInPrompter

LINE = "aitp"
_ON_THE_CIRCLE = ("north", "ne", "east", "se", "south", "sw", "west", "nw", "far")
PLACES: dict[str, tuple[float, float]] = {"home": (0.0, 0.0)} | {
    name: (14 * np.sin(2 * np.pi * turn / 9), 14 * np.cos(2 * np.pi * turn / 9))
    for turn, name in enumerate(_ON_THE_CIRCLE)
}
_NAMES = tuple(PLACES)
#: Components that each axis of the plane is spread over, and those that tell texts of one place apart.
_COPIES, _OWN = 128, 16
DIMENSION = 2 * _COPIES + _OWN


def _numbers(text: str) -> tuple[int, int]:
    return _NAMES.index(text.split()[0]), crc32(text.encode()) >> 1


def _vector(place: int, own: int) -> NDArray[np.float32]:
    random = np.random.default_rng(own)
    x, y = np.array(PLACES[_NAMES[place]]) + 0.05 * random.normal(size=2)
    beside = random.normal(size=_OWN)
    beside *= 8 / np.linalg.norm(beside)
    axes = np.repeat([x, y], _COPIES) / np.sqrt(_COPIES)
    return np.concatenate([axes, beside]).astype(np.float32)


def vector_of(text: str) -> NDArray[np.float16]:
    """The vector of a text, as it is stored."""
    return _vector(*_numbers(text)).astype(np.float16)


class World:
    """A storage in which night follows night."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, pictures: bool = False) -> None:
        """``pictures``: whether those of the cards are drawn, which takes longer than all else of a night."""
        self.root = folder / "storage"
        self.runs: list[Run] = []
        #: How often each fine-tuning was run.
        self.trained = 0
        self._prompts = folder / "prompts"
        self._model = folder / "model"
        self._model.mkdir()
        (self._model / "config.json").write_text("{}")
        self._dumps: list[list[str]] = []
        self._scores: dict[str, tuple[int, int]] = {}
        self._sft: list[list[dict[str, str]]] = []
        self._twins: list[list[dict[str, str]]] = []
        self._night: dict[str, Any] = {}
        #: Every text that the encoder was asked for.
        self.encoded: list[str] = []
        encoder = made.encoder(self._numbers_of, _vector, DIMENSION)
        for module in (embed, contest):
            monkeypatch.setattr(module, "open_encoder", lambda *_: encoder)
        monkeypatch.setattr(models, "require_planned", lambda *_: None)
        monkeypatch.setattr(generator, "open_engine", StandIn)
        monkeypatch.setattr(training_checks, "require_template", lambda _: None)
        monkeypatch.setattr(memory, "require", lambda _: None)
        for module in (generator, checks):
            monkeypatch.setattr(module, "Prompter", StandInPrompter)
        monkeypatch.setattr(StandIn, "respond", staticmethod(self._respond), raising=False)
        StandIn.asked, StandIn.sampling = [], []
        monkeypatch.setattr(finetune, "_finetune", self._finetune)
        if not pictures:
            monkeypatch.setattr(assemble, "_picture", lambda _: b"not drawn")

    def _numbers_of(self, text: str) -> tuple[int, int]:
        self.encoded.append(text)
        return _numbers(text)

    def page(self, run: Run) -> str:
        """The real report of a run."""
        (self.root / run.manifest_key("report")).unlink(missing_ok=True)
        report.execute(Run.open(run.uri))
        return (self.root / run.key("report", "report.html")).read_text(encoding="utf-8")

    def latest(self) -> versions.Version | None:
        """The latest version."""
        return versions.latest(self._storage, LINE)

    @property
    def sft(self) -> list[list[dict[str, str]]]:
        """The SFT set's conversations, as they were last."""
        return self._sft

    @property
    def _storage(self) -> Storage:
        return open_storage(f"file://{self.root}")

    def pairs_of(self, version: versions.Version | None) -> list[dict[str, Any]]:
        """The rewritten pairs of a version, as its own data files hold them."""
        if version is None:
            return []
        keys = data_files.standing(self._storage, versions.prefix(LINE, version.name)).values()
        data = [row for key in keys for row in pq.read_table(self.root / key).to_pylist()]
        return [row for row in data if row["origin"] == "aitp"]

    def night(self, night: dict[str, Any]) -> dict[str, Any]:
        """Run a night; what came of it, in the words of ``expect``."""
        before, trained = self.latest(), self.trained
        run = self.begin(night)
        self.runs.append(run)
        self.go_on(run)
        after = self.latest()
        held = self.pairs_of(after)
        left = Counter(row["reason"] for row in self._left_out(run) if row["earlier"])
        return {
            "version": after is not None and (before is None or after.name != before.name),
            "trained": self.trained > trained,
            "room": plan.execute(run.config)["room"],
            "pairs": len(held),
            "drawn": run.require_manifest("difference").figures["selected"],
            "pairs_at": dict(Counter(place_of(pair) for pair in held)),
            "left": {_OURS.get(reason, reason): count for reason, count in left.items()},
            "sft": run.require_manifest("assemble").figures["sft_examples"],
        }

    def begin(self, night: dict[str, Any]) -> Run:
        """Plan a night."""
        before = self.latest()
        self._night = night
        self._mark(night, before)
        self._write_inputs(night, before)
        return Run.open(plan.execute(self._config(night))["run"])

    def begin_again(self, run: Run) -> Run:
        """Plan the inputs of a night a second time."""
        return Run.open(plan.execute(run.config)["run"])

    def go_on(self, run: Run, last: str = "report") -> None:
        """Run the stages after plan, up to ``last``; those that are done end at once."""
        for name, stage in STAGES.items():
            run = Run.open(run.uri)
            if name in ("embed", "density"):
                units = range(len(run.plan.groups))
            elif name == "allocate":
                for prompted in generated.STAGES:
                    for unit in range(len(run.pilot_parts)):
                        STAGES[prompted](run, unit)
                stage(run)
                units = range(0)
            elif name in generated.STAGES:
                units = range(run.part_count)
            else:
                stage(run)
                units = range(0)
            for unit in units:
                stage(run, unit)
            if name == last:
                return

    def _left_out(self, run: Run) -> list[dict[str, Any]]:
        done = run.require_manifest("assemble")
        if "left_out" not in done.outputs:
            return []
        rows: list[dict[str, Any]] = pq.read_table(self.root / done.output("left_out")).to_pylist()
        return rows

    def _mark(self, night: dict[str, Any], before: versions.Version | None) -> None:
        wanted = night.get("mark_bad_before")
        if wanted is None:
            return
        here = [pair for pair in self.pairs_of(before) if place_of(pair) == wanted["place"]]
        for pair in here[: wanted["n"]]:
            pairs.mark(self._storage, LINE, pair["pair_id"], pairs.Mark(mark="bad"))

    def _write_inputs(self, night: dict[str, Any], before: versions.Version | None) -> None:
        wanted = night.get("twins_before")
        if wanted is not None:
            here = [pair for pair in self.pairs_of(before) if place_of(pair) == wanted["place"]]
            self._twins += [pair["messages"] for pair in here[: wanted["n"]]]
        examples = [
            [
                {"role": "user", "content": f"{place} s{number} is asked"},
                {"role": "assistant", "content": "told" + (night.get("said", "") if not number else "")},
            ]
            for place, count in night["sft"].items()
            for number in range(count)
        ] + self._twins
        if examples != self._sft:
            self._sft = examples
            write_shard(self.root / "sft/set/set.parquet", [{"messages": turns} for turns in examples])
        same = night.get("same_dump_as")
        number = len(self._dumps)
        self._dumps.append(self._dumps[same] if same is not None else list(self._documents(number, night)))
        write_shard(
            self.root / f"corpus/night-{number:03d}/dump.parquet",
            pa.table({"text": self._dumps[-1]}),
        )

    def _documents(self, number: int, night: dict[str, Any]) -> Sequence[str]:
        found = []
        for place, wanted in night["dump"].items():
            wanted = wanted if isinstance(wanted, dict) else {"n": wanted}
            for one in range(wanted["n"]):
                name = f"d{number}.{one}"
                self._scores[f"{place} {name}"] = (wanted.get("quality", 8), wanted.get("difficulty", 5))
                found.append(f"{place} {name} tells of rivers and ports")
        return found

    def _respond(self, stage: str, values: dict[str, str]) -> str:
        if stage == "rewrite":
            place, name, *_ = values["text"].split()
            count = self._night.get("questions", 1)
            return json.dumps(
                {"questions": [f"{place} {name} q{number} asks what" for number in range(count)]}
            )
        place, name, number, *_ = values["question"].split()
        if stage == "judge":
            return json.dumps({"verdict": self._night.get("verdicts", {}).get(name, "supported")})
        if stage == "score":
            quality, difficulty = self._scores[f"{place} {name}"]
            wanted = self._night.get("good", 1)
            good = int(number[1:]) < (wanted[place] if isinstance(wanted, dict) else wanted)
            return json.dumps(
                {"quality": quality, "difficulty": difficulty, "additional_information": not good}
            )
        return json.dumps({"answer": f"rivers and ports of {name}{self._night.get('said', '')}"})

    def _config(self, night: dict[str, Any]) -> RunConfig:
        self._write_prompts(night.get("prompt_version", "1"))
        settings = {
            "dataset": LINE,
            "max_rewritten_share": night.get("share", 0.2),
            "order": tuple(night.get("order", ("rarity", "scores", "age"))),
            "withdrawn_prompts": tuple(night.get("withdrawn", ())),
        }
        rate = {"a": 1e-5, "b": 2e-5, "c": 3e-5}[night.get("finetune", "a")]
        return RunConfig.model_validate(
            {
                "root": f"file://{self.root}",
                "dump": f"night-{len(self._dumps) - 1:03d}",
                "sft": "set",
                "encoder": {"model": str(self._model)},
                "density": {"bandwidth": 1.6, "refit": "never"} | night.get("density", {}),
                "difference": {
                    "max_documents": night.get("max_documents", 100_000),
                    "documents_per_part": night.get("documents_per_part", 2_000),
                    **night.get("difference", {}),
                },
                "engine": {"model": str(self._model), "max_model_len": 1024},
                "prompts": {
                    "folder": str(self._prompts),
                    "questions_per_document": night.get("questions", 1),
                },
                "gates": {
                    "min_quality": 1,
                    "min_difficulty": 1,
                    "max_question_similarity": 1.0,
                    "question_language": False,
                    "max_copied": 1.0,
                    "min_support": 0.0,
                }
                | night.get("gates", {}),
                "assemble": settings | night.get("assemble", {}),
                "evaluate": night.get("evaluate", {}),
                "finetune": {"model": str(self._model), "learning_rate": rate},
            }
        )

    def _write_prompts(self, version: str) -> None:
        self._prompts.mkdir(exist_ok=True)
        for path in (REPOSITORY / "prompts").glob("*.yaml"):
            text = path.read_text()
            if "answer" in path.name:
                # Another version is another prompt.
                text = text.replace('version: "1"', f'version: "{version}"')
            (self._prompts / path.name).write_text(text)

    def _finetune(self, run: Run, node: object) -> Manifest:
        """In the place of a training, on one machine: commits what one commits."""
        self.trained += 1
        figures = {"train_loss_first": 2.0, "train_loss_last": 1.0, "steps": 1, "examples": 1}
        history = run.key("finetune", "log_history.json")
        run.storage.write(history, b'[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]')
        done = run.commit(
            Manifest(
                stage="finetune",
                label=str(run.require_manifest("assemble").figures["version"]),
                ledger=Ledger(rows_in=0, rows_out=0),
                outputs={
                    "checkpoint": f"models/{LINE}/{run.plan.version(run.digest)}",
                    "log_history": history,
                },
                figures=figures,
            )
        )
        return done


def _report(run: Run) -> None:
    """In the place of a page: the manifest by which a run is finished."""
    run.commit(Manifest(stage="report", label=""))


#: In their order.
STAGES: dict[str, Any] = {
    "embed": embed.execute,
    "merge": merge.execute,
    "density": density.execute,
    "index": index.execute,
    "difference": difference.execute,
    "allocate": allocate.execute,
    "rewrite": rewrite.execute,
    "score": score.execute,
    "answer": answer.execute,
    "assemble": assemble.execute,
    "finetune": finetune.execute,
    "evaluate": evaluate.execute,
    "promote": promote.execute,
    "report": _report,
}
#: What a reason is called in the cases.
_OURS = {contest.NO_ROOM: "no_room"}


def place_of(pair: dict[str, Any]) -> str:
    """The place that a pair is of."""
    return str(pair["messages"][0]["content"].split()[0])
