"""The nightly refresh: one DAG, one task a stage, in the order of the story.

What is here: what runs when, over how many units, in which pool, on which workers, for
how long at most. What is not here: what a stage does (``aitp_tasks/``) and how it is run
(``plugins/aitp_stage.py``). Nothing heavy is imported, because this file is
parsed again and again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from airflow.sdk import CronPartitionTimetable, Param, TriggerRule, chain, dag, task, task_group

from aitp_approval import ApproveOperator, ApprovePromotionOperator, PromoteOperator
from aitp_assets import CHECKPOINTS, DATASETS, tell_checkpoint, tell_dataset
from aitp_messages import FailureNotifier, GroupNotifier, NotPromotedNotifier, deadline
from aitp_note import PlanOperator
from aitp_stage import (
    AS_CONFIGURED,
    LABEL_TEMPLATE,
    PILOT,
    AfterPartsOperator,
    BeginOperator,
    EndOperator,
    StageOperator,
    Unit,
    UnitsOperator,
    deployments_config,
    required,
    result_of,
)
from aitp_tasks.config import Require, RunConfig, file
from aitp_tasks.config.engine import gpus
from aitp_tasks.errors import InputError
from aitp_tasks.stages import STAGES, Stage

#: The configuration of the nights; a run started by hand, or a backfill, may name another one beside it.
CONFIG = deployments_config()
_LEFT_OUT = object()
#: How many of the parts are a pilot's.
PILOT_PARTS = "{{ result_of(ti, 'difference').get('pilot_parts', 0) }}"
#: One slot a device; a stage that needs devices waits for its slots here.
GPU_POOL = "gpu"
#: Of the dumps' names in a label.
DUMP_CHARACTERS = 60

#: Stages whose versions may become the latest.
PROMOTING = ("assemble", "promote")

#: Settings that the trigger form offers, by the path they have in the configuration.
FORM = (
    "dump",
    "sft",
    "difference.criterion",
    "difference.tau",
    "difference.target_share",
    "difference.target_documents",
    "difference.sampling",
    "difference.max_documents",
    "difference.seed",
    "density.refit",
    "prompts.failed_round",
    "gates.min_quality",
    "gates.min_difficulty",
    "gates.allow_additional_information",
    "gates.keep_best",
    "assemble.base",
    "assemble.max_rewritten_share",
    "assemble.max_similarity",
    "finetune.epochs",
    "finetune.max_steps",
    "finetune.learning_rate",
    "plan.max_gpu_hours",
    "plan.max_cost",
)


def presets(config: Path) -> dict[str, dict[str, Any]]:
    """What the configurations of one folder say, by their names; the one that is meant first."""
    others = sorted(path for path in config.parent.glob(f"*{config.suffix}") if path != config)
    found: dict[str, dict[str, Any]] = {}
    for path in (config, *others):
        try:
            values = file.read(path, ())
        except InputError:
            # Plan says what is wrong with it.
            values = {}
        if path == config or not values or "root" in values:
            found[path.stem] = values
    return found


def section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """One section of a configuration; empty where it is none, which plan will say."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def pools(presets: dict[str, dict[str, Any]]) -> tuple[str | None, str | None]:
    """Pools of what embeds and of what generates: none where servers of their own do, in all presets."""
    embeds, generates = (
        None if all(section(values, name).get("endpoint") for values in presets.values()) else GPU_POOL
        for name in ("encoder", "engine")
    )
    return embeds, generates


def required_devices(values: dict[str, Any]) -> Any:
    """What one configuration says in ``devices.require``."""
    return section(values, "devices").get("require", Require.AUTO)


