"""Search and explanation of a run, and both as commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import digest, tables
from aitp_tasks.records.run import Run
from aitp_tasks.stages import embed, plan
from aitp_tasks.storage import Storage
from aitp_tasks.tools import explain, search
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard
from tests.aitp_tasks.test_cli import aitp

pytestmark = pytest.mark.slow

MakeRun = Callable[..., Run]
HOSTILE = "Sail \x1b[2J away\nfrom here"
TEXTS = [
    *(f"{side} text {row}" for row in range(40) for side in ("Add", "Sail", "Sow")),
    HOSTILE,
    "Sail text 3",
]


@pytest.fixture
def make_run(root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Runs up to a stage; the SFT examples lie where the documents of ``Add`` do."""
    for module in (embed, search):
        monkeypatch.setattr(module, "open_encoder", lambda *_: made.encoder())
    for shard in range(2):
        rows = [{"text": text, "site": text.split()[0].lower()} for text in TEXTS[shard::2]]
        write_shard(root / f"corpus/news/news-{shard:05d}.parquet", rows)
    write_shard(root / "sft/sums/sums-00000.parquet", alpaca(40))

    def make(last: str = "difference", **settings: Any) -> Run:
        config = configure(difference={"tau": 0.5, **settings})
        return made.through(Run.open(plan.execute(config)["run"]), last)

    return make


def place_of(text: str) -> dict[str, Any]:
    number = TEXTS.index(text)
    return {"shard": f"corpus/news/news-{number % 2:05d}.parquet", "row": number // 2, "source": "news"}


def test_a_text_finds_itself(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("index")
    result = search.execute(run, "Sow text 7", k=3)
    assert len(result["matches"]) == 3
    first = result["matches"][0]
    assert first.pop("similarity") > 0.999
    assert first == {**place_of("Sow text 7"), "doc_id": digest.of_text("Sow text 7"), "text": "Sow text 7"}
    assert {match["text"].split()[0] for match in result["matches"]} == {"Sow"}
    assert "Sow text 7" in capsys.readouterr().err


def test_the_sft_set_can_be_searched(make_run: MakeRun) -> None:
    run = make_run("merge")
    (match,) = search.execute(run, "Add 7 and one.\nThe sum is 8.", "sft", 1)["matches"]
    assert (match["shard"], match["row"]) == ("sft/sums/sums-00000.parquet", 7)
    assert match["text"] == "Add 7 and one.\nThe sum is 8."


def test_what_is_printed_moves_no_cursor(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("index")
    capsys.readouterr()
    result = search.execute(run, HOSTILE, k=1)
    assert result["matches"][0]["text"] == HOSTILE
    printed = capsys.readouterr().err
    assert r"Sail \x1b[2J away\nfrom here" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("text", ["", " \n ", "\x00\x01", "\udcff bytes"])
def test_a_text_without_a_vector_is_refused(make_run: MakeRun, text: str) -> None:
    with pytest.raises(InputError, match="the text that is searched for has no vector"):
        search.execute(make_run("index"), text)


def test_none_wanted_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(InputError, match="-k 0 is too small: give 1 or more"):
        search.execute(make_run("plan"), "text", k=0)


def test_a_run_without_an_index_says_what_to_run(make_run: MakeRun) -> None:
    with pytest.raises(InputError, match="index has not been done .* run `aitp index` first"):
        search.execute(make_run("merge"), "text")


def test_a_shard_that_is_gone_has_no_text(make_run: MakeRun, root: Path) -> None:
    run = make_run("index")
    (root / "corpus/news/news-00000.parquet").unlink()
    write_shard(root / "corpus/news/news-00001.parquet", [{"text": "replaced"}])
    result = search.execute(run, "Sow text 7", k=9)
    assert {match["text"] for match in result["matches"]} == {None}
    assert "(its shard was deleted or replaced)" in search.render(result["matches"])


def parts_of(run: Run) -> dict[str, dict[str, Any]]:
    done = run.require_manifest("difference")
    rows = [row for part in run.parts for row in tables.read(run.storage, done.output(part)).to_pylist()]
    return {row["text"]: row for row in rows}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"criterion": "knn"},
        {"criterion": "sft_density", "tau": 0.02},
        {"criterion": "gaussian"},
        {"criterion": "gaussian", "target_documents": 45},
        {"criterion": "sft_density", "target_documents": 45},
    ],
)
def test_a_drawn_document_is_explained_as_it_was_scored(make_run: MakeRun, settings: dict[str, Any]) -> None:
    run = make_run(**settings)
    drawn = parts_of(run)
    text = next(text for text in drawn if text.startswith("Sow"))
    told = explain.execute(run, drawn[text]["doc_id"])
    row = drawn[text]
    assert (told["selected"], told["below_tau"], told["text"]) == (True, True, text)
    assert {name: told[name] for name in ("p_corpus", "p_sft", "ratio", "doc_id")} == {
        name: row[name] for name in ("p_corpus", "p_sft", "ratio", "doc_id")
    }
    assert told["coordinates"] == [row["x"], row["y"]]
    column = {"knn": "similarity", "sft_density": "p_sft", "gaussian": "log_ratio"}.get(
        told["criterion"], "ratio"
    )
    assert told["score"] == row[column]
    assert told["part"] in run.parts
    assert [match["doc_id"] for match in told["nearest_sft"]] == row["sft_doc_ids"]
    assert told["nearest_sft"][0]["text"].startswith("Add ")


