"""Answers that are judged, and the likeliest of several: with a stand-in engine and a real base model."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import RunConfig, Verdict
from aitp_tasks.dataset import new_pairs
from aitp_tasks.dataset.export import SCHEMA
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.generation import generator, ranking
from aitp_tasks.generation.engine import Completion
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import models
from aitp_tasks.records import generated
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.selection import removals
from aitp_tasks.stages import answer
from tests.aitp_tasks.conftest import MODELS, REPOSITORY
from tests.aitp_tasks.generation.scored import PART, scored
from tests.aitp_tasks.generation.test_part import StandIn, StandInPrompter
from tests.aitp_tasks.servers import serving
from tests.aitp_tasks.training import tiny

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

#: What the judge says of an answer follows from what the answer says.
VERDICTS = {verdict: f"The port was built of {verdict}." for verdict in Verdict}
DOCUMENTS = {f"The port is built of {verdict} and oak.": [f"Of what, {verdict}?"] for verdict in Verdict}
LOCK = {"A lock raises boats.": ["What does a lock do?"]}
Respond = Callable[[str, dict[str, str], str], str]


class Seeded(StandIn):
    """Answers by a rule that sees the request's id; counts how often it was started and ended."""

    started = ended = 0
    say: Respond

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        type(self).started += 1
        self.seeded = arguments[2]

    def finished(self) -> list[tuple[str, Completion | Refusal]]:
        job = self._jobs.pop()
        stage, values = json.loads(job.content)
        assert self.seeded == ("seed" in job.sampling) or stage == "judge"
        StandIn.asked.append({"stage": stage, **values})
        StandIn.sampling.append(job.sampling)
        reply = type(self).say(stage, values, job.id)
        return [(job.id, Completion(reply, "length" if reply == "cut" else "stop", 10, 5))]

    def __exit__(self, *_: object) -> None:
        type(self).ended += 1


def say(stage: str, values: dict[str, str], name: str) -> str:
    """Answers with the verdict that its question has in it, and judges by that."""
    verdict = next((one for one in reversed(Verdict) if one in values["question"]), Verdict.SUPPORTED)
    if stage == "judge":
        assert values["answer"] == VERDICTS[verdict]
        return json.dumps({"verdict": verdict})
    return json.dumps({"answer": VERDICTS[verdict]})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Seeded]:
    StandIn.asked, StandIn.sampling = [], []
    Seeded.started = Seeded.ended = 0
    Seeded.say = staticmethod(say)
    monkeypatch.setattr(generator, "open_engine", Seeded)
    monkeypatch.setattr(generator, "Prompter", StandInPrompter)
    return Seeded


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    return tiny.make_model(folder, MODELS / "SmolLM2-135M-Instruct", dtype="float32")


@pytest.fixture
def configure(tmp_path: Path, base: Path) -> Callable[..., RunConfig]:
    def make(least: str | None = None, answers: int = 1, **prompts: Any) -> RunConfig:
        if answers > 1:
            prompts = {"sampling": {"temperature": 0.8}, **prompts}
        return RunConfig.model_validate(
            {
                "root": f"file://{tmp_path / 'storage'}",
                "dump": "news",
                "sft": "sums",
                "encoder": {"model": str(base)},
                "engine": {"model": str(base), "max_model_len": 1024},
                "prompts": {
                    "folder": str(REPOSITORY / "prompts"),
                    "answers_per_question": answers,
                    "failure_budget": 1.0,
                    **prompts,
                },
                "gates": {"min_faithfulness": least},
                "finetune": {"model": str(base)},
            }
        )

    return make


def answered(run: Run) -> tuple[Manifest, list[dict[str, Any]]]:
    answer.execute(run, 0)
    return generated.part_manifest(run, "answer", PART), generated.rows(run, "answer", PART)


# Judged


def test_without_the_settings_nothing_is_asked_and_the_run_is_the_same(
    configure: Callable[..., RunConfig], engine: type[Seeded]
) -> None:
    run = scored(configure(), DOCUMENTS)
    done, rows = answered(run)
    assert Counter(one["stage"] for one in engine.asked) == {"answer": 4}
    assert not {"judge", "ranking"} & done.figures.keys()
    assert "judge" not in run.plan.prompts
    assert (
        {row[generated.VERDICT] for row in rows} == {row[generated.LOG_PROBABILITY] for row in rows} == {None}
    )
    settings = run.config.identity()
    assert "min_faithfulness" not in settings.get("gates", {})
    assert "answers_per_question" not in settings["prompts"]
    assert not any("seed" in sampling for sampling in engine.sampling)


