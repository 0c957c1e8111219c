"""The stages of the pipeline, one module each: what it reads, what it writes, what it guarantees.

In the order of the story. The paper's three steps are ``embed`` to ``difference``
(the difference set), ``rewrite`` to ``answer`` (questions and answers of it) and
``assemble`` to ``finetune`` (training on both); ``allocate`` comes where a pilot of the
difference set was answered first, and has nothing to do otherwise; ``plan`` freezes what a run is made
of, ``evaluate`` asks whether it has helped, ``promote`` acts on the answer, ``report``
shows what came of it. No stage imports another: what one has left, the next reads
through ``records``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage as command line and DAG show it; ``fans_out`` names the count of its units."""

    name: str
    does: str
    fans_out: str = ""


STAGES = (
    Stage("plan", "list the shards, pack them into units, freeze the configuration"),
    Stage("embed", "turn the texts of one group of shards into vectors", "embed_units"),
    Stage("merge", "fit the projection, index the SFT set"),
    Stage("density", "project one group, spread it over the density grid", "embed_units"),
    Stage("index", "merge the corpus index, say where each document lies"),
    Stage("difference", "select the documents that the SFT set hardly covers"),
    Stage("allocate", "draw what a pilot of each region has left, where it pays"),
    Stage("rewrite", "rewrite one part's documents into questions", "parts"),
    Stage("score", "score one part's questions and gate them", "parts"),
    Stage("answer", "answer one part's questions with their documents", "parts"),
    Stage("assemble", "join pairs and SFT set into a new dataset version"),
    Stage("finetune", "fine-tune the base model on the dataset version"),
    Stage("evaluate", "compare the checkpoint with base and SFT set alone on held-out data"),
    Stage("promote", "make the version and its checkpoint the latest, if that follows"),
    Stage("report", "write the run's report"),
)