def test_a_covered_document_is_told_so(make_run: MakeRun) -> None:
    told = explain.execute(make_run(), digest.of_text("Add text 5"))
    assert (told["selected"], told["below_tau"], told["part"]) == (False, False, None)
    assert told["reason"] == "covered, its score is not below tau"
    assert told["score"] >= told["tau"]


def test_a_document_that_was_not_drawn_is_told_so(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(max_documents=1)
    (drawn,) = parts_of(run)
    other = next(text for text in TEXTS if text.startswith("Sail") and text != drawn)
    capsys.readouterr()
    told = explain.execute(run, digest.of_text(other)[:10].upper())
    assert (told["selected"], told["below_tau"]) == (False, True)
    assert "below tau but not drawn, as 1 of " in told["reason"]
    printed = capsys.readouterr().err
    assert "max_documents=1" in printed
    assert "nearest SFT examples" in printed


def test_nothing_selected_has_no_part(make_run: MakeRun) -> None:
    told = explain.execute(make_run(tau=1e-250), digest.of_text("Sail text 1"))
    assert (told["selected"], told["part"]) == (False, None)


def test_the_source_is_the_source_columns(make_run: MakeRun) -> None:
    run = make_run(source_column="site")
    assert explain.execute(run, digest.of_text("Sow text 2"))["source"] == "sow"


@pytest.mark.parametrize(
    ("doc_id", "message"),
    [
        ("abc", "'abc' is no document id: give 8 to 32 hexadecimal digits"),
        ("g" * 10, "is no document id"),
        ("0" * 33, "is no document id"),
        ("\x1b[2Jabcdef", r"'\\x1b\[2Jabcdef' is no document id"),
        ("0123456789", "no document of news has an id that starts with 0123456789: take one from"),
    ],
)
def test_ids_that_name_no_document_are_refused(make_run: MakeRun, doc_id: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain.execute(make_run(), doc_id)


def test_a_prefix_of_several_documents_is_refused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    monkeypatch.setattr(explain, "_PREFIX", explain.re.compile("[0-9a-f]+"))
    with pytest.raises(InputError, match=r"documents have ids that start with 1, among them 1.*: give more"):
        explain.execute(run, "1")


def test_a_table_of_other_rows_is_named(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    monkeypatch.setattr(explain.tables, "read", lambda *arguments: _swapped(*arguments))
    with pytest.raises(InputError, match="has another document in row .* than the index"):
        explain.execute(run, digest.of_text("Add text 5"))


def _swapped(storage: Storage, key: str, columns: list[str] | None = None) -> Any:
    import pyarrow.parquet as pq

    table = pq.read_table(storage.root.removeprefix("file://") + f"/{key}", columns=columns)
    return table.set_column(0, "doc_id", table["doc_id"].take(np.roll(np.arange(len(table)), 1)))


def test_both_are_commands(configure: Configure, root: Path) -> None:
    run = made.through(Run.open(plan.execute(configure(difference={"tau": 1e9}))["run"]), "difference")
    found = aitp("search", "rivers, ports and grain", "--run", run.uri, "-k", "3")
    assert found.returncode == 0, found.stderr
    matches = json.loads(found.stdout)["matches"]
    assert found.stdout.count("\n") == 1
    assert len(matches) == 3
    assert all("tells of rivers" in match["text"] for match in matches)
    assert matches[0]["doc_id"] in found.stderr

    told = aitp("explain", matches[0]["doc_id"][:12], "--run", run.uri)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["selected"] is True
    assert "yes: drawn in part-0000-of-0001" in told.stderr
    assert len(json.loads(told.stdout)["nearest_sft"]) == 5

    wrong = aitp("explain", "nothing", "--run", run.uri)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.splitlines()[-1].startswith("error: 'nothing' is no document id")
    sft = aitp("search", "the sum of 3 and one", "--run", run.uri, "--in", "sft", "-k", "1")
    assert json.loads(sft.stdout)["matches"][0]["text"].startswith("Add ")
    assert aitp("search", "text", "--run", run.uri, "--in", "models").returncode == 2


def test_help_names_what_stands_beside_the_stages() -> None:
    text = aitp("--help").stdout
    assert all(f"  {name} " in text for name in ("estimate", "search", "explain"))
