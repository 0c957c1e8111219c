"""Configuration: files, overrides, refusals, and what decides a run's identity."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aitp_tasks.config import Approval, Assemble, RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.machine import models
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.dataset import card_cases

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("case", card_cases.LICENCES, ids=lambda case: repr(case["licence"]))
def test_a_licence_is_one_that_the_hub_knows(case: dict[str, Any]) -> None:
    if case["accepted"]:
        assert Assemble(license=case["licence"]).license == case["front"]
        return
    with pytest.raises(ValidationError, match="the hub knows no licence") as raised:
        Assemble(license=case["licence"])
    # Another spelling is not taken for what it means, but told.
    assert case["accepted"] is False or f": {case['front']}" in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"license_name": "acme-1"}, "license_name would say nothing with license=None"),
        (
            {"license": "mit", "license_link": "https://a.example"},
            "license_link would say nothing with license=mit",
        ),
        ({"license": "other", "license_name": "Acme 1"}, "license_name"),
        ({"license": "other", "license_link": "https://ann:secret@a.example"}, "license_link"),
        ({"license": "other", "license_link": "/home/ann/LICENSE"}, "license_link"),
    ],
)
def test_what_is_told_of_another_licence_is_refused_where_it_would_say_nothing(
    settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Assemble.model_validate(settings)


def test_relative_paths_are_relative_to_the_file() -> None:
    config = RunConfig.load(REPOSITORY / "configs/demo.yaml")
    assert config.encoder.model == str(REPOSITORY / ".aitp/models/all-MiniLM-L6-v2")
    assert config.prompts.folder == str(REPOSITORY / "prompts")


def test_overrides_are_yaml_values() -> None:
    config = RunConfig.load(
        REPOSITORY / "configs/demo.yaml",
        ["difference.tau=0.25", "dump=wikipedia+c4", "engine.engine_args={a: [1]}"],
    )
    assert (config.difference.tau, config.dump, config.engine.engine_args) == (
        0.25,
        "c4+wikipedia",
        {"a": [1]},
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("difference.tau=-1", r"difference.tau=-1: Input should be greater than 0"),
        ("difference.taw=1", r"difference.taw=1: there is no such setting: the nearest is difference.tau"),
        ("dump=../secret", r"dump='../secret'"),
        ("dump=c4+c4", "names one dump twice"),
        ("text_columns=[title, text, title]", "'title' is named twice"),
        ("dump", "not of the form section.key=value"),
        ("dump.name=x", "'dump' is a value, not a section"),
        ("dump={", "is not YAML"),
        ("engine.engine_args={model: x}", "cannot be engine arguments"),
        ("engine.chat_template_args={tokenize: true}", "cannot be chat template arguments"),
        ("engine.engine_args={reasoning_parser: qwen3}", "cannot be engine arguments"),
        (
            "engine={model: m, deterministic: true, endpoint: {url: 'http://h/v1', served_model: m}}",
            "leave engine.deterministic out, and start the server so",
        ),
        ("engine.speculation=draft", "engine.speculation='draft': Input should be 'ngram' or 'suffix'"),
        (
            "engine={model: m, speculation: ngram, endpoint: {url: 'http://h/v1', served_model: m}}",
            "speculation=ngram is a matter of the server's: leave engine.speculation out, and start",
        ),
        ("engine={model: m, speculation: ngram, deterministic: true}", "speculation=ngram checks several"),
        (
            "engine={model: m, speculation: suffix, engine_args: {speculative_config: {method: ngram}}}",
            "speculation=suffix and engine_args.speculative_config are both given",
        ),
        (
            "engine.engine_args={tensor_parallel_size: '8'}",
            "tensor_parallel_size='8' is no number of 1 or more: write it as one",
        ),
        ("engine.engine_args={tensor_parallel_size: 8.0}", "tensor_parallel_size=8.0 is no number"),
        ("engine.engine_args={tensor_parallel_size: 0}", "tensor_parallel_size=0 is no number"),
        ("engine.engine_args={tensor_parallel_size: true}", "tensor_parallel_size=True is no number"),
        ("engine.engine_args={pipeline_parallel_size: null}", "pipeline_parallel_size=None is no number"),
        ("engine.engine_args={prefill_context_parallel_size: x}", "prefill_context_parallel_size='x' is no"),
        ("engine.engine_args={data_parallel_size: '2'}", "data_parallel_size='2' is no number"),
        ("engine.engine_args={nnodes: 2}", "nnodes=2 would wait for other machines: leave it out"),
        (
            "engine.engine_args={data_parallel_size: 2}",
            "engine_args.data_parallel_size=2 is refused by vLLM within one process: leave it out, since",
        ),
        ("density={components: 3, max_error: 1.0e-5}", "needs a grid too fine for 3 components"),
        ("plan.max_fanout=1025", "less than or equal to 1000"),
        (
            "approval.before_promotion=true",
            "demo.yaml: Value error, approval.before_promotion=true asks before a promotion, but with "
            "evaluate.promote=always versions are the latest as soon as they are made: set evaluate.promote "
            "to when_better",
        ),
    ],
)
def test_wrong_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig.load(REPOSITORY / "configs/demo.yaml", [override])


@pytest.mark.operation("old-setting")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("keep_best=0.5", "keep_best=0.5: there is no such setting: the nearest is gates.keep_best;"),
        (
            "assemble.keep_best=0.5",
            "assemble.keep_best=0.5: there is no such setting: the nearest is gates.keep_best;",
        ),
        ("encodr={a: 1}", "encodr={'a': 1}: there is no such setting: the nearest is encoder;"),
        (
            "zzz=1",
            r"zzz=1: there is no such setting: correct it or take it out \(docs/reference/configuration",
        ),
    ],
)
def test_a_setting_that_is_gone_is_told_with_what_to_write_instead(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig.load(REPOSITORY / "configs/demo.yaml", [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("a: [", "is not YAML"), ("- a", "not a mapping"), ("{}", "root is missing")],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        RunConfig.load(path)


def test_a_person_may_be_asked_before_a_promotion_only_where_one_is_decided() -> None:
    path, ask = REPOSITORY / "configs/demo.yaml", "approval.before_promotion=true"
    with pytest.raises(InputError, match="with evaluate.promote=never nothing is ever promoted: set"):
        RunConfig.load(path, ["evaluate.promote=never", ask])
    config = RunConfig.load(path, ["evaluate={promote: when_better, held_out: 0.1}", ask])
    assert config.approval.before_promotion
    # Who is asked decides no result.
    assert config.identity() == config.model_copy(update={"approval": Approval()}).identity()


def test_identity_leaves_places_out() -> None:
    here = RunConfig.load(REPOSITORY / "configs/demo.yaml")
    there = RunConfig.load(
        REPOSITORY / "configs/demo.yaml", ["root=s3://other", "encoder.model=/elsewhere/model"]
    )
    changed = RunConfig.load(REPOSITORY / "configs/demo.yaml", ["difference.tau=0.9"])
    assert here.identity() == there.identity() != changed.identity()


def test_who_is_told_decides_no_result_and_is_checked() -> None:
    demo = REPOSITORY / "configs/demo.yaml"
    told = RunConfig.load(demo, ["messages={email_to: [a@b.org], late_hours: 8, events: [budget]}"])
    assert told.identity() == RunConfig.load(demo).identity()
    for wrong, message in (
        ("email_to: ['a@b.org, c@d.org']", "email_to"),
        ("email_to: ['a@b.org\\nBcc: c@d.org']", "email_to"),
        ("email_to: [a@b.org, a@b.org]", "one is named twice"),
        ("webhook_connections: ['https://hooks.example.org/x']", "webhook_connections"),
        ("late_hours: 0, email_to: [a@b.org]", "late_hours=0"),
        ("late_hours: 8", "nobody is told"),
    ):
        with pytest.raises(InputError, match=message):
            RunConfig.load(demo, [f"messages={{{wrong}}}"])


def test_models_that_are_not_there_or_not_pinned_are_refused() -> None:
    for model, message in (("/no/such/model", "does not exist"), ("org/model", "nor pinned")):
        config = RunConfig.load(REPOSITORY / "configs/demo.yaml", [f"encoder.model={model}"])
        with pytest.raises(InputError, match=message):
            models.identity(config.encoder)


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@host/v1", "https://hunter2@host:8000/v1", "http://u:p/hunter2@host/v1"]
)
@pytest.mark.parametrize("section", ["encoder", "engine"])
def test_a_refused_url_is_not_repeated_with_its_user(url: str, section: str) -> None:
    endpoint = f"{section}.endpoint={{url: {url}, served_model: m}}"
    with pytest.raises(InputError, match=f"{section}.endpoint.url=") as refused:
        RunConfig.load(REPOSITORY / "configs/demo.yaml", [endpoint])
    assert "hunter2" not in str(refused.value)
    assert "host" in str(refused.value)


@pytest.mark.parametrize(
    "override",
    [
        "density={url: 'http://user:hunter2@host/v1'}",
        "density={url: http://user:hunter2@host/v1",
        "http://user:hunter2@host/v1",
        "dump.url=http://user:hunter2@host/v1",
    ],
)
def test_a_url_in_the_wrong_place_is_not_repeated_either(override: str) -> None:
    with pytest.raises(InputError) as refused:
        RunConfig.load(REPOSITORY / "configs/demo.yaml", [override])
    assert "hunter2" not in str(refused.value)


def test_a_file_that_is_no_yaml_does_not_repeat_it_either(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("engine: {endpoint: {url: http://user:hunter2@host/v1")
    with pytest.raises(InputError, match="is not YAML") as refused:
        RunConfig.load(tmp_path / "config.yaml")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "density.bandwidth=foo",
            r"density\.bandwidth='foo': Input should be a valid number.*; density\.bandwidth='foo'",
        ),
        ("difference.tau=.inf", r"difference\.tau=inf: Input should be a finite number"),
        ("difference.tau=.nan", r"difference\.tau=nan: Input should be a finite number"),
        (
            "difference={criterion: knn, tau: 2}",
            r"tau=2 is no cosine, which criterion knn compares with it: at most 1",
        ),
    ],
)
def test_a_wrong_setting_is_named_as_it_is_written(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig.load(REPOSITORY / "configs/demo.yaml", [override])


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"save_steps": 5, "save_minutes": None, "save_number": 9, "timeout_minutes": 1.0}, True),
        ({"gradient_checkpointing": True}, True),
        ({"scheduler": "linear", "weight_decay": 0.0, "max_grad_norm": 1.0, "neftune_noise": 0.0}, True),
        ({"long_examples": "cut"}, True),
        ({"report_to": ["wandb"]}, True),
        ({"eval_steps": None, "patience": None, "keep_best": False}, True),
        ({"scheduler": "cosine"}, False),
        ({"weight_decay": 0.1}, False),
        ({"max_grad_norm": 0.5}, False),
        ({"neftune_noise": 5.0}, False),
        ({"long_examples": "drop"}, False),
        ({"nodes": 1, "hostfile": "/etc/hostfile"}, True),
        ({"nodes": 2}, False),
    ],
)
def test_what_decides_nothing_of_a_training_makes_no_other_run(
    configure: Configure, settings: dict[str, Any], same: bool
) -> None:
    usual = configure()
    model = usual.finetune.model
    changed = configure(finetune={"model": model, **settings})
    assert (changed.identity() == usual.identity()) is same
    # As a release had it that did not know these settings.
    before = usual.model_dump(mode="json")
    later = {"scheduler", "weight_decay", "max_grad_norm", "neftune_noise", "long_examples", *settings}
    before["finetune"] = {name: value for name, value in before["finetune"].items() if name not in later}
    assert usual.identity_of(before) == usual.identity()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"finetune": {"eval_steps": 1, "keep_best": True, "nodes": 2}},
            "keep_best needs the best state whole on each machine, and with nodes=2",
        ),
        ({"finetune": {"patience": 2}}, "patience=2 go by validations, and eval_steps=null makes none"),
        ({"finetune": {"keep_best": True}}, "keep_best=True go by validations"),
        ({"finetune": {"eval_steps": 5}}, "evaluate.held_out=0 holds nothing out: set evaluate.held_out"),
        ({"finetune": {"report_to": ["wandb", "wandb"]}}, "names one twice"),
        ({"finetune": {"report_to": ["neptune"]}}, "'mlflow', 'trackio' or 'wandb'"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(
    configure: Configure, changes: dict[str, Any], message: str
) -> None:
    model = configure().finetune.model
    changes["finetune"]["model"] = model
    with pytest.raises(ValueError, match=re.escape(message)):
        configure(**changes)


def test_validations_decide_a_result(configure: Configure) -> None:
    usual = configure(evaluate={"held_out": 0.1})
    model = usual.finetune.model
    seen = [usual.identity()]
    for settings in ({}, {"patience": 2}, {"keep_best": True}):
        changed = {"model": model, "eval_steps": 5, **settings}
        seen.append(configure(evaluate={"held_out": 0.1}, finetune=changed).identity())
    assert all(seen.count(one) == 1 for one in seen)
