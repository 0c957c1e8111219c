"""What a backend and the tokeniser need to know of an encoder, whatever computes it."""

from pydantic import BaseModel, ConfigDict


class Facts(BaseModel):
    """Limits, prompt and shape of an encoder."""

    model_config = ConfigDict(frozen=True)

    dimension: int
    #: Largest number of tokens, special ones included; None when the model names none.
    max_tokens: int | None
    #: Put before every text (the model's default prompt).
    prompt: str
    #: Tokens of the prompt with those before it; some models leave them out of the mean.
    prompt_tokens: int
    lower_case: bool
    normalised: bool
    pad: int
    #: Precision of the compiled model; None when there is none.
    precision: str | None = None
