"""``workers``: to which workers Airflow gives the stages that take GPUs."""

from typing import Annotated

from pydantic import Field

from aitp_tasks.config.section import Section

Queue = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=256)]


class Place(Section):
    """To which workers some stages go; by default to those that run all others."""

    queue: Queue | None = Field(
        None,
        title="Queue",
        description="Of Celery's: workers that name it run these stages, which wait until there is one.",
    )
    pod_template: str | None = Field(
        None,
        min_length=1,
        title="Pod template",
        description="YAML file of the pod in which KubernetesExecutor runs a task of these stages; it asks "
        "for as many GPUs as a task leases.",
    )


class Workers(Section):
    """To which workers Airflow gives the stages that take GPUs; all others go where its own settings say.

    Airflow places tasks and not runs: what counts is the deployment's own configuration, also
    for a run that names another one beside it. LocalExecutor knows neither queues nor pods.
    Decides no result.
    """

    encoder: Place = Field(default_factory=Place, title="Encoder", description="embed and assemble.")
    engine: Place = Field(default_factory=Place, title="Engine", description="rewrite, score and answer.")
    finetune: Place = Field(default_factory=Place, title="Fine-tune", description="finetune and evaluate.")