@pytest.mark.parametrize("least", list(Verdict))
def test_answers_with_a_worse_verdict_are_left_out_by_its_name(
    configure: Callable[..., RunConfig], engine: type[Seeded], least: Verdict
) -> None:
    run = scored(configure(least), DOCUMENTS)
    done, rows = answered(run)
    worse = list(Verdict)[: list(Verdict).index(least)]
    assert done.ledger is not None
    assert done.ledger.rejected == {f"judged_{verdict}": 1 for verdict in worse}
    assert (done.ledger.rows_in, done.ledger.rows_out) == (4, 4 - len(worse))
    assert done.figures["judge"]["verdicts"] == dict.fromkeys(Verdict, 1)
    assert {row["answer"]: row[generated.VERDICT] for row in rows} == {
        text: verdict.value for verdict, text in VERDICTS.items()
    }
    # One start for both prompts.
    assert (engine.started, engine.ended) == (1, 1)
    assert run.plan.digest != scored(configure(), DOCUMENTS).plan.digest


def test_a_judges_prompt_decides_the_run_and_is_told_with_each_pair(
    configure: Callable[..., RunConfig], engine: type[Seeded], tmp_path: Path
) -> None:
    run = scored(configure("partly"), DOCUMENTS)
    answered(run)
    pairs = new_pairs.read(_with_places(run), [PART], "v1")
    assert {pair[generated.VERDICT] for pair in pairs} == {"supported", "partly"}
    assert all(pair["prompts"][-1] == "judge@1" for pair in pairs)
    assert {generated.VERDICT, generated.LOG_PROBABILITY} <= set(SCHEMA.names)
    for path in (REPOSITORY / "prompts").iterdir():
        text = path.read_text().replace("look for each claim", "look for every claim")
        (tmp_path / path.name).write_text(text)
    other = scored(configure("partly", folder=str(tmp_path)), DOCUMENTS)
    assert other.plan.digest != run.plan.digest
    engine.asked.clear()
    answered(other)
    assert Counter(one["stage"] for one in engine.asked) == {"judge": 4}


def _with_places(run: Run) -> Run:
    """The run, its documents with what a difference set tells of them besides."""
    import pyarrow as pa

    from aitp_tasks.records import selected, tables

    table = selected.table(run, PART)
    for name, value in {"dump": "news", "source": "news", "shard": "a", "row": 1, "ratio": 0.1}.items():
        table = table.append_column(name, pa.array([value] * len(table)))
    key = run.require_manifest("difference").output(PART)
    run.storage.write(key, tables.to_bytes(table))
    return run


def test_what_the_judge_has_left_out_is_in_the_removal_report(
    configure: Callable[..., RunConfig], engine: type[Seeded]
) -> None:
    run = scored(configure("supported"), DOCUMENTS)
    answered(run)
    told = removals.told(run.config, [], [], [], {}, generated.unfaithful_rows(run, [PART]))
    assert {one["rule"]: one["new"] for one in told} == {
        f"judged_{verdict}": 1 for verdict in Verdict if verdict is not Verdict.SUPPORTED
    }
    first = next(one for one in told if one["rule"] == "judged_contradicted")
    assert first["settings"] == {"gates.min_faithfulness": "supported"}
    assert first["examples"][0]["excerpt"] == f"Of what, contradicted? → {VERDICTS[Verdict.CONTRADICTED]}"
    assert removals.told(run.config, [], [], [], {}) == []


def test_no_answer_is_judged_that_a_gate_has_closed(
    configure: Callable[..., RunConfig], engine: type[Seeded]
) -> None:
    engine.say = staticmethod(
        lambda stage, values, name: json.dumps({"answer": "I'm sorry, but I cannot help with that."})
    )
    done, _ = answered(scored(configure("partly", 2), LOCK))
    assert done.ledger is not None
    assert done.ledger.rejected == {"refusal": 2}
    assert {one["stage"] for one in engine.asked} == {"answer"}
    assert sum(done.figures["judge"]["verdicts"].values()) == done.figures["ranking"]["answers"] == 0


