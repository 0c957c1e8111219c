"""The runner's own logic, with a stand-in engine; the real one is in test_engine and tests/e2e."""

import errno
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks import config
from aitp_tasks.config import Gates
from aitp_tasks.errors import BudgetExceededError, InputError, TransientError
from aitp_tasks.generation import checks, generator, stored
from aitp_tasks.generation.engine import DTYPES, Completion, Job, dtype, numbers
from aitp_tasks.generation.engine.offline import _arguments
from aitp_tasks.generation.engine.prompting import Rendered
from aitp_tasks.generation.requests import Parsed
from aitp_tasks.generation.stored import Response
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import devices, processors
from aitp_tasks.machine.gpus import Gpu
from aitp_tasks.records import generated, selected
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.records.run import Run
from aitp_tasks.stages import answer, difference, embed, merge, plan, rewrite, score
from aitp_tasks.stages import density as density_stage
from aitp_tasks.training import checks as training_checks
from aitp_tasks.training import memory
from tests.aitp_tasks.conftest import REPOSITORY, Configure

pytestmark = pytest.mark.slow

Respond = Callable[[str, dict[str, str]], str | Exception]


class StandIn:
    """Answers by a rule, one at a time, the last first; counts what it was asked."""

    asked: list[dict[str, str]]
    sampling: list[dict[str, Any]]
    respond: Respond

    def __init__(self, *_: Any) -> None:
        self.load_seconds, self.restarts = 0.0, 0
        self._jobs: list[Job] = []

    @property
    def room(self) -> int:
        return 3 - len(self._jobs)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def finished(self) -> list[tuple[str, Completion | Refusal]]:
        job = self._jobs.pop()
        stage, values = json.loads(job.content)
        reply = type(self).respond(stage, values)
        if isinstance(reply, ValueError):
            return [(job.id, Refusal("not_servable", str(reply)))]
        if isinstance(reply, Exception):
            raise reply
        type(self).asked.append(values)
        type(self).sampling.append(job.sampling)
        return [(job.id, Completion(reply, "length" if reply == "cut" else "stop", 10, 5))]

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class StandInPrompter:
    """Keeps stage and values as they are."""

    context = 1024

    def __init__(self, *_: Any) -> None:
        pass

    def render(self, prompt: FrozenPrompt, values: dict[str, str], max_tokens: int) -> Rendered:
        return Rendered(json.dumps([prompt.name, values]), [1])

    def render_all(
        self, prompt: FrozenPrompt, asked: list[tuple[dict[str, str], int]]
    ) -> list[Rendered | ValueError]:
        return [self.render(prompt, *one) for one in asked]


def good(stage: str, values: dict[str, str]) -> str:
    """What a well-behaved model says."""
    if stage == "rewrite":
        return json.dumps({"questions": [f"What of {values['text'][:13]}?", "Which rivers are meant?"]})
    if stage == "score":
        return json.dumps({"quality": 8, "difficulty": 5, "additional_information": False})
    return json.dumps({"answer": f"Because of {values['question']}"})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    StandIn.asked, StandIn.sampling = [], []
    StandIn.respond = staticmethod(good)
    monkeypatch.setattr(generator, "open_engine", StandIn)
    monkeypatch.setattr(generator, "Prompter", StandInPrompter)
    return StandIn


@pytest.fixture
def run(configure: Configure) -> Run:
    """A run up to its difference set: all twelve documents, in two parts."""
    return up_to_difference(configure(**SELECT_ALL))


SELECT_ALL: dict[str, Any] = {
    "difference": {"tau": 1e9, "max_documents": 12, "documents_per_part": 6},
    "engine": {"model": "/tmp", "max_model_len": 1024, "requests_per_flush": 2},
    "finetune": {"model": "/tmp"},
    # As the files have it: the stand-in's context holds that, a real one of this length would not.
    "prompts": {"folder": str(REPOSITORY / "prompts")},
}


def up_to_difference(config: Any) -> Run:
    run = Run.open(plan.execute(config)["run"])
    for unit in range(len(run.plan.groups)):
        embed.execute(run, unit)
    merge.execute(run)
    for unit in range(len(run.plan.groups)):
        density_stage.execute(run, unit)
    difference.execute(run)
    return run


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Model folders that are not loaded here get a fixed identity."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for section in ("engine", "finetune"):
        SELECT_ALL[section]["model"] = str(folder)
    monkeypatch.setattr(checks, "Prompter", StandInPrompter)
    monkeypatch.setattr(training_checks, "require_template", lambda _: None)
    monkeypatch.setattr(memory, "require", lambda _: None)


