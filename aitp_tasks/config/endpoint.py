"""A server of the user's own, for the encoder or the engine."""

from pydantic import Field

from aitp_tasks.config.section import Section


class Endpoint(Section):
    """A server of the user's own that speaks OpenAI's protocol.

    Its key, if it wants one, is read from the variable ``AITP_EMBEDDINGS_API_KEY`` for
    an encoder, ``AITP_ENGINE_API_KEY`` for an engine.
    """

    url: str = Field(
        title="URL", description="Up to and including /v1.", pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$"
    )
    served_model: str = Field(
        title="Served model", description="The model's name on the server.", min_length=1
    )
    concurrency: int = Field(
        8, ge=1, le=1024, title="Concurrency", description="Requests under way at the same time."
    )
    timeout_seconds: float = Field(
        120.0, gt=0, title="Timeout", description="Longest wait for one answer, in seconds."
    )
    retries: int = Field(
        8, ge=0, title="Retries", description="Of one request, after a back-off that doubles."
    )
