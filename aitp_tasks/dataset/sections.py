"""What the card says of a version, section by section, as Markdown.

All figures come from what the version's files were written of and from the manifests of the
run that made it. No text of a document or a pair stands here, only names and numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aitp_tasks.config import Assemble, Marks, RunConfig, licences
from aitp_tasks.dataset import limits
from aitp_tasks.dataset.markdown import NAMES, cell, code, counted, interval, percent, table
from aitp_tasks.records import data_files
from aitp_tasks.records.contents import Contents, MarksHeld, Share
from aitp_tasks.records.plan import FrozenPrompt

#: The picture of what the new pairs have gained, in the version's folder.
PICTURE = "coverage.png"
_KINDS = {"sft": "SFT examples", "new_pairs": "new pairs", "earlier_pairs": "pairs of earlier versions"}
_LOADING = """\
All files have the rows in one order, that of a hash. `FOLDER` is this folder, or for the first two the
repository's name:

- datasets, TRL: `load_dataset("FOLDER", split="train")`; the conversations are in `messages`
- axolotl: `datasets: [{{path: FOLDER, type: chat_template, field_messages: messages}}]`
- pandas: `read_parquet({files})`; polars and DuckDB: `read_parquet("FOLDER/data/train-*.parquet")`
- LLaMA-Factory: `dataset_dir: FOLDER`, `dataset: {line}` or `{line}_alpaca`
- Croissant: `croissant.json`, which has the SHA-256 of each file of rows"""


_VALIDATION = """