def rows_of(run: Run, stage: str) -> list[dict[str, Any]]:
    return [row for part in run.parts for row in generated.rows(run, stage, part)]


def run_stage(stage: Any, run: Run) -> list[dict[str, Any]]:
    return [stage.execute(run, unit) for unit in range(run.part_count)]


def test_every_row_goes_through_the_three_stages(run: Run, engine: type[StandIn]) -> None:
    for stage in (rewrite, score, answer):
        run_stage(stage, run)
    questions, scores, pairs = (rows_of(run, stage) for stage in ("rewrite", "score", "answer"))
    assert len(questions) == len(scores) == len(pairs) == 24
    assert {row["question_id"] for row in pairs} == {row["question_id"] for row in questions}
    assert all(row["answer"] == f"Because of {row['question']}" for row in pairs)


def test_a_second_run_generates_nothing(run: Run, engine: type[StandIn]) -> None:
    run_stage(rewrite, run)
    engine.asked = []
    assert sum(result["generated"] for result in run_stage(rewrite, run)) == 12
    assert engine.asked == []


def test_engine_starts_are_told_for_each_part(
    run: Run, engine: type[StandIn], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    def starts() -> list[int]:
        run_stage(rewrite, run)
        return [run.require_manifest("rewrite", part).figures["engine_starts"] for part in run.parts]

    assert starts() == [1] * run.part_count
    # All is found.
    forget(run, "rewrite", root)
    assert starts() == [0] * run.part_count
    forget(run, "rewrite", root)
    for path in root.glob("generations/rewrite/*/*"):
        path.unlink()
    # Two had died.
    monkeypatch.setattr(engine, "restarts", property(lambda _: 2, lambda *_: None), raising=False)
    assert starts() == [3] * run.part_count


@pytest.mark.operation("older-rules")
def test_what_another_release_has_begun_is_not_gone_on_with(run: Run, engine: type[StandIn]) -> None:
    begun = Run(run.storage, run.plan.model_copy(update={"rules": 1}), run.digest)
    with pytest.raises(InputError, match="planned with the rules 1"):
        rewrite.execute(begun, 0)
    assert engine.asked == []


def test_an_interrupted_part_generates_only_what_is_missing(run: Run, engine: type[StandIn]) -> None:
    calls = 0

    def dies(stage: str, values: dict[str, str]) -> str | Exception:
        nonlocal calls
        calls += 1
        return TransientError("the engine died") if calls > 4 else good(stage, values)

    engine.respond = staticmethod(dies)
    with pytest.raises(TransientError):
        rewrite.execute(run, 0)
    before = len(engine.asked)
    assert before == 4
    engine.respond = staticmethod(good)
    result = rewrite.execute(run, 0)
    assert len(engine.asked) == result["rows_in"]
    assert len({values["text"] for values in engine.asked}) == result["rows_in"]


def test_another_configuration_reuses_what_its_prompts_left_alone(
    run: Run, engine: type[StandIn], configure: Configure
) -> None:
    run_stage(rewrite, run)
    engine.asked = []
    other = up_to_difference(configure(**SELECT_ALL, density={"bandwidth": 2.0}))
    assert other.uri != run.uri
    run_stage(rewrite, other)
    assert engine.asked == []


def test_what_was_made_of_a_part_of_a_document_says_so(
    run: Run, engine: type[StandIn], configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = selected.documents(run, run.parts[0], ["text"])[0]["text"]

    def render(_: Any, prompt: FrozenPrompt, values: dict[str, str], max_tokens: int) -> Rendered:
        return Rendered(json.dumps([prompt.name, values]), [1], 7 if values.get("text") == long else 0)

    monkeypatch.setattr(StandInPrompter, "render", render)
    # The second configuration reads what the first has left in storage.
    for bandwidth in (1.0, 2.0):
        planned = up_to_difference(configure(**SELECT_ALL, density={"bandwidth": bandwidth}))
        for stage in (rewrite, score, answer):
            run_stage(stage, planned)
        cut = {row["doc_id"] for row in rows_of(planned, "rewrite") if row["cut_characters"] == 7}
        assert len(cut) == 1
        for stage in ("rewrite", "answer"):
            assert {row["doc_id"] for row in rows_of(planned, stage) if row["cut_characters"]} == cut
        figures = planned.require_manifest("rewrite", planned.parts[0]).figures
        assert figures["documents_cut"] == 1
    assert figures["generated"] == 0


def test_one_bad_request_costs_itself_only(run: Run, engine: type[StandIn]) -> None:
    bad = selected.documents(run, run.parts[0], ["text"])[0]["text"]

    def refuses(stage: str, values: dict[str, str]) -> str | Exception:
        return ValueError("prompt too long") if values["text"] == bad else good(stage, values)

    engine.respond = staticmethod(refuses)
    with pytest.raises(
        BudgetExceededError, match=r"rewrite of part-0000.*'not_servable': 1.*failure_budget=0.05"
    ):
        rewrite.execute(run, 0)
    before = len(engine.asked)
    engine.respond = staticmethod(good)
    assert rewrite.execute(run, 0)["rows_quarantined"] == 0
    assert len(engine.asked) == before + 1


@pytest.mark.parametrize(
    ("reply", "error_class"),
    [
        ("cut", "cut_off"),
        ('{"questions": ["only one of them"]}', "not_parsed"),
        ("not json", "not_parsed"),
        ('{"questions": ["          ", "           "]}', "no_question"),
        ('{"questions": ["a lone \\ud800 surrogate", "another question"]}', "not_parsed"),
    ],
)
def test_a_response_that_cannot_be_used_is_quarantined_with_its_class(
    configure: Configure, engine: type[StandIn], reply: str, error_class: str
) -> None:
    run = up_to_difference(
        configure(**SELECT_ALL | {"prompts": SELECT_ALL["prompts"] | {"failure_budget": 1.0}})
    )
    engine.respond = staticmethod(lambda stage, values: reply)
    for result in run_stage(rewrite, run):
        assert result["rows_quarantined"] == result["rows_in"] > 0
    done = run.require_manifest("rewrite", run.parts[0])
    assert done.ledger is not None
    assert set(done.ledger.quarantined) == {error_class}
    assert "quarantine" in done.outputs


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"quality": 5, "difficulty": 9, "additional_information": False}, "quality"),
        ({"quality": 6, "difficulty": 2, "additional_information": False}, "difficulty"),
        ({"quality": 6, "difficulty": 3, "additional_information": True}, "additional_information"),
    ],
)
def test_gates_reject_with_their_reason_and_keep_the_row(
    run: Run, engine: type[StandIn], scores: dict[str, Any], reason: str
) -> None:
    run_stage(rewrite, run)
    engine.respond = staticmethod(lambda stage, values: json.dumps(scores))
    run_stage(score, run)
    rows = rows_of(run, "score")
    assert len(rows) == 24
    assert {row["reason"] for row in rows} == {reason}
    engine.asked = []
    assert all(result["rows_in"] == 0 for result in run_stage(answer, run))
    assert engine.asked == []


