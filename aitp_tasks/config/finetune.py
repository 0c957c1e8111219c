"""``finetune``: the base model, and how it is trained."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aitp_tasks.config.lora import Lora
from aitp_tasks.config.model import Model
from aitp_tasks.config.section import Share


class LongExamples(StrEnum):
    """What becomes of conversations that are longer than an example may be."""

    CUT = "cut"
    DROP = "drop"
    SPLIT_TURNS = "split_turns"


class Offload(StrEnum):
    """What lies in the machine's memory instead of the GPUs'."""

    NONE = "none"
    OPTIMIZER = "optimizer"
    PARAMETERS = "parameters"


class Tracker(StrEnum):
    """A tracking server's client, by the name of its package."""

    MLFLOW = "mlflow"
    TRACKIO = "trackio"
    WANDB = "wandb"


class Finetune(Model):
    """DeepSpeed fine-tuning of the base model on the new dataset version."""

    processes: int = Field(1, ge=1, title="Processes", description="Ranks on each machine, one a device.")
    nodes: int = Field(
        1,
        ge=1,
        le=4096,
        title="Machines",
        description="That train together, each with the same command, told by variables which one it is.",
    )
    hostfile: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        title="Hostfile",
        description="The machines in DeepSpeed's form, the first one first; null: what the variables say.",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(2, title="ZeRO stage", description="DeepSpeed's partitioning.")
    offload: Offload = Field(
        Offload.NONE,
        title="Offload",
        description="Into the machine's memory: the optimiser, from ZeRO 2 on, or weights too, under ZeRO 3. "
        "Slower; decides no result.",
    )
    deepspeed: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        title="DeepSpeed configuration",
        description="A team's own JSON file, which must not contradict the settings; null: what they say.",
    )
    lora: Lora | None = Field(
        None,
        title="LoRA",
        description="Train an adapter beside the base's weights and merge it; null: all weights.",
    )
    epochs: float = Field(3.0, gt=0, title="Epochs", description="Passes over the dataset version.")
    max_steps: int = Field(
        -1, ge=-1, title="Steps", description="Optimiser steps; -1 trains for the epochs given."
    )
    learning_rate: float = Field(2e-6, gt=0, lt=1, title="Learning rate", description="Its peak.")
    warmup_share: Share = Field(
        0.03, title="Warm-up", description="Share of the steps in which the rate rises to its peak."
    )
    scheduler: Literal["linear", "cosine"] = Field(
        "linear", title="Learning rate's decay", description="How the rate falls from its peak to 0."
    )
    weight_decay: float = Field(
        0.0, ge=0, lt=1, title="Weight decay", description="AdamW's; biases and norms have none."
    )
    max_grad_norm: float = Field(
        1.0, ge=0, title="Largest gradient", description="Norm to which gradients are clipped; 0 clips none."
    )
    neftune_noise: float = Field(
        0.0, ge=0, le=100, title="NEFTune", description="Noise on embeddings (its alpha); 0 adds none."
    )
    batch_size: int = Field(
        4, ge=1, title="Examples per device", description="In one forward pass; with packing, rows."
    )
    gradient_accumulation: int = Field(
        8, ge=1, title="Gradient accumulation", description="Forward passes per optimiser step."
    )
    max_length: int = Field(2048, ge=16, title="Longest example", description="In tokens.")
    long_examples: LongExamples = Field(
        LongExamples.CUT,
        title="Longer examples",
        description="Are cut at max_length, dropped, or split at users' turns; all are counted.",
    )
    packing: bool = Field(
        False,
        title="Packing",
        description="Fills rows of max_length tokens with whole examples that do not see each other.",
    )
    group_by_length: bool = Field(
        False,
        title="Grouping by length",
        description="Takes examples of similar length together, so that less is padded; not with packing.",
    )
    chat_template: str | None = Field(
        None,
        title="Training chat template",
        description="Jinja file with generation marks; by default the model's own, or TRL's for its family.",
    )
    gradient_checkpointing: bool | None = Field(
        None,
        title="Gradient checkpointing",
        description="Trades a third of the speed for memory; by default on GPUs only. Decides no result.",
    )
    save_steps: Annotated[int, Field(ge=1)] | None = Field(
        None,
        title="Steps between states",
        description="A killed run goes on from the last state; null: save_minutes alone says when.",
    )
    save_minutes: Annotated[float, Field(gt=0)] | None = Field(
        30.0, title="Minutes between states", description="The same by the clock; null: save_steps alone."
    )
    save_number: int = Field(
        2, ge=1, title="States kept", description="The newest ones, until it is trained."
    )
    eval_steps: Annotated[int, Field(ge=1)] | None = Field(
        None,
        title="Steps between validations",
        description="After so many steps, and the last, the loss on half of what evaluate.held_out keeps out "
        "is measured; null: never.",
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None,
        title="Patience",
        description="Ends the training after so many validations in a row without a new best; null: never.",
    )
    keep_best: bool = Field(
        False,
        title="Best weights",
        description="The checkpoint has the weights of the best validation, not those of the last step.",
    )
    report_to: tuple[Tracker, ...] = Field(
        (),
        title="Trackers",
        description="Where losses are reported to while it trains; server and secrets are the environment's. "
        "Decides no result.",
    )
    timeout_minutes: float = Field(
        30.0,
        gt=0,
        title="Patience of ranks",
        description="How long a rank waits for the others before the training fails.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="Of weights, order and dropout.")

    @property
    def ranks(self) -> int:
        """Of all machines."""
        return self.processes * self.nodes

    @property
    def examples_per_step(self) -> int:
        """Of all ranks; with packing, rows."""
        return self.ranks * self.batch_size * self.gradient_accumulation

    @property
    def on_one_machine(self) -> Self:
        """The same training, with as many examples a step, by the ranks of one machine."""
        accumulation = self.gradient_accumulation * self.nodes
        changes = {"nodes": 1, "hostfile": None, "gradient_accumulation": accumulation}
        return self.model_copy(update=changes) if self.nodes > 1 else self

    @model_validator(mode="after")
    def _rows_or_groups(self) -> Self:
        if self.packing and self.group_by_length:
            raise ValueError(
                "group_by_length has no effect with packing, whose rows are equally long: unset one"
            )
        return self

    @model_validator(mode="after")
    def _chooses_by_validations(self) -> Self:
        chosen = {"patience": self.patience is not None, "keep_best": self.keep_best}
        named = [f"{name}={getattr(self, name)}" for name, is_set in chosen.items() if is_set]
        if named and self.eval_steps is None:
            raise ValueError(
                f"{' and '.join(named)} go by validations, and eval_steps=null makes none: set eval_steps, "
                "to 100 for instance"
            )
        return self

    @model_validator(mode="after")
    def _keeps_the_best_where_it_is_whole(self) -> Self:
        if self.keep_best and self.nodes > 1:
            raise ValueError(
                f"keep_best needs the best state whole on each machine, and with nodes={self.nodes} each has "
                "its share: take keep_best out (patience works), or train on one machine"
            )
        return self

    @model_validator(mode="after")
    def _reports_once_to_each(self) -> Self:
        if len(set(self.report_to)) < len(self.report_to):
            raise ValueError(f"report_to={[*map(str, self.report_to)]} names one twice: name it once")
        return self

    @model_validator(mode="after")
    def _quantised_weights_are_whole(self) -> Self:
        if self.lora is not None and self.lora.quantised and self.zero_stage == 3:
            raise ValueError(
                "finetune.lora.quantised needs finetune.zero_stage=2 or less, and it is 3, which would cut "
                "up weights in 4 bits: lower it, or take quantised out"
            )
        return self

    @model_validator(mode="after")
    def _offloads_what_is_shared_out(self) -> Self:
        least = {Offload.NONE: 0, Offload.OPTIMIZER: 2, Offload.PARAMETERS: 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(
                f"finetune.offload={self.offload} needs zero_stage={least} at least, and it is "
                f"{self.zero_stage}: raise it, or take offload out"
            )
        return self
