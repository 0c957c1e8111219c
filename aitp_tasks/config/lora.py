"""``finetune.lora``: small matrices that are trained beside the base's weights, which stay as they are."""

from typing import Annotated

from pydantic import Field

from aitp_tasks.config.section import Section

Targets = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class Lora(Section):
    """LoRA: of each targeted layer two narrow matrices are trained, whose product is added to its weight."""

    rank: int = Field(16, ge=1, le=4096, title="Rank", description="Width of the matrices.")
    alpha: int = Field(
        32, ge=1, title="Alpha", description="The product is multiplied by alpha and divided by the rank."
    )
    dropout: float = Field(0.0, ge=0, lt=1, title="Dropout", description="On what the matrices read.")
    quantised: bool = Field(
        False,
        title="QLoRA",
        description="Train beside weights in 4 bits, for a quarter of the memory; needs bitsandbytes.",
    )
    target_modules: Targets | None = Field(
        None,
        title="Targeted layers",
        description="Names of linear layers, such as q_proj; null: all but the one that gives the logits.",
    )