def test_equal_questions_are_one_question(run: Run, engine: type[StandIn]) -> None:
    engine.respond = staticmethod(
        lambda stage, values: '{"questions": ["What is it for?", " What is it for? "]}'
    )
    run_stage(rewrite, run)
    assert len(rows_of(run, "rewrite")) == 12


def test_the_best_share_of_the_questions_is_kept(configure: Configure, engine: type[StandIn]) -> None:
    run = up_to_difference(configure(**SELECT_ALL, gates={"keep_best": 0.25}))
    run_stage(rewrite, run)

    def by_content(stage: str, values: dict[str, str]) -> str:
        quality = 10 if values["question"].startswith("Which") else 7
        return json.dumps({"quality": quality, "difficulty": 5, "additional_information": False})

    engine.respond = staticmethod(by_content)
    run_stage(score, run)
    rows = rows_of(run, "score")
    kept = [row for row in rows if row["kept"]]
    assert (len(rows), len(kept)) == (24, sum(math.ceil(len(part) / 4) for part in parts_of(run, "score")))
    assert {row["quality"] for row in kept} == {10}
    assert {row["reason"] for row in rows if not row["kept"]} == {"keep_best"}


def parts_of(run: Run, stage: str) -> list[list[dict[str, Any]]]:
    return [generated.rows(run, stage, part) for part in run.parts]