def slots(presets: dict[str, dict[str, Any]]) -> tuple[int, int]:
    """Slots of a unit that generates, and of finetune: one a GPU that it leases, of the preset with most.

    Ranks are counted where a preset requires GPUs: on processors they lease none, and a task that
    wants more slots than its pool has would wait for ever.
    """
    engines = [
        section(values, "engine") for values in presets.values() if required_devices(values) != Require.CPU
    ]
    trainings = [
        section(values, "finetune") for values in presets.values() if required_devices(values) == Require.GPU
    ]
    generating = (gpus(section(engine, "engine_args")) for engine in engines if not engine.get("endpoint"))
    ranks = (training.get("processes") for training in trainings)
    return (
        max(generating, default=1),
        max((count for count in ranks if isinstance(count, int) and count > 0), default=1),
    )


def answers(presets: dict[str, dict[str, Any]], generates: str | None) -> str | None:
    """Pool of what answers: where several answers are ranked, the base model needs a GPU of its own."""
    counts = (section(values, "prompts").get("answers_per_question", 1) for values in presets.values())
    return GPU_POOL if any(count != 1 for count in counts) else generates


PRESETS = presets(CONFIG)
EMBEDS, GENERATES = pools(PRESETS)
ENGINE_SLOTS, RANK_SLOTS = slots(PRESETS)
#: Before what a configuration lets a person be asked.
ASKED = {
    setting
    for setting in ("before_finetune", "before_promotion")
    if any(section(values, "approval").get(setting) for values in PRESETS.values())
}
#: Where a configuration lets a pilot say which documents are worth the tokens; else there is no task for it.
PILOTS = any(section(values, "difference").get("allocation") == "yield" for values in PRESETS.values())
#: Where a configuration holds data out; else there is nothing to compare, and no GPU to wait for.
EVALUATES = (
    GPU_POOL if any(section(values, "evaluate").get("held_out") for values in PRESETS.values()) else None
)


#: Stages that go to workers of their own where they take GPUs, by the section of ``workers`` that says which.
PLACED = {
    "encoder": ("embed", "assemble"),
    "engine": ("rewrite", "score", "answer"),
    "finetune": ("finetune", "evaluate"),
}


class Resources(NamedTuple):
    """What one task of a stage takes: its pool (None is the default one), slots of it, and time at most.

    And which workers: the queue is Celery's (None is Airflow's default one), the executor's
    configuration KubernetesExecutor's.
    """

    pool: str | None
    timeout: timedelta
    slots: int = 1
    queue: str | None = None
    executor_config: dict[str, str] | None = None


def placed(resources: dict[str, Resources], values: dict[str, Any]) -> dict[str, Resources]:
    """The same with the workers that a configuration names for what takes GPUs."""
    found = dict(resources)
    for name, stages in PLACED.items():
        place = section(section(values, "workers"), name)
        queue, template = (_text(place.get(key)) for key in ("queue", "pod_template"))
        for stage in stages:
            if resources[stage].pool == GPU_POOL:
                pod = {"pod_template_file": template} if template else None
                found[stage] = resources[stage]._replace(queue=queue, executor_config=pod)
    return found


def _text(value: Any) -> str | None:
    """A value as it has to be; what else it may be, plan will say."""
    return value if isinstance(value, str) and value else None


TAKEN = {
    "plan": Resources(None, timedelta(minutes=30)),
    "embed": Resources(EMBEDS, timedelta(hours=12)),
    "merge": Resources(None, timedelta(hours=4)),
    "density": Resources(None, timedelta(hours=2)),
    "index": Resources(None, timedelta(hours=4)),
    "difference": Resources(None, timedelta(hours=4)),
    "allocate": Resources(None, timedelta(hours=4)),
    "rewrite": Resources(GENERATES, timedelta(hours=12), ENGINE_SLOTS),
    "score": Resources(GENERATES, timedelta(hours=12), ENGINE_SLOTS),
    "answer": Resources(answers(PRESETS, GENERATES), timedelta(hours=12), ENGINE_SLOTS),
    "assemble": Resources(EMBEDS, timedelta(hours=4)),
    "finetune": Resources(GPU_POOL, timedelta(hours=48), RANK_SLOTS),
    "evaluate": Resources(EVALUATES, timedelta(hours=48), RANK_SLOTS),
    "promote": Resources(None, timedelta(minutes=30)),
    "report": Resources(None, timedelta(hours=1)),
}
#: The deployment's own configuration places them: Airflow knows tasks, and no run's file.
RESOURCES = placed(TAKEN, PRESETS[CONFIG.stem])


