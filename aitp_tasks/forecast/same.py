"""What has to be the same for a figure of one run to hold for another, stage by stage.

A digest of all that decides how long an item takes, or what comes of it: models by
content, lengths, prompts, engine arguments, batches, servers. Not of it: how many items
there are (documents, epochs, steps), seeds, and where a model lies.
"""

from typing import Any

from aitp_tasks.config import Endpoint, Finetune
from aitp_tasks.records import digest, generated
from aitp_tasks.records.plan import Plan

#: Settings of the training that do not decide how long a step takes.
_OF_NO_STEP = {
    "model", "revision", "chat_template", "deepspeed", "epochs", "max_steps", "learning_rate", "warmup_share",
    "seed", "scheduler", "weight_decay", "max_grad_norm", "neftune_noise", "long_examples",
    "save_steps", "save_minutes", "save_number", "timeout_minutes", "patience", "keep_best", "report_to",
    "hostfile",
}  # fmt: skip
#: Settings that came later, with what they are where a step is as before.
_LATER = {
    **{"gradient_checkpointing": None, "lora": None, "offload": "none"},
    **{"packing": False, "group_by_length": False, "eval_steps": None, "nodes": 1},
}
#: Settings of the evaluation that do not decide how long it takes.
_OF_NO_EVALUATION = {"promote", "tolerance"}
#: What a figure may be of beside the stages: the share below tau, and the shares that pass the gates.
BELOW, KEPT, ANSWERED = "below", "kept", "answered"


def setups(plan: Plan) -> dict[str, str]:
    """Digest of what decides the figures of each stage that has models, and of the shares."""
    config = plan.config
    embed = [plan.encoder_digest, config.encoder.batch_tokens, _server(config.encoder.endpoint)]
    selecting = config.difference.model_dump(
        mode="json", include={"criterion", "neighbours", "tau", "target_share", "target_documents"}
    )
    engine = [
        plan.engine_identity,
        config.engine.generation_identity(),
        config.engine.engine_args,
        _server(config.engine.endpoint),
        config.prompts.questions_per_document,
        config.prompts.second_attempt,
        # Left out while it is not set, as it was not there before.
        *([config.engine.speculation] if config.engine.speculation else []),
    ]
    prompted = {stage: [*engine, plan.prompts[stage].digest] for stage in generated.STAGES}
    prompted["answer"] += _beside_answers(plan)
    # The judge says nothing of questions.
    least = config.gates.min_faithfulness
    gates = config.gates.model_dump(mode="json", exclude={"min_faithfulness"})
    gated = [prompted["rewrite"], prompted["score"], gates]
    found: dict[str, Any] = {
        "embed": embed,
        BELOW: [plan.encoder_digest, config.density.model_dump(mode="json"), selecting],
        **prompted,
        KEPT: gated,
        ANSWERED: [*gated, prompted["answer"], *([] if least is None else [least.value])],
        "finetune": (training := [plan.finetune_identity, of_a_step(config.finetune)]),
        "evaluate": [
            *training,
            config.evaluate.model_dump(mode="json", exclude=_OF_NO_EVALUATION),
            plan.tasks_identity,
        ],
    }
    return {name: digest.of_value(value) for name, value in found.items()}


def _beside_answers(plan: Plan) -> list[Any]:
    """What else decides how long an answer takes: nothing, unless it is judged or ranked."""
    judge = plan.prompts.get("judge")
    count = plan.config.prompts.answers_per_question
    ranked = [count, plan.finetune_identity] if count > 1 else []
    return [*([judge.digest] if judge else []), *ranked]


def of_a_step(settings: Finetune) -> dict[str, Any]:
    """The settings of a training that decide how long a step takes, as they were before there were others."""
    training = settings.model_dump(mode="json", exclude=_OF_NO_STEP)
    return {name: value for name, value in training.items() if _LATER.get(name, ...) != value}


def _server(endpoint: Endpoint | None) -> list[Any] | None:
    """What makes a server another one, or asked in another way; its answers' time-out does not."""
    return [endpoint.url, endpoint.served_model, endpoint.concurrency] if endpoint else None