def tries(first: str, then: str) -> Respond:
    """The first response to a text, and all later ones."""
    seen: set[str] = set()

    def respond(stage: str, values: dict[str, str]) -> str:
        again = values["text"] in seen
        seen.add(values["text"])
        return then if again else first

    return respond


GOOD = '{"questions": ["What is a port for?", "Where does grain grow?"]}'


@pytest.mark.parametrize(
    ("first", "changed"), [("cut", {"max_tokens": 1023}), ("not json", {"temperature": 0.7})]
)
def test_what_cannot_be_used_is_asked_for_once_more(
    run: Run, engine: type[StandIn], first: str, changed: dict[str, Any]
) -> None:
    engine.respond = staticmethod(tries(first, GOOD))
    run_stage(rewrite, run)
    assert len(rows_of(run, "rewrite")) == 24
    plain = run.plan.prompts["rewrite"].sampling
    assert [sampling for sampling in engine.sampling if sampling != plain] == [plain | changed] * 12
    figures = [run.require_manifest("rewrite", part).figures for part in run.parts]
    assert sum(figure["retried"] for figure in figures) == 12


def test_a_response_that_was_cut_gets_its_room_from_a_long_document(
    run: Run, engine: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[int] = []

    def render(_: Any, prompt: FrozenPrompt, values: dict[str, str], max_tokens: int) -> Rendered:
        rooms.append(max_tokens)
        # A long document: what it may have, it takes.
        return Rendered(json.dumps([prompt.name, values]), [1] * (1024 - max_tokens), max_tokens)

    monkeypatch.setattr(StandInPrompter, "render", render)
    engine.respond = staticmethod(tries("cut", GOOD))
    run_stage(rewrite, run)
    # Of 1,024 tokens, the response has 640: it cannot have twice as many.
    plain = run.plan.prompts["rewrite"].sampling
    assert sorted(rooms) == [640] * 12 + [832] * 12
    assert {row["cut_characters"] for row in rows_of(run, "rewrite")} == {832}
    changed = {"max_tokens": 832, "temperature": 0.7}
    assert [sampling for sampling in engine.sampling if sampling != plain] == [plain | changed] * 12


def test_marks_that_are_made_plain_are_told_once_a_request(
    run: Run, engine: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(_: Any, prompt: FrozenPrompt, values: dict[str, str], max_tokens: int) -> Rendered:
        marks = {"<|im_end|>": 2} if "0-" in values["text"] else {}
        return Rendered(json.dumps([prompt.name, values]), [1], neutralised=marks)

    monkeypatch.setattr(StandInPrompter, "render", render)
    # Each is asked twice: its marks are the same.
    engine.respond = staticmethod(tries("no JSON", GOOD))
    run_stage(rewrite, run)
    told = [run.require_manifest("rewrite", part).figures["neutralised"] for part in run.parts]
    assert sum(figure.get("<|im_end|>", 0) for figure in told) == 12


def test_responses_of_a_model_that_was_replaced_are_not_kept(run: Run, engine: type[StandIn]) -> None:
    (Path(run.config.engine.model) / "config.json").write_text("{ }")
    with pytest.raises(InputError, match="changed after the run was planned: plan the run anew"):
        rewrite.execute(run, 0)
    assert engine.asked == []


def test_what_an_engine_argument_decides_is_part_of_a_responses_identity() -> None:
    def identity(**arguments: Any) -> list[Any]:
        return config.Engine(model="/model", engine_args=arguments).generation_identity()

    assert identity(load_format="dummy") != identity() != identity(dtype="float32")
    assert identity(max_num_seqs=8, tensor_parallel_size=2) == identity() == identity(dtype="auto")


@pytest.mark.parametrize(
    ("told", "gpus", "can", "computed"),
    [
        ({}, False, True, "bfloat16"),
        ({}, False, False, "float32"),
        ({}, True, False, None),
        ({"dtype": "auto"}, False, False, "float32"),
        ({"dtype": "auto"}, True, True, None),
        ({"dtype": "bfloat16"}, False, False, "bfloat16"),
        ({"dtype": "float16"}, True, False, "float16"),
    ],
)
def test_an_engine_computes_in_what_the_processors_can(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], gpus: bool, can: bool, computed: str | None
) -> None:
    monkeypatch.setattr(devices, "visible", lambda: [Gpu("a", 0)] if gpus else [])
    monkeypatch.setattr(processors, "compute_bfloat16", lambda: can)
    settings = config.Engine(model="/model", engine_args=told)
    assert dtype(settings) == computed
    assert dtype(settings) in DTYPES or told
    # The engine is told so.
    assert _arguments(settings, "/model").get("dtype", "auto") == (computed or "auto")


@pytest.mark.parametrize(
    ("told", "bfloat16", "deciding"),
    [
        ({}, [True, True], None),
        ({}, [True, False], "not bfloat16"),
        ({"dtype": "auto"}, [False], "not bfloat16"),
        ({"dtype": "float16"}, [False], "float16"),
    ],
)
def test_responses_of_gpus_without_bfloat16_are_kept_apart_and_vllm_chooses(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], bfloat16: list[bool], deciding: str | None
) -> None:
    gpus = [Gpu(str(number), number, bfloat16=can) for number, can in enumerate(bfloat16)]
    monkeypatch.setattr(devices, "visible", lambda: gpus)
    settings = config.Engine(model="/model", engine_args=told)
    assert numbers(settings) == deciding
    assert numbers(settings) in DTYPES or told["dtype"] == deciding
    assert _arguments(settings, "/model").get("dtype", "auto") == told.get("dtype", "auto")
    server = config.Endpoint(url="http://127.0.0.1:1/v1", served_model="model")
    elsewhere = config.Engine(model="/model", endpoint=server)
    assert numbers(elsewhere) is None


