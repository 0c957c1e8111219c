"""``difference``: which documents count as hardly covered, and which of them are drawn."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from aitp_tasks.config.section import Section

#: Documents of a part where nobody says how many, and nothing tells how long they take.
DOCUMENTS_PER_PART = 5000


class Criterion(StrEnum):
    """What makes a document belong to the difference set."""

    DENSITY_RATIO = "density_ratio"
    SFT_DENSITY = "sft_density"
    AUTHORS_COMPAT = "authors_compat"
    KNN = "knn"
    GAUSSIAN = "gaussian"


class Sampling(StrEnum):
    """How documents of the difference set are drawn."""

    UNIFORM = "uniform"
    STRATIFIED = "stratified"


class Allocation(StrEnum):
    """How the documents that are drawn are shared among the regions of the difference set."""

    EVEN = "even"
    YIELD = "yield"


class Quality(StrEnum):
    """Which documents are worth drawing, by their texts."""

    NONE = "none"
    DEFAULT = "default"


class Difference(Section):
    """The difference set and the sample that is rewritten."""

    criterion: Criterion = Field(
        Criterion.DENSITY_RATIO,
        title="Criterion",
        description="density_ratio keeps p_sft / p_corpus < tau; sft_density keeps p_sft < tau (the paper); "
        "authors_compat is the published script; knn keeps documents whose mean cosine to their nearest "
        "SFT examples, in full dimension, is below tau; gaussian keeps p_sft / p_corpus < tau as "
        "density_ratio does, of one Gaussian for each set in full dimension.",
    )
    neighbours: int = Field(
        10,
        ge=1,
        le=1000,
        title="Neighbours",
        description="With knn: how many of the nearest SFT examples the mean is over.",
    )
    tau: float = Field(
        1.0,
        gt=0,
        title="Tau",
        description="Documents below this threshold are selected; unused where a target is set. With knn it "
        "is a cosine, 1.0 or less: take it from the quantiles that a first run tells, or set a target. With "
        "gaussian it is the ratio, and what is told are logarithms, often below -700: set a target.",
    )
    target_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, title="Share to select", description="Sets tau so that this share of the documents lies below."
    )
    target_documents: Annotated[int, Field(ge=1)] | None = Field(
        None,
        title="Number to select",
        description="Sets tau so that so many documents lie below.",
    )
    sampling: Sampling = Field(
        Sampling.UNIFORM,
        title="Sampling",
        description="uniform over the difference set, or stratified over cells of one bandwidth.",
    )
    max_documents: int = Field(
        732_000, ge=1, title="Documents to rewrite", description="Size of the sample of the difference set."
    )
    allocation: Allocation = Field(
        Allocation.EVEN,
        title="Allocation",
        description="even gives every document of the difference set the same chance. yield draws more where "
        "more pairs come of the tokens that are generated: a pilot is rewritten first, and the rest follows "
        "what it has given; on a line whose earlier nights have told that, no pilot is needed.",
    )
    regions: int = Field(
        8,
        ge=2,
        le=64,
        title="Regions",
        description="Into so many regions, each with as many documents of the first night, the plane is cut; "
        "by them yields are told, and allocation=yield allots.",
    )
    pilot_documents: int = Field(
        100,
        ge=1,
        title="Documents of a pilot",
        description="So many of each region are rewritten first where allocation=yield has nothing to go by; "
        "at most half of an even share, and one part.",
    )
    floor_share: float = Field(
        0.25,
        gt=0,
        le=1,
        title="Floor of a region",
        description="With allocation=yield, every region keeps this share of an even one, whatever it gives.",
    )
    source_column: str | None = Field(
        None,
        min_length=1,
        title="Source column",
        description="Path of the column that says where a document is from; by default its dump.",
    )
    max_per_source: Annotated[int, Field(ge=1)] | None = Field(
        None, title="Documents per source", description="Most documents drawn of one source."
    )
    quality: Quality = Field(
        Quality.NONE,
        title="Quality filter",
        description="default draws no document that is short, repeats itself, is a list, symbols or "
        "boilerplate, or of no clear language; others come in its place.",
    )
    documents_per_part: Annotated[int, Field(ge=1)] | None = Field(
        None,
        title="Documents per part",
        description="A part is one unit of the prompt stages. By default about an hour of work, as earlier "
        "runs of the dataset or a rehearsal tell, and 5000 documents where they do not; more where there "
        "would be over 1,000 parts.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="Of the hash that draws the sample.")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.target_share is not None and self.target_documents is not None:
            raise ValueError("target_share and target_documents are both given: tau follows from one of them")
        return self

    @model_validator(mode="after")
    def _cosine(self) -> Self:
        wanted = self.target_share is not None or self.target_documents is not None
        if self.criterion is Criterion.KNN and self.tau > 1 and not wanted:
            raise ValueError(
                f"tau={self.tau:g} is no cosine, which criterion knn compares with it: at most 1"
            )
        return self
