"""The front matter: what the hub's own library and datasets read of it."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard

from aitp_tasks.dataset import front
from tests.aitp_tasks import handed
from tests.aitp_tasks.dataset import card_cases

CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}


def told(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "settings": handed.settings(),
        "languages": ["en"],
        "info": {"splits": [{"name": "train", "num_examples": 5}]},
    } | changes
    return front.values(**given)


@pytest.mark.parametrize(("rows", "category"), card_cases.SIZES)
def test_a_size_is_one_of_the_hubs_categories(rows: int, category: str) -> None:
    # Of all splits together.
    info = {"splits": [{"name": name, "num_examples": number} for name, number in (("a", rows), ("b", 0))]}
    assert told(info=info)["size_categories"] == [category]


def test_the_largest_sizes_have_a_category_too() -> None:
    assert [front.size_category(10**power) for power in (10, 11, 12)] == ["10B<n<100B", "100B<n<1T", "n>1T"]


def test_texts_stay_texts() -> None:
    values = told(languages=card_cases.LANGUAGES_KEPT, tags=card_cases.TAGS_KEPT)
    text = front.written(values) + "# Title\n"
    assert front.split(text) == (values, "# Title\n")
    assert yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n")) == values
    read = DatasetCard(text).data.to_dict()
    assert (read["language"], read["tags"]) == (card_cases.LANGUAGES_KEPT, card_cases.TAGS_KEPT)


@pytest.mark.parametrize("tag", ["a\x00b", "a\x1bb", "a\nb", "a\u2028b", "\ud800", "a\n---\nb", "a---"])
def test_whatever_a_text_holds_it_is_read_again(tag: str) -> None:
    values = told(tags=[tag])
    text = front.written(values).encode("ascii").decode()
    assert front.split(text + "---\n# Title\n") == (values, "---\n# Title\n")


def test_no_language_and_no_licence_are_claimed_where_none_is_known() -> None:
    values = told(languages=[])
    assert not {"language", *front.LICENCE_KEYS} & values.keys()


def test_a_licence_is_replaced_where_it_stood() -> None:
    values = told(settings=handed.settings(license="mit"))
    own = handed.settings(license="other", license_name="acme-1", license_link="https://acme.example/terms")
    changed = front.relicensed(values, own)
    assert list(changed)[:4] == ["pretty_name", "license", "license_name", "license_link"]
    assert front.relicensed(changed, handed.settings(license="mit")) == values
    assert list(front.relicensed(changed, handed.settings(license="mit"))) == list(values)
    assert front.relicensed(values, handed.settings()) == told()


@pytest.mark.parametrize("with_tools", [False, True])
def test_features_and_sizes_are_those_that_datasets_finds(tmp_path: Path, with_tools: bool) -> None:
    given = handed.rows(pairs=3, sft=4)
    if with_tools:
        turns = [*given[0]["messages"][:1], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
        given[0] = given[0] | {"messages": turns, "tools": [CALL]}
    folder = tmp_path / "version"
    folder.mkdir()
    handed.version(folder, given)
    values, _ = front.split((folder / "README.md").read_text())
    (folder / "README.md").unlink()
    read = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    info = values["dataset_info"]
    assert info["features"] == read.features._to_yaml_list()
    (split,) = info["splits"]
    assert split == {
        "name": "train",
        "num_bytes": read.info.splits["train"].num_bytes,
        "num_examples": len(read),
    }
    assert (info["download_size"], info["dataset_size"]) == (read.info.download_size, read.info.dataset_size)


def test_a_version_without_rows_has_a_front_matter(tmp_path: Path) -> None:
    handed.version(tmp_path, [], languages={})
    values, _ = front.split((tmp_path / "README.md").read_text())
    assert values["size_categories"] == ["n<1K"]
    assert values["dataset_info"]["splits"] == [{"name": "train", "num_bytes": 0, "num_examples": 0}]
    assert len(pq.read_table(tmp_path / "data")) == 0
