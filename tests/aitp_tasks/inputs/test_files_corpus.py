"""Corpora as they are published, damaged and mistaken: who wrote the cases had not read the code."""

from pathlib import Path

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.inputs import agreement, footers, listing
from aitp_tasks.inputs.listing import Listing
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.inputs.shards import Corpus
from aitp_tasks.records.manifest import Ledger, commonest
from aitp_tasks.storage import Storage, open_storage
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.inputs.case import Case
from tests.aitp_tasks.inputs.corpus_cases import CASES

FOLDER = "corpus/news/"
#: What datasets leaves beside its data is left out by convention and counted, not named.
ABOUT_FILES = {"dataset_dict.json", "dataset_info.json", "state.json"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_corpus_is_read_whole_or_refused_by_name(case: Case, root: Path, configure: Configure) -> None:
    storage = written(case, root)
    changes = {
        name: case.settings[name] for name in ("text_columns", "failure_budget") if name in case.settings
    }
    if "source_column" in case.settings:
        changes["difference"] = {"source_column": case.settings["source_column"]}
    config = configure(**changes)
    if case.refused:
        with pytest.raises((InputError, BudgetExceededError)) as caught:
            read(storage, config, case.settings.get("unknown_files"))
        message = str(caught.value).lower()
        assert [word for word in case.refused if word.lower() not in message] == [], message
        return
    found, texts, sources = read(storage, config)
    assert texts == case.texts
    assert case.sources is None or sources == case.sources
    unknown = {key.removeprefix(FOLDER) for key in found.unknown}
    assert unknown == {name for name in case.unknown if name.rpartition("/")[2] not in ABOUT_FILES}
    assert found.skipped.get("hidden files", 0) == case.hidden


def written(case: Case, root: Path) -> Storage:
    """The case's files as the only ones of a dump."""
    for shard in (root / FOLDER).iterdir():
        shard.unlink()
    for name, data in case.files().items():
        path = root / FOLDER / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return open_storage(f"file://{root}")


def read(
    storage: Storage, config: RunConfig, unknown_files: str | None = None
) -> tuple[Listing, list[str | None], list[str]]:
    """A dump as plan and embed read it: what is there, its texts, and their sources."""
    found = listing.read(storage, "corpus", "news")
    if unknown_files == "refuse" and found.unknown:
        raise InputError(found.named())
    known = footers.read(storage, "corpus", "news", found.shards)
    if problems := agreement.problems(storage, "corpus", found.shards, known, config):
        raise InputError("; ".join(problems))
    texts: list[str | None] = []
    sources: list[str] = []
    for info, footer in zip(found.shards, known, strict=True):
        reader = Corpus(storage, info, config.text_columns)
        items = list(reader.texts())
        refused = [item for item in items if isinstance(item, Refusal)]
        ledger = Ledger(
            rows_in=len(items),
            rows_out=len(items) - len(refused),
            quarantined={"refused": len(refused)} if refused else {},
        )
        said = commonest(item.message for item in refused)
        ledger.check_usable(storage.uri(info.key), "quarantine", said)
        ledger.check_budget(config.failure_budget, storage.uri(info.key), "quarantine", said)
        assert footer is not None
        assert footer.estimated or footer.rows == len(items)
        whole = dict(reader.pick([row for row, item in enumerate(items) if isinstance(item, str)]))
        assert whole == {row: item for row, item in enumerate(items) if isinstance(item, str)}
        texts += [None if isinstance(item, Refusal) else item for item in items]
        if config.difference.source_column is not None:
            sources += reader.sources(config.difference.source_column)
            assert len(sources) == len(texts)
    return found, texts, sources
