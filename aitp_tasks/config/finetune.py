"""``finetune``: the base model, and how it is trained."""

from typing import Literal

from pydantic import Field

from aitp_tasks.config.model import Model
from aitp_tasks.config.section import Share


class Finetune(Model):
    """DeepSpeed fine-tuning of the base model on the new dataset version."""

    processes: int = Field(1, ge=1, title="Processes", description="Ranks on this machine, one a device.")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, title="ZeRO stage", description="DeepSpeed's partitioning.")
    epochs: float = Field(3.0, gt=0, title="Epochs", description="Passes over the dataset version.")
    max_steps: int = Field(
        -1, ge=-1, title="Steps", description="Optimiser steps; -1 trains for the epochs given."
    )
    learning_rate: float = Field(2e-6, gt=0, lt=1, title="Learning rate", description="Peak, linear decay.")
    warmup_share: Share = Field(0.03, title="Warm-up", description="Share of the steps.")
    batch_size: int = Field(4, ge=1, title="Examples per device", description="In one forward pass.")
    gradient_accumulation: int = Field(
        8, ge=1, title="Gradient accumulation", description="Forward passes per optimiser step."
    )
    max_length: int = Field(
        2048, ge=16, title="Longest example", description="In tokens; longer ones are cut."
    )
    chat_template: str | None = Field(
        None,
        title="Training chat template",
        description="Jinja file with generation marks; by default the model's own, or TRL's for its family.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="Of weights, order and dropout.")
