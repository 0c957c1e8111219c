"""``encoder``: which model turns texts into vectors, and how much of a text it reads."""

from enum import StrEnum

from pydantic import Field

from aitp_tasks.config.endpoint import Endpoint
from aitp_tasks.config.model import Model


class LongTexts(StrEnum):
    """What becomes of a text that has more tokens than the encoder takes."""

    TRUNCATE = "truncate"
    WINDOWS = "windows"


class Encoder(Model):
    """The sentence encoder that turns texts into vectors."""

    max_tokens: int = Field(
        8192,
        ge=8,
        title="Tokens per text",
        description="Also limited by the model itself.",
    )
    long_texts: LongTexts = Field(
        LongTexts.TRUNCATE,
        title="Longer texts",
        description="truncate keeps the first tokens (the paper); windows takes the mean over windows.",
    )
    max_windows: int = Field(
        64,
        ge=1,
        title="Windows per text",
        description="With windows: a text of more is quarantined as too_long.",
    )
    batch_tokens: int | None = Field(
        None,
        ge=64,
        title="Tokens per batch",
        description="Padded tokens of one forward pass; by default 1,024 on a CPU and 131,072 on a GPU.",
    )
    endpoint: Endpoint | None = Field(
        None, title="Endpoint", description="Embed on this server instead of in the task."
    )