def stage_task(stage: Stage) -> dict[str, Any]:
    """The operator's arguments that are the same however the stage is wired."""
    takes = RESOURCES[stage.name]
    arguments = {
        "task_id": stage.name,
        "stage": stage.name,
        "execution_timeout": takes.timeout,
        "doc_md": f"`aitp {stage.name}`: {stage.does}.",
        "map_index_template": LABEL_TEMPLATE if stage.fans_out else None,
        "on_success_callback": NotPromotedNotifier(str(CONFIG)) if stage.name in PROMOTING else None,
        "pool": takes.pool,
        "pool_slots": takes.slots,
        "queue": takes.queue,
        "executor_config": takes.executor_config,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def stage_table() -> str:
    """The DAG's documentation page."""
    rows = [
        f"| `{stage.name}` | {stage.fans_out or 'run'} | {takes.pool or 'default'} | {takes.slots} "
        f"| {takes.queue or 'default'} | {takes.timeout.total_seconds() / 3600:g} h | {stage.does} |"
        for stage in STAGES
        for takes in [RESOURCES[stage.name]]
    ]
    return "\n".join(
        [
            "Finds what a dump of the pre-training corpus covers and the SFT set does not, rewrites it into",
            "instruction-response pairs, and fine-tunes on both.",
            "",
            "| stage | once per | pool | slots | queue | at most | does |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "The dump is the run's partition key, the day before; a run started by hand names it in the",
            "param `dump`. `begin` waits for the dump and for runs of the same dataset that come first;",
            "where there is nothing new, all that follows is skipped.",
            "Outputs belong to the dump and the configuration: a second run finds them and ends.",
            "Clear one mapped instance to run that unit again; the others keep their results.",
        ]
    )


def param_name(setting: str) -> str:
    """Name of the DAG param for a setting; the form has no nested names."""
    return setting.replace(".", "__")


def form_params() -> dict[str, Param]:
    """The trigger form, from the configuration's own titles, types and bounds.

    A field left empty, or at "as configured", means: as in the configuration file.
    """
    schema = RunConfig.model_json_schema()
    preset = Param(
        CONFIG.stem,
        type="string",
        enum=list(PRESETS),
        title="Configuration",
        description=f"One of the files beside {CONFIG.name}; all that is left empty here is as it says.",
    )
    return {"config": preset, **{param_name(setting): _param(setting, schema) for setting in FORM}}


def _param(setting: str, schema: dict[str, Any]) -> Param:
    section, _, _ = setting.rpartition(".")
    field: dict[str, Any] = schema
    for key in setting.split("."):
        field = _resolve(field["properties"][key], schema)
    shown = _configured(setting, field)
    kept = {key: value for key, value in field.items() if key not in ("default", "type", "enum")}
    kept["description"] = " ".join(
        filter(None, [field["description"], _bounds(field), f"Configured: {shown}."])
    )
    if section:
        # What has no section is in sight when the form opens.
        kept["section"] = section.capitalize()
    choices = ["on", "off"] if field["type"] == "boolean" else field.get("enum")
    if choices is None:
        return Param(None, type=["null", field["type"]], **kept)
    unset = f"{AS_CONFIGURED} ({shown})"
    return Param(unset, type="string", enum=[unset, *choices], **kept)


def _configured(setting: str, field: dict[str, Any]) -> str:
    """What the presets say of a setting, in words; by their names where they differ."""
    said = {}
    for name, values in PRESETS.items():
        if not values:
            continue
        found: Any = values
        for key in setting.split("."):
            found = found.get(key, _LEFT_OUT) if isinstance(found, dict) else _LEFT_OUT
        found = field.get("default") if found is _LEFT_OUT else found
        if field["type"] == "boolean":
            found = "on" if found else "off"
        said[name] = "not set" if found is None else str(found)
    if len(set(said.values())) < 2:
        return next(iter(said.values()), "not known")
    return ", ".join(f"{value} in {name}" for name, value in said.items())


def _bounds(field: dict[str, Any]) -> str:
    """The bounds of a number, in words."""
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    said = [f"{word} {field[key]:g}" for key, word in words.items() if key in field]
    return f"{' and '.join(said)}.".capitalize() if said else ""


def _resolve(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A field with what it refers to; of one that may be null, what else it may be."""
    if "anyOf" in field:
        (definition,) = (kind for kind in field["anyOf"] if kind.get("type") != "null")
    elif "$ref" in field:
        definition = schema["$defs"][field["$ref"].rpartition("/")[2]]
    else:
        return field
    return {**definition, **{key: value for key, value in field.items() if key not in ("$ref", "anyOf")}}


@task(task_id="pilot_parts")
def listed_pilot(result: Any) -> list[Unit]:
    """The pilot's parts, which come first; none where there is no pilot."""
    found = required(result, "difference")
    return _units(found, range(found.get("pilot_parts", 0)))


@task(task_id="parts")
def listed_parts(result: Any) -> list[Unit]:
    """The other parts, from difference's result, each with what it holds; Airflow maps over a list only."""
    found = required(result, "difference")
    # An earlier release has not told of a pilot.
    return _units(found, range(found.get("pilot_parts", 0), found["parts"]))


def _units(found: dict[str, Any], numbers: range) -> list[Unit]:
    dump, parts = found["label"][:DUMP_CHARACTERS], found["parts"]
    return [{"number": part, "holds": f"{dump} part {part + 1} of {parts}"} for part in numbers]


def prompt_tasks(
    run: str, unit: Unit, tasks: dict[str, dict[str, Any]], prefix: str = "", first: int | str = 0
) -> None:
    """The prompt stages of one part, one after the other.

    Args:
        run: URI of the run.
        unit: the part.
        tasks: arguments of all stages' operators.
        prefix: of the tasks' names.
        first: number of the first part that they are mapped over.
    """
    rewrite, score, answer = (
        {**tasks[stage], "task_id": f"{prefix}{stage}"} for stage in ("rewrite", "score", "answer")
    )
    asked, scored = rewrite["task_id"], score["task_id"]
    chain(
        StageOperator(run=run, unit=unit, **rewrite),
        AfterPartsOperator(run=run, unit=unit, after=asked, first=first, **score),
        AfterPartsOperator(run=run, unit=unit, after=scored, first=first, **answer),
    )


@dag(
    # The run of a day is due at the midnight that ends it, so that a backfill's last day is taken in too; how
    # much later it begins, schedule.lag_hours says.
    schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Runs of one dataset wait for their turn in `begin`, without a slot; a backfill has its own limit.
    max_active_runs=4,
    deadline=deadline(str(CONFIG)),
    params=form_params(),
    doc_md=stage_table(),
    user_defined_macros={"result_of": result_of},
    tags=["aitp"],
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(minutes=10),
        # Once for a task that has failed for good, not for each try.
        "on_failure_callback": FailureNotifier(str(CONFIG)),
    },
)
def aitp_refresh() -> Any:
    """Wire the stages; the run's result is the report's."""
    tasks = {stage.name: stage_task(stage) for stage in STAGES}
    run = "{{ result_of(ti, 'plan')['run'] }}"
    configured: dict[str, Any] = {
        "config": str(CONFIG),
        "settings": {param_name(setting): setting for setting in FORM},
    }

    begin = BeginOperator(
        task_id="begin",
        stage="line",
        doc_md="`aitp line begin`: which dumps are new, and whose turn it is on the dataset.",
        # Airflow takes a try for failed when it comes back before the scheduler has seen that it left.
        retries=20,
        on_success_callback=NotPromotedNotifier(str(CONFIG)),
        **configured,
    )
    end = EndOperator(
        task_id="end",
        stage="line",
        doc_md="`aitp line end`: the dataset is free for the next run.",
        on_success_callback=GroupNotifier(str(CONFIG)),
        **configured,
    )
    plan = PlanOperator(dump="{{ result_of(ti, 'begin')['dump'] }}", **configured, **tasks["plan"])
    # What is done already is not started again: then there may be nothing to map over, and that is well.
    on_done = TriggerRule.NONE_FAILED
    embed_units = UnitsOperator(task_id="embed_units", of="embed", run=run)
    embed = StageOperator.partial(run=run, **tasks["embed"]).expand(unit=embed_units.output)
    merge = StageOperator(run=run, trigger_rule=on_done, **tasks["merge"])
    density_units = UnitsOperator(task_id="density_units", of="density", run=run)
    density = StageOperator.partial(run=run, **tasks["density"]).expand(unit=density_units.output)
    index = StageOperator(run=run, trigger_rule=on_done, **tasks["index"])
    difference = StageOperator(run=run, trigger_rule=on_done, **tasks["difference"])
    parts, first = listed_parts(difference.output), PILOT_PARTS if PILOTS else 0

    # A group a part: one that waits, fails or is cleared holds no other one up.
    @task_group(group_id="prompts", prefix_group_id=False)
    def prompts(unit: Unit) -> None:
        prompt_tasks(run, unit, tasks, first=first)

    # An empty difference set skips the prompts; the dataset version is then the SFT set alone.
    assemble = AfterPartsOperator(
        run=run,
        after="answer",
        parts="{{ result_of(ti, 'difference')['parts'] }}",
        first=first,
        trigger_rule=on_done,
        outlets=[DATASETS],
        post_execute=tell_dataset,
        **tasks["assemble"],
    )
    # There only where a configuration asks for them.
    approve = [ApproveOperator(task_id="approve", config=str(CONFIG))] if "before_finetune" in ASKED else []
    approve_promotion = (
        [ApprovePromotionOperator(task_id="approve_promotion", config=str(CONFIG))]
        if "before_promotion" in ASKED
        else []
    )
    finetune = StageOperator(
        run=run, outlets=[CHECKPOINTS], post_execute=tell_checkpoint, **tasks["finetune"]
    )
    evaluate = StageOperator(run=run, **tasks["evaluate"])
    promote = PromoteOperator(
        run=run,
        after="approve_promotion" if approve_promotion else None,
        outlets=[DATASETS],
        post_execute=tell_dataset,
        **tasks["promote"],
    )
    report = StageOperator(run=run, **tasks["report"])

    begin >> plan >> embed_units >> embed >> merge >> density >> difference >> parts
    plan >> density_units >> density
    if PILOTS:
        pilot = listed_pilot(difference.output)

        @task_group(group_id="pilot", prefix_group_id=False)
        def piloted(unit: Unit) -> None:
            prompt_tasks(run, unit, tasks, PILOT)

        allocate = AfterPartsOperator(
            run=run,
            after=f"{PILOT}answer",
            parts=PILOT_PARTS,
            trigger_rule=on_done,
            **tasks["allocate"],
        )
        difference >> pilot
        piloted.expand(unit=pilot) >> allocate >> parts
    prompts.expand(unit=parts) >> assemble
    chain(assemble, *approve, finetune, evaluate, *approve_promotion, promote, report)
    density >> index >> report
    # Set-up and tear-down: `end` runs whatever becomes of the run, and both again when a task is cleared.
    report >> end.as_teardown(setups=begin)
    return report.output


aitp_refresh()
