"""What stands beside the stages: looks at a run, or ahead of one, or tidies up; no stage needs it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    """One tool as the command line shows it."""

    name: str
    does: str


TOOLS = (
    Tool("init", "write a configuration for this machine and the inputs of a storage"),
    Tool("doctor", "say what this machine has, what each stage will use, and what is missing; try it"),
    Tool("inspect", "say what a folder or a file of inputs is taken for, and what of it is not read"),
    Tool("estimate", "say what a run will take, from earlier runs or a rehearsal on a sample of its input"),
    Tool("search", "find the documents or SFT examples that are nearest to a text"),
    Tool("explain", "say where a document lies, and why it was selected or not"),
    Tool("units", "say which units of embed or density are left, and what each one holds"),
    Tool("dataset", "list, show, compare, take back or copy versions of the dataset, or mark pairs of it"),
    Tool("lineage", "say where a pair comes from, step by step, and why it is in the dataset or not"),
    Tool("publish", "hand a version on, to a repository of a hub or to a prefix of a storage"),
    Tool("gc", "tell, or delete, what no version and no unfinished run refers to"),
    Tool("compact", "join small objects of responses, whoever has left them"),
    Tool("indexes", "see that the indexes of the newest runs open, and find what their vectors say"),
    Tool("storage", "tell, and write down, how much there is of each kind, and how it has grown"),
    Tool("line", "begin or end a run on a dataset's line: which dumps it takes, and whose turn it is"),
    Tool("skip", "go on without a part of the difference set that cannot be done"),
    Tool("prompt", "check the prompts, show one filled, or try them on a document and a live engine"),
)

#: The actions of ``dataset``.
DATASET = (
    Tool("list", "list the versions of the dataset"),
    Tool("show", "tell what is known of a version: figures, shares, removals, marks, evaluation"),
    Tool("diff", "compare two versions: what is gone and why, what is new, figures, shares, some pairs"),
    Tool("rollback", "let latest name an earlier version again: the next run builds on that"),
    Tool("export", "copy a version's own files into a folder of this machine"),
    Tool("mark", "write down what you think of a pair"),
)
