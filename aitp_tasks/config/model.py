"""A model, however it is named; what it contains is read by ``machine.models``."""

from pathlib import Path

from pydantic import Field

from aitp_tasks.config.section import Section


class Model(Section):
    """A model by local folder, by hub name with a pinned revision, or by storage prefix."""

    model: str = Field(
        title="Model",
        description="A local folder, a hub name with its revision, or s3://bucket/prefix.",
        min_length=1,
    )
    revision: str | None = Field(
        None,
        title="Revision",
        description="Of a hub model, where it is required: a commit, or a branch or tag that plan replaces "
        "by its commit.",
    )

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a model that lies elsewhere."""
        return Path(self.model) if self.model.startswith("/") else None

    @property
    def stored(self) -> bool:
        """Whether it is a storage prefix; ``aitp_tasks.machine.models`` copies it here."""
        return self.model.startswith(("s3://", "file://"))

    @property
    def on_hub(self) -> bool:
        """Whether it is a hub name."""
        return self.folder is None and not self.stored

    @property
    def label(self) -> str:
        """How it is called where people read, in datasets too: without where it lies."""
        if self.on_hub:
            return f"{self.model}@{self.revision}"
        return self.model.rstrip("/").rpartition("/")[2]