@pytest.mark.parametrize(
    ("reply", "error_class"),
    [("supported or contradicted", "judge_not_parsed"), ("cut", "judge_cut_off"), ("", "judge_not_parsed")],
)
def test_a_verdict_that_cannot_be_read_has_a_reason_of_its_own_and_counts_against_the_budget(
    configure: Callable[..., RunConfig], engine: type[Seeded], reply: str, error_class: str
) -> None:
    def unreadable(stage: str, values: dict[str, str], name: str) -> str:
        spoilt = stage == "judge" and "partly" in values["question"]
        return reply if spoilt else say(stage, values, name)

    engine.say = staticmethod(unreadable)
    with pytest.raises(BudgetExceededError, match=rf"answer of .*'{error_class}': 1.*of the judge: .*=0.2"):
        answered(scored(configure("partly", failure_budget=0.2), DOCUMENTS))
    assert Counter(one["stage"] for one in engine.asked) == {"answer": 4, "judge": 5}
    # Another budget is another run, which finds all responses.
    engine.asked.clear()
    run = scored(configure("partly", failure_budget=0.3), DOCUMENTS)
    done, rows = answered(run)
    assert engine.asked == []
    assert done.ledger is not None
    assert done.ledger.quarantined == {error_class: 1}
    assert (done.ledger.rows_out, len(rows)) == (1, 3)
    # Asked once more in another round, the judge alone.
    engine.say = staticmethod(say)
    done, _ = answered(scored(configure("partly", failed_round=1), DOCUMENTS))
    assert Counter(one["stage"] for one in engine.asked) == {"judge": 1}
    assert done.ledger is not None
    assert done.ledger.quarantined == {}


def test_a_second_run_and_another_threshold_ask_nothing(
    configure: Callable[..., RunConfig], engine: type[Seeded]
) -> None:
    run = scored(configure("partly"), DOCUMENTS)
    answered(run)
    engine.asked.clear()
    answered(run)
    done, _ = answered(scored(configure("supported"), DOCUMENTS))
    assert engine.asked == []
    assert engine.started == 1
    assert done.figures["judge"]["reused"] == 4


def test_a_server_judges_as_it_answers(configure: Callable[..., RunConfig]) -> None:
    def reply(body: dict[str, Any]) -> bytes:
        content = body["messages"][0]["content"]
        asked = body["response_format"]["json_schema"]["schema"]["properties"]
        question = content.partition("Question:\n\n")[2].partition("\n\nEnd of the question.")[0]
        stage, said = ("judge", content.partition("Answer:\n\n")[2]) if "verdict" in asked else ("answer", "")
        values = {"question": question, "answer": said.partition("\n\nEnd of the answer.")[0]}
        choice = {"message": {"content": say(stage, values, "")}, "finish_reason": "stop"}
        return json.dumps({"choices": [choice], "usage": {}}).encode()

    def by_rule(body: dict[str, Any]) -> bytes:
        is_probe = "response_format" not in body
        return (
            b'{"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}'
            if is_probe
            else reply(body)
        )

    with serving(by_rule) as server:
        config = configure("partly", 2)
        engine = config.engine.model_dump() | {"max_model_len": 4096}
        engine["endpoint"] = {"url": server.url, "served_model": "m", "concurrency": 2}
        config = config.model_copy(update={"engine": config.engine.model_validate(engine)})
        done, rows = answered(scored(config, DOCUMENTS))
        seeds = [body["seed"] for _, body, _ in server.requests if "seed" in body]
    assert done.ledger is not None
    assert done.ledger.rejected == {"judged_contradicted": 1, "judged_not_in_document": 1, "same_answer": 4}
    assert done.figures["judge"]["verdicts"] == dict.fromkeys(Verdict, 1)
    assert {row[generated.VERDICT] for row in rows if row["kept"]} == {"supported", "partly"}
    assert len(seeds) == len(set(seeds)) == 8


# Several


SAID = [
    "It raises boats.",
    "It lifts ships.",
    "It raises boats.",
    "Xyzzy qwrk plugh frotz.",
    "Boats go up in it.",
]


def several(stage: str, values: dict[str, str], name: str) -> str:
    """Another answer each time, by its place; the judge has nothing against ships."""
    if stage == "judge":
        return json.dumps({"verdict": "supported" if "ships" in values["answer"] else "contradicted"})
    number = int(name.split("-")[2]) if name.count("-") == 2 else 0
    return json.dumps({"answer": SAID[number]})