@pytest.mark.parametrize(
    ("told", "gpus", "seeded", "given"),
    [
        ({}, False, False, {}),
        ({}, True, True, {}),
        ({}, False, True, {"enable_chunked_prefill": False}),
        (
            {"max_num_batched_tokens": 512}, False, True,
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 1024},
        ),
        ({"max_num_batched_tokens": 512}, False, False, {"max_num_batched_tokens": 512}),
    ],
)  # fmt: skip
def test_prompts_stay_whole_where_requests_have_seeds(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], gpus: bool, seeded: bool, given: dict[str, Any]
) -> None:
    monkeypatch.setattr(devices, "visible", lambda: [Gpu("a", 0)] if gpus else [])
    settings = config.Engine(model="/model", max_model_len=1024, engine_args=told)
    found = _arguments(settings, "/model", seeded)
    assert {
        name: found[name] for name in ("enable_chunked_prefill", "max_num_batched_tokens") if name in found
    } == given


def test_responses_of_machines_that_compute_otherwise_are_kept_apart(
    run: Run, engine: type[StandIn], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    for can, asked in ((False, 12), (True, 24), (False, 24), (True, 24)):
        monkeypatch.setattr(processors, "compute_bfloat16", lambda can=can: can)
        forget(run, "rewrite", root)
        run_stage(rewrite, run)
        assert len(engine.asked) == asked
        figures = [run.require_manifest("rewrite", part).figures for part in run.parts]
        assert {figure["dtype"] for figure in figures} == {"bfloat16" if can else "float32"}
    kept = {f"{path.relative_to(root)}/" for path in root.glob("generations/rewrite/*")}
    prompt = run.plan.prompts["rewrite"]
    assert len(kept) == 2
    # Those that gc looks for.
    assert kept < stored.prefixes("rewrite", prompt, run.config, run.plan.engine_identity)


def test_what_is_drawn_at_random_follows_from_the_request_where_nothing_else_may_decide(
    configure: Configure, engine: type[StandIn], root: Path
) -> None:
    engine.respond = staticmethod(lambda *_: "no JSON")
    changes = {
        "engine": SELECT_ALL["engine"] | {"deterministic": True},
        "prompts": SELECT_ALL["prompts"] | {"failure_budget": 1.0},
    }
    run = up_to_difference(configure(**SELECT_ALL | changes))
    drawn: list[dict[str, list[int]]] = []
    for _ in range(2):
        engine.asked, engine.sampling = [], []
        forget(run, "rewrite", root)
        for path in root.glob("generations/rewrite/*/*"):
            path.unlink()
        run_stage(rewrite, run)
        seeds: dict[str, list[int]] = {}
        for values, sampling in zip(engine.asked, engine.sampling, strict=True):
            seeds.setdefault(values["text"], []).append(sampling["seed"])
        drawn.append(seeds)
    assert drawn[0] == drawn[1]
    assert len({seed for some in drawn[0].values() for seed in some}) == 24


def forget(run: Run, stage: str, root: Path) -> None:
    """As if a stage had not been done."""
    for part in run.parts:
        (root / run.manifest_key(stage, part)).unlink(missing_ok=True)


def test_how_a_model_thinks_is_part_of_a_responses_identity(configure: Configure) -> None:
    model = configure().engine.model
    changes: list[dict[str, Any]] = [
        {"chat_template_args": {"enable_thinking": False}},
        {"chat_template_args": {"enable_thinking": True}},
        {"reasoning_parser": "qwen3"},
        {"deterministic": True},
    ]
    configs = [
        configure(),
        *(configure(engine={"model": model, "max_model_len": 1024} | one) for one in changes),
    ]
    for identity in (
        [one.engine.generation_identity() for one in configs],
        [one.identity()["engine"] for one in configs],
    ):
        assert all(identity.count(one) == 1 for one in identity)
    # How tokens are guessed is no part of it, nor of the run's.
    guessing = configure(engine={"model": model, "max_model_len": 1024, "speculation": "ngram"})
    assert guessing.engine.generation_identity() == configs[0].engine.generation_identity()
    assert guessing.identity() == configs[0].identity()
    # As before they were settings: what was generated then is found again.
    assert configs[0].engine.generation_identity() == [1024, {}]
    assert (
        not {"chat_template_args", "reasoning_parser", "deterministic"}
        & configs[0].identity()["engine"].keys()
    )


def test_a_second_attempt_can_be_left_out(configure: Configure, engine: type[StandIn]) -> None:
    prompts = {"folder": configure().prompts.folder, "failure_budget": 1.0, "second_attempt": False}
    engine.respond = staticmethod(lambda *_: "cut")
    run_stage(rewrite, up_to_difference(configure(**SELECT_ALL | {"prompts": prompts})))
    assert len(engine.asked) == 12


@pytest.mark.parametrize(("share", "kept"), [(0.07, 7), (0.55, 55), (0.071, 8), (1.0, 100)])
def test_the_best_share_is_no_more_by_rounding(share: float, kept: int) -> None:
    scores = {"quality": 5, "difficulty": 5, "expected_quality": None, "expected_difficulty": None}
    rows = {f"{number}": [{"question_id": f"{number}", **scores}] for number in range(100)}
    readings = score.STAGE.select(Gates(keep_best=share), rows)
    assert sum(isinstance(reading, list) for reading in readings.values()) == kept


def test_a_third_attempt_waits_for_another_round(configure: Configure, engine: type[StandIn]) -> None:
    def planned(failed_round: int) -> Run:
        prompts = {"folder": configure().prompts.folder, "failure_budget": 1.0, "failed_round": failed_round}
        return up_to_difference(configure(**SELECT_ALL | {"prompts": prompts}))

    bad = selected.documents(planned(0), planned(0).parts[0], ["text"])[0]["text"]
    engine.respond = staticmethod(lambda stage, values: "no" if values["text"] == bad else GOOD)
    first = planned(0)
    assert sum(result["rows_quarantined"] for result in run_stage(rewrite, first)) == 1
    assert len(engine.asked) == 13
    engine.asked = []
    engine.respond = staticmethod(lambda stage, values: GOOD)
    again = planned(1)
    assert again.uri != first.uri
    assert sum(result["rows_quarantined"] for result in run_stage(rewrite, again)) == 0
    assert [values["text"] for values in engine.asked] == [bad]


def test_what_a_killed_task_has_finished_is_there_within_a_second(
    run: Run, engine: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_FLUSH_SECONDS", 0.05)

    class KilledError(BaseException):
        """Like a kill: nothing is flushed at the end."""

    def slow(stage: str, values: dict[str, str]) -> str:
        if len(engine.asked) == 4:
            assert wait_for(lambda: len(stored_keys(run)) >= 3)
            raise KilledError
        time.sleep(0.1)
        return good(stage, values)

    engine.respond = staticmethod(slow)
    with pytest.raises(KilledError):
        rewrite.execute(run, 0)


def stored_keys(run: Run) -> list[str]:
    return [info.key for info in run.storage.list("generations/rewrite/")]


def wait_for(ready: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not ready() and time.monotonic() < end:
        time.sleep(0.02)
    return ready()


def test_a_full_disk_ends_the_task_and_loses_nothing(
    run: Run, engine: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(stored.tables, "write", full)
        with pytest.raises(OSError, match="no space left"):
            rewrite.execute(run, 0)
    assert run.find_manifest("rewrite", run.parts[0]) is None
    assert rewrite.execute(run, 0)["rows_quarantined"] == 0


def test_the_same_responses_in_any_order_give_the_same_bytes(
    run: Run, engine: type[StandIn], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(rewrite, run)
    first = {key: run.storage.read(key) for key in outputs_of(run)}
    for info in list(run.storage.list("generations/")) + list(run.storage.list(f"{run.prefix}/rewrite/")):
        (root / info.key).unlink()
    monkeypatch.setattr(engine, "finished", in_order)
    run_stage(rewrite, run)
    assert {key: run.storage.read(key) for key in outputs_of(run)} == first


def in_order(engine: StandIn) -> list[tuple[str, Completion | Refusal]]:
    job = engine._jobs.pop(0)
    stage, values = json.loads(job.content)
    return [(job.id, Completion(good(stage, values), "stop", 10, 5))]


def outputs_of(run: Run) -> list[str]:
    return [run.require_manifest("rewrite", part).output("rows") for part in run.parts]


def scored(text: str, numbers: list[Any], repairs: tuple[str, ...] = ()) -> Parsed:
    return Parsed(json.loads(text), repairs, Response(Completion(text, "stop", 1, 1, 0, numbers)))


def odds(**shares: float) -> list[tuple[str, float]]:
    return [(name.removeprefix("n"), math.log(share)) for name, share in shares.items()]


def test_scores_are_means_over_what_could_have_stood_there() -> None:
    text = '{"quality": 8, "difficulty": 3, "additional_information": false}'
    numbers = [("8", odds(n8=0.5, n7=0.25, n9=0.25)), (" 3", odds(n3=0.8, n1=0.2))]
    assert score.expected_scores(scored(text, numbers)) == (pytest.approx(8.0), pytest.approx(2.6))


def test_a_ten_of_two_tokens_is_one_score() -> None:
    text = '{"quality": 10, "difficulty": 3, "additional_information": false}'
    numbers = [("1", odds(n1=0.6, n9=0.4)), ("0", odds(n0=0.5)), ("3", odds(n3=1.0))]
    expected = 10 * 0.3 + 1 * 0.3 + 9 * 0.4
    assert score.expected_scores(scored(text, numbers))[0] == pytest.approx(expected)


@pytest.mark.parametrize("numbers", [[], [("7", odds(n7=1.0))], [("8", odds(n8=1.0))]])
def test_without_probabilities_there_is_no_mean(numbers: list[Any]) -> None:
    text = '{"quality": 8, "difficulty": 3, "additional_information": false}'
    assert score.expected_scores(scored(text, numbers)) == (None, None)
    whole = [("8", odds(n8=1.0)), ("3", odds(n3=1.0))]
    assert score.expected_scores(scored(text, whole, ("code fence",))) == (None, None)


def test_a_question_that_a_gate_leaves_out_is_kept_with_its_reason(run: Run, engine: type[StandIn]) -> None:
    questions = ["What does the author of this text say?", "Which rivers carry grain to the ports?"]
    engine.respond = staticmethod(lambda stage, values: json.dumps({"questions": questions}))
    run_stage(rewrite, run)
    rows = rows_of(run, "rewrite")
    assert {row["reason"] for row in rows if not row["kept"]} == {"mentions_document"}
    assert len([row for row in rows if row["kept"]]) == 12
    engine.respond = staticmethod(good)
    engine.asked = []
    run_stage(score, run)
    assert {values["question"] for values in engine.asked} == {questions[1]}


def test_an_answer_that_a_gate_leaves_out_is_kept_with_its_reason(run: Run, engine: type[StandIn]) -> None:
    run_stage(rewrite, run)
    run_stage(score, run)
    engine.respond = staticmethod(
        lambda *_: json.dumps({"answer": "I'm sorry, but I cannot help with that."})
    )
    results = run_stage(answer, run)
    assert {row["reason"] for row in rows_of(run, "answer")} == {"refusal"}
    assert sum(result["rows_out"] for result in results) == 0
    assert all(generated.kept_rows(run, "answer", part) == [] for part in run.parts)