`validation` is a split of its own, of SFT examples and pairs that nothing is trained on: leave it out of a
training. With datasets it is `split="validation"`; all of `data/` is both splits. The JSON files do
not have it."""


@dataclass(frozen=True)
class Facts:
    """What is told of a version.

    Attributes:
        config: of the run that makes it.
        prompts: by stage.
        run: its prefix, which ends with the digest of its configuration and inputs.
        figures: of its ``assemble`` manifest.
        steps: of the run, and how many each leaves or takes away; see ``funnel``.
        languages: of the rows that were looked at, how many are in each.
    """

    config: RunConfig
    prompts: Mapping[str, FrozenPrompt]
    run: str
    figures: Mapping[str, Any]
    steps: Sequence[tuple[str, int]]
    languages: Mapping[str, int]

    @property
    def contents(self) -> Contents:
        """Of the version."""
        return Contents.model_validate(self.figures["contents"])

    @property
    def name(self) -> str:
        """Of the line, and of the version."""
        return f"{self.config.assemble.dataset} {self.figures['version']}"


def of_version(facts: Facts, evaluation: str) -> dict[str, str]:
    """All sections, by the names that a template has for them.

    Args:
        facts: of the version.
        evaluation: the section that is filled when the version is handed on.
    """
    lines = {
        "summary": _summary(facts),
        "made_of": _made_of(facts),
        "funnel": _funnel(facts),
        "removals": _removals(facts),
        "coverage": _coverage(facts.figures),
        "prompts": _prompts(facts.prompts),
        "models": _models(facts.contents),
        "limits": limits.of_version(facts.config, facts.languages),
        "licence": [licence(facts.config.assemble)],
        "loading": [*files(facts.contents), *marked(facts.contents.marks), _loading(facts)],
        "reproduce": _reproduce(facts),
    }
    joined = {name: "\n".join(said).strip() for name, said in lines.items()}
    return {"title": facts.name, "evaluation": evaluation, **joined}


def _summary(facts: Facts) -> list[str]:
    figures = facts.figures
    pairs = figures["pairs"] + figures["earlier_pairs"]
    return [
        f"{figures['sft_examples']} examples of the SFT set {code(facts.config.sft)}, and {pairs} pairs "
        "written by a model from documents of a pre-training corpus which that set hardly covers: "
        f"{figures['pairs']} from the dump {code(facts.config.dump)}, {figures['earlier_pairs']} from "
        "earlier versions."
    ]


def _made_of(facts: Facts) -> list[str]:
    figures, contents = facts.figures, facts.contents
    room = "any number" if figures["room"] is None else str(figures["room"])
    given_up = figures["parts_given_up"].values()
    lines = [
        *_shares("kind", {_KINDS[name]: share for name, share in contents.by_kind.items()}, plain=True),
        *_shares("pairs of the dump", contents.by_dump),
        *_shares("source", contents.by_source),
        f"- builds on: {code(figures['base']) if figures['base'] else 'no earlier version'}",
        f"- share of rewritten pairs: {figures['rewritten_share']:.4f} of at most "
        f"{facts.config.assemble.max_rewritten_share:g} (room for {room} pairs)",
        f"- who stays where there is not room for all: {', '.join(figures['order'])}",
    ]
    if given_up:
        documents = sum(part["documents"] for part in given_up)
        lines.append(f"- {len(given_up)} parts of the difference set were given up, {documents} documents")
    if facts.languages:
        told = sum(facts.languages.values())
        lines.append(f"- languages, of {told} rows that tell theirs: {counted(facts.languages)}")
    return [*lines, "", *said(figures["examples"], figures["not_kept"])]


def _shares(what: str, shares: Mapping[str, Share], plain: bool = False) -> list[str]:
    """A table of the largest shares; all others are one line."""
    if not shares:
        return []
    named = list(shares.items())
    rows = [
        (name if plain else cell(name), share.rows, percent(share.share)) for name, share in named[:NAMES]
    ]
    if left := named[NAMES:]:
        count, share = (
            sum(values) for values in zip(*((one.rows, one.share) for _, one in left), strict=True)
        )
        rows.append((f"{len(left)} more", int(count), percent(share)))
    return [*table((what, "rows", "share"), rows), ""]


def _funnel(facts: Facts) -> list[str]:
    return table(("in this run", "how many"), facts.steps)


def _removals(facts: Facts) -> list[str]:
    figures = facts.figures
    removed: Mapping[str, Mapping[str, int]] = figures.get("removed", {})
    rows = [(cell(rule), one["new"], one["earlier"], one["sft"]) for rule, one in removed.items()]
    lines = [
        *(
            table(("rule", "new pairs", "earlier pairs", "SFT examples"), rows)
            if rows
            else ["No rule has left out any."]
        ),
        "",
        *_contamination(figures.get("contamination")),
        *_personal(figures.get("personal_data")),
    ]
    return [
        *lines,
        "What was left out lies with the run that made this version, each row with the rule. Questions and "
        "answers have passed [gates](#how-the-new-pairs-came-about) of their own before.",
    ]


def _contamination(told: Mapping[str, Any] | None) -> list[str]:
    if not told:
        return ["Rows were compared with no evaluation set.", ""]
    rows = [
        (cell(one["evaluation_set"]), one["dataset"], one["rows"], one["hits"], percent(one["share_touched"]))
        for one in told["found"]
    ]
    head = ("evaluation set", "rows of", "compared", "that hold an item", "items touched")
    return ["Before hits were left out:", "", *table(head, rows), ""]


def _personal(told: Mapping[str, Mapping[str, Mapping[str, int]]] | None) -> list[str]:
    if told is None:
        return []
    rows = [
        (dataset, cell(kind), counts["rows"], counts["found"], counts["masked"])
        for dataset, kinds in told.items()
        for kind, counts in kinds.items()
    ]
    head = ("what looks like personal data in", "kind", "rows", "found", "masked")
    return [*table(head, rows), ""]


def _coverage(figures: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Of the corpus, {figures['uncovered']:.4f} is not covered; with the earlier pairs alone it would "
        f"be {figures['uncovered_before']:.4f}."
    ]
    told = figures.get("coverage")
    if not told:
        return lines
    names = {"uncovered": "share of documents not covered", "divergence": "divergence in bits (0: the same)"}
    rows = [
        (title, *(interval(told[name][when]) for when in ("before", "after", "gained")))
        for name, title in names.items()
    ]
    return [
        *lines,
        "",
        f"![Where the density of the dataset has risen by the new pairs]({PICTURE})",
        "",
        *table(("of the corpus of this run", "before the new pairs", "with them", "gained"), rows),
        "",
        f"In brackets {told['level']:.0%} intervals, of a bootstrap over {told['documents']} documents. A "
        f"document is not covered where the dataset's density is below {told['tau']:g} times the corpus's.",
    ]


def _prompts(prompts: Mapping[str, FrozenPrompt]) -> list[str]:
    rows = [
        (stage, cell(f"{stage}@{prompt.version}"), cell(prompt.digest)) for stage, prompt in prompts.items()
    ]
    return table(("prompt", "version", "digest of template, schema and sampling"), rows)


def _models(contents: Contents) -> list[str]:
    rows = [
        (use, cell(model.name), cell(model.revision) if model.revision else "–", cell(model.identity))
        for use, model in contents.models.items()
    ]
    return table(("model", "name", "revision", "identity"), rows)


def licence(settings: Assemble) -> str:
    """What the card says of the licence."""
    rest = (
        "Terms of the SFT set, of the corpus and of the models that wrote the pairs may limit what it may "
        "be used for; nobody has looked at that here."
    )
    if settings.license is None:
        return f"None is claimed. {rest}"
    name = settings.license_name or licences.known()[settings.license]
    told = f"[{name}]({settings.license_link})" if settings.license_link else name
    return f"{told} (`{settings.license}`). {rest}"


def _loading(facts: Facts) -> str:
    split = bool(facts.contents.validation_shards)
    # pandas knows folders and lists, and no patterns.
    files = 'sorted(glob("FOLDER/data/train-*.parquet"))' if split else '"FOLDER/data"'
    told = _LOADING.format(line=facts.config.assemble.dataset, files=files)
    return f"{told}{_VALIDATION if split else ''}"


def _reproduce(facts: Facts) -> list[str]:
    return [
        f"- run: {code(facts.run)}; the last part is the digest of configuration, models, prompts and inputs",
        f"- inputs: {code(facts.figures['inputs'])}, without the version that it builds on",
        f"- command: `aitp plan --config FILE --set dump={facts.config.dump}`, then the other stages; the "
        "plan of the run has the configuration and the entity tag of each shard",
        "- `version.json` has all figures of this version, and the digest of each of its files",
        "",
        "Whoever plans the same inputs again finds this version; models that write at a temperature, or on "
        "other hardware, may write otherwise.",
    ]


def said(examples: Mapping[str, Mapping[str, int]], not_kept: Mapping[str, int]) -> list[str]:
    """Lines on what the examples have besides roles and contents, and where it is lost.

    Args:
        examples: ``kept`` and ``lost``, as ``export.Told`` counts them.
        not_kept: of the SFT set, by name.
    """
    kept, lost = (examples[name] for name in ("kept", "lost"))
    lines = []
    if kept or lost:
        rows = [(cell(name), kept.get(name, ""), lost.get(name, 0)) for name in sorted({*kept, *lost})]
        lines = [*table(("examples with", "of them in `data/`", "not in the JSON files"), rows), ""]
    if not_kept:
        # Names of columns and keys, as the set has them.
        most = sorted(not_kept, key=lambda name: (-not_kept[name], name))
        told = ", ".join(f"{code(name)} of {not_kept[name]}" for name in most[:NAMES])
        told += f", and {len(most) - NAMES} more" if len(most) > NAMES else ""
        lines += [f"Not kept of the SFT set's rows: {told}.", ""]
    return lines


def files(contents: Contents) -> list[str]:
    """Lines on the files with rows: how many each has, and which ones it cannot say."""
    counts = {
        f"`{data_files.pattern(split)}`": (sum(shards.values()), dict[str, int]())
        for split, shards in data_files.splits(contents).items()
    } | {f"`{name}`": (file.rows, file.left_out) for name, file in contents.json_files.items()}
    rows = [(name, rows, counted(left_out) or "none") for name, (rows, left_out) in counts.items()]
    return [*table(("files", "rows", "left out, because the form cannot say them"), rows), ""]


def marked(marks: MarksHeld) -> list[str]:
    """Lines on marks of chat templates in the texts."""
    by_mark = counted(marks.by_mark)
    lines = [
        f"{marks.rows} rows hold marks of well-known chat templates in their texts ({by_mark}), "
        "which a trainer may take for turns.",
        f"In {marks.rows} rows, marks of well-known chat templates were escaped by a backslash behind the "
        f"first character ({by_mark}): take one such backslash away to have the text again.",
    ]
    if not marks.rows:
        return [f"No row holds a mark of a well-known chat template; {marks.dropped} were dropped.", ""]
    return [lines[marks.setting == Marks.ESCAPE], ""]