def likelihoods(base: Path, question: str) -> dict[str, float]:
    """The mean log-probability of each text that is said, plainly."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    found = {}
    for said in SAID:
        ids = torch.tensor([before + tokenizer(said, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            table = torch.log_softmax(model(ids).logits[0].double(), -1)
        each = [float(table[place - 1, ids[0, place]]) for place in range(len(before), ids.shape[1])]
        found[said] = sum(each) / len(each)
    return found


def test_of_several_answers_the_likeliest_under_the_base_is_kept(
    configure: Callable[..., RunConfig], engine: type[Seeded], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(ranking.base_model, "computes_in", lambda device: torch.float32)
    engine.say = staticmethod(several)
    run = scored(configure(answers=5), LOCK)
    done, rows = answered(run)
    plain = likelihoods(base, "What does a lock do?")
    (kept,) = (row for row in rows if row["kept"])
    assert kept["answer"] == max(plain, key=plain.__getitem__)
    assert kept[generated.LOG_PROBABILITY] == pytest.approx(plain[kept["answer"]], abs=1e-4)
    assert done.ledger is not None
    assert (done.ledger.rows_in, done.ledger.rows_out) == (5, 1)
    assert done.ledger.rejected == {"less_likely": 3, "same_answer": 1}
    assert kept["question_id"].count("-") == 1
    assert kept["pair_id"].startswith(f"{kept['question_id']}-")
    seeds = [sampling["seed"] for sampling in engine.sampling]
    assert len(set(seeds)) == 5
    assert done.figures["ranking"] | {"load_seconds": 0, "busy_seconds": 0, "tokens": 0} == {
        "answers": 4, "unranked": 0, "tokens": 0, "load_seconds": 0, "busy_seconds": 0,
    }  # fmt: skip
    # The same seeds each time; and what an only answer was is the first of several.
    engine.asked.clear()
    for path in Path(run.config.root.removeprefix("file://")).glob("generations/**/*.parquet"):
        path.unlink()
    sampling = list(engine.sampling)
    engine.sampling.clear()
    answered(scored(configure(answers=5, failure_budget=0.5), LOCK))
    assert engine.sampling == sampling
    engine.asked.clear()
    answered(scored(configure(sampling={"temperature": 0.8}), LOCK))
    assert engine.asked == []


def test_gates_and_the_judge_come_first_and_the_engine_ends_before_the_base_is_loaded(
    configure: Callable[..., RunConfig], engine: type[Seeded], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.say = staticmethod(several)
    ended: list[int] = []
    load = ranking.base_model.load_model

    def loaded(*arguments: Any) -> Any:
        ended.append(engine.ended)
        return load(*arguments)

    monkeypatch.setattr(ranking.base_model, "load_model", loaded)
    done, rows = answered(scored(configure("partly", 5), LOCK))
    assert ended == [engine.started] == [1]
    (kept,) = (row for row in rows if row["kept"])
    assert kept["answer"] == "It lifts ships."
    assert math.isfinite(kept[generated.LOG_PROBABILITY])
    assert done.ledger is not None
    assert done.ledger.rejected == {"judged_contradicted": 3, "same_answer": 1}


def test_a_question_whose_answers_all_fail_has_none(
    configure: Callable[..., RunConfig], engine: type[Seeded]
) -> None:
    engine.say = staticmethod(
        lambda stage, values, name: json.dumps(
            {"verdict": "contradicted"} if stage == "judge" else {"answer": f"It lifts boats ({name[-1]})."}
        )
    )
    done, rows = answered(scored(configure("partly", 3), LOCK))
    assert done.ledger is not None
    assert (done.ledger.rows_out, done.ledger.rejected) == (0, {"judged_contradicted": 3})
    assert not any(row["kept"] for row in rows)


@pytest.mark.parametrize("value", [None, -1.0])
def test_equal_answers_are_kept_by_their_order(value: float | None) -> None:
    ranked = {
        f"{number}": {
            "question_id": "a",
            "answer": f"{number}",
            generated.LOG_PROBABILITY: value,
            "kept": True,
        }
        for number in range(3)
    }
    found = answer._likeliest(ranked)
    assert [isinstance(reading, list) for reading in found.values()] == [True, False, False]


def test_a_base_that_was_replaced_ranks_nothing(
    configure: Callable[..., RunConfig], engine: type[Seeded], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.say = staticmethod(several)
    run = scored(configure(answers=2), LOCK)
    identity = models.identity
    monkeypatch.setattr(
        models, "identity", lambda model: "other" if model is run.config.finetune else identity(model)
    )
    with pytest.raises(InputError, match=r"finetune.model .* was changed after the run was planned"):
        answer.execute(run, 0)
