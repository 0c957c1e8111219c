"""The report's page: right figures, nothing loaded, hostile text inert."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.evaluation.intervals import Difference
from aitp_tasks.records import promoted, tables
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.report import pictures
from aitp_tasks.report.facts import Densities, gather
from aitp_tasks.report.page import cut, draw, render
from aitp_tasks.stages import report

FinishRun = Callable[..., Run]
#: Attributes by which a page loads or runs something.
_LOADING = {"src", "href", "action", "data", "srcset", "poster", "background", "style"}


class _Page(HTMLParser):
    """Tags, loading attributes and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.policy = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.loads += [value for name, value in values.items() if name in _LOADING or name.startswith("on")]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(run: Run) -> _Page:
    return _Page(run.storage.read(run.require_manifest("report").output("page")).decode())


def test_page_and_result(finish_run: FinishRun) -> None:
    run = finish_run(12)
    result = report.execute(run)
    assert len(json.dumps(result)) < 1024
    expected = {"documents": 240, "selected": 12, "questions": 24, "kept": 12, "pairs": 12}
    assert {name: result[name] for name in expected} == expected
    assert result["report"] == f"{run.uri}/report/report.html"
    assert result["dataset"].endswith(f"/datasets/aitp/web+wiki-{run.plan.digest[:12]}")
    assert result["checkpoint"].endswith(f"/models/aitp/web+wiki-{run.plan.digest[:12]}")
    page = _read(run)
    assert page.tags.count("img") == 8
    assert page.tags.count("article") == 12
    assert "embed (corpus)" in page.text
    assert "empty\u00a02" in page.text
    assert "2 h 02 min" in page.text
    assert "236 documents in one exact index; 4 repeats left out, 2 MB" in page.text


def test_pictures_are_files_too(finish_run: FinishRun) -> None:
    run = finish_run(12)
    report.execute(run)
    outputs = run.require_manifest("report").outputs
    assert run.storage.read(outputs["ratio"]).startswith(b"\x89PNG")
    assert b"<svg" in run.storage.read(outputs["sweep"])
    assert set(outputs) == {"page", "corpus", "sft", "ratio", "sweep", "losses", "quality", "difficulty"} | {
        "gained"
    }


def test_sources_quantiles_and_coverage_are_told(finish_run: FinishRun) -> None:
    run = finish_run(12)
    report.execute(run)
    text = " ".join(_read(run).text.split())
    assert "web1604025.0%12" in text
    assert "wiki\u241b[2J" in text
    assert "1.25e-07" in text
    assert "17.1% of the corpus lies where the SFT side is thinner than \u03c4." in text
    assert "builds onno earlier version" in text


def test_what_the_new_pairs_have_gained_is_told_with_intervals(finish_run: FinishRun) -> None:
    run = finish_run(12)
    report.execute(run)
    page = _read(run)
    text = " ".join(page.text.split())
    assert "not covered24017.1% (15.8 to 18.4)5.0% (3.7 to 6.3)12.1% (10.8 to 13.4)" in text
    assert "divergence2400.3000 (0.2870 to 0.3130)0.2000" in text
    assert "not covered of wiki\u241b[2J950.0%50.0%50.0%" in text
    assert "95.0% intervals, from 200 resamples of the 240 documents" in text
    assert run.storage.read(run.require_manifest("report").output("gained")).startswith(b"\x89PNG")


def test_a_run_on_an_earlier_version_shows_before_and_after(finish_run: FinishRun) -> None:
    run = finish_run(12, earlier=True)
    report.execute(run)
    page = _read(run)
    text = " ".join(page.text.split())
    assert page.tags.count("img") == 9
    assert "without the pairs of earlier versions it would be 23.4%" in text
    assert "those of web-before; a refit is due" in text
    assert "1.2% of the documents lie outside" in text
    assert "the distance of the densities is 0.56" in text
    assert run.storage.read(run.require_manifest("report").output("change")).startswith(b"\x89PNG")


def test_densities_along_one_axis_are_curves() -> None:
    x = np.linspace(-8, 8, 200)
    bell = (np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))[None].astype(np.float32)
    points = np.array([[0.5, 0.0], [2.0, 0.0]])
    densities = Densities(bell, bell[:, ::-1] ** 2, bell[:, ::-1], x, np.zeros(1), points)
    levels = pictures.density_levels(densities)
    drawn = [
        pictures.density(bell, densities, levels, 1.0),
        pictures.ratio(densities, levels, 0.5),
        pictures.change(densities, levels, 0.5),
    ]
    assert all(picture.data.startswith(b"\x89PNG") for picture in drawn)


def test_inputs_are_told_by_source(finish_run: FinishRun) -> None:
    run = finish_run(12)
    report.execute(run)
    text = _read(run).text
    assert "webcorpusparquet16024,00025.0%0" in text
    assert "alpacasftparquet messages8012,00025.0%0" in text


def test_what_examples_say_is_told(finish_run: FinishRun) -> None:
    run = finish_run(12)
    report.execute(run)
    text = " ".join(_read(run).text.split())
    for row in ("reasoning_content504", "tool_calls.id060", "tools700", "weight220"):
        assert f" {row} " in text
    assert "Not kept of the SFT set's rows: rating<b> of 80, messages[].id of 1." in text
    assert (
        "LLaMA-Factory leaves out conversations of sharegpt.json: 1,200 (begins_with_assistant), "
        "1 (not_alternating)." in text
    )


def test_shards_that_took_no_part_are_named(finish_run: FinishRun) -> None:
    run = finish_run()
    report.execute(run)
    text = _read(run).text
    assert "2 objects in corpus/web/ were not read: corpus/web/<7>.md, …" in text
    assert "3 hidden files in corpus/web/ were left out." in text
    assert "1 shards took no part, because they could not be embedded:" in text
    assert "corpus/web/<9>.parquet: it is not readable as Parquet" in text


def test_what_the_engine_did_is_told(finish_run: FinishRun) -> None:
    run = finish_run(12)
    report.execute(run)
    text = " ".join(_read(run).text.split())
    assert "rewrite1224 code fence 8 <|im_end|> 14 640,00062.5%18,00052.0 s0" in text
    assert "An engine was started 3.0 times a part; the sample has 2." in text


def test_nothing_is_loaded_or_run(finish_run: FinishRun) -> None:
    run = finish_run(4)
    report.execute(run)
    page = _read(run)
    assert all(re.match(r"data:image/(png|svg\+xml);base64,[A-Za-z0-9+/=]+$", value) for value in page.loads)
    assert not {"script", "iframe", "link", "object", "embed", "form"} & set(page.tags)
    assert page.policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in page.policy


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param("<script>alert(1)</script>", id="script"),
        pytest.param("</style></p></article><img src=x onerror=alert(1)>", id="closing-tags"),
        pytest.param("{{ 7 * 7 }} {% for x in y %} ${1} {}", id="templates"),
        pytest.param("\" onload='x' & &lt; &#60;script>", id="quotes-and-entities"),
        pytest.param("a\x00b\x1b[31m\x7f", id="control-characters"),
    ],
)
def test_hostile_text_is_inert(finish_run: FinishRun, hostile: str) -> None:
    html = _render(finish_run(2, text=hostile, question=hostile, answer=hostile))
    page = _Page(html)
    assert page.tags.count("img") == 8
    assert page.tags.count("article") == 2
    assert "script" not in page.tags
    assert page.text.count(cut(hostile, 400)) == 6
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html)


def _render(run: Run) -> str:
    facts = gather(run)
    return render(run, facts, draw(facts, run.config.gates))


def test_huge_text_is_cut(finish_run: FinishRun) -> None:
    run = finish_run(12, text="a" * 1_000_000, question="b" * 100_000, answer="c" * 100_000)
    html = _render(run)
    assert "… (+999,600 characters)" in html
    assert len(re.sub(r"base64,[^\"]*", "", html)) < 100_000


def test_nothing_selected(finish_run: FinishRun) -> None:
    run = finish_run(0)
    result = report.execute(run)
    assert (result["selected"], result["questions"], result["pairs"]) == (0, 0, 0)
    page = _read(run)
    assert "No question was scored." in page.text
    assert "No pair was made." in page.text
    assert page.tags.count("img") == 6


def test_a_second_time_does_nothing(finish_run: FinishRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finish_run(2)
    result = report.execute(run)
    monkeypatch.setattr("aitp_tasks.report.facts.gather", pytest.fail)
    before = {info.key: info.etag for info in run.storage.list("")}
    assert report.execute(run) == result
    assert {info.key: info.etag for info in run.storage.list("")} == before


def test_equal_facts_give_equal_pages(finish_run: FinishRun) -> None:
    run = finish_run(3)
    assert _render(run) == _render(run)


def test_a_missing_stage_is_named(finish_run: FinishRun) -> None:
    run = finish_run(2)
    Path(run.storage.uri(run.manifest_key("merge")).removeprefix("file://")).unlink()
    with pytest.raises(InputError, match="run `aitp merge` first"):
        report.execute(run)


def test_what_was_evaluated_is_told_with_its_intervals(finish_run: FinishRun) -> None:
    run = finish_run()
    better, none = Difference(40, -0.12345, -0.2, -0.05), Difference(3, 0.5, None, None, "too few <b>")
    missing = Difference(0, None, None, None, "there is no example")
    loss = {"aitp": 1.1, "base": 1.5, "sft_only": 1.25}
    sets = {
        name: {"n": one.n, "tokens": 9 * one.n, "loss": loss if one.n else dict.fromkeys(loss)}
        | {f"aitp_minus_{other}": one.figures() for other in ("base", "sft_only")}
        for name, one in (("sft", none), ("pairs", better), ("documents", missing))
    }
    run.commit(
        Manifest(
            stage="evaluate",
            label="e",
            ledger=Ledger(rows_in=44, rows_out=43, rejected={"too_long": 1}),
            figures={"sets": sets, "steps": 1200},
            seconds=3.0,
        )
    )
    promoted.note(run, False, "Ada <b> has not approved it")
    report.execute(run)
    html = run.storage.read(run.key("report", "report.html")).decode()
    page = _Page(html)
    assert "Has it helped?" in page.text
    assert "Not promoted, because Ada <b> has not approved it." in page.text
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    # Of a stage's rows, the ledger comes before its costs.
    cells = {row[0]: row[1:] for row in reversed(rows) if row}
    interval = "-0.1235 (-0.2000 to -0.0500)"
    assert cells["pairs of held-out documents"] == [
        *("40", "360", "1.5000", "1.2500", "1.1000"),
        *(interval, interval),
    ]
    assert cells["SFT examples"][-1] == "+0.5000, no interval: too few &lt;b&gt;"
    assert cells["these documents as text"] == [
        *("0", "0", "–", "–", "–"),
        *["no interval: there is no example"] * 2,
    ]
    assert cells["evaluate"][:2] == ["44", "43"]


def _nothing_evaluated() -> dict[str, Any]:
    """Figures of sets that are empty."""
    none = Difference(0, None, None, None, "there is no example").figures()
    told = {"n": 0, "tokens": 0, "loss": dict.fromkeys(("aitp", "base", "sft_only"))}
    told |= {"aitp_minus_base": none, "aitp_minus_sft_only": none}
    return {"sets": dict.fromkeys(("sft", "pairs", "documents"), told), "steps": 1}


def test_answers_are_shown_side_by_side_and_inert(finish_run: FinishRun) -> None:
    run = finish_run()
    hostile = "</p></article><script>alert(1)</script><img src=x> {{ 7 * 7 }} <|im_end|>\x00"
    row = {"set": "sft", "id": "q<b>", "text": hostile, "reference": f"ref {hostile}", "left": ""}
    for model in ("base", "sft_only", "aitp"):
        row |= {model: f"{model} {hostile}", f"{model}_finish": "stop", f"{model}_tokens": 3}
    long = row | {"set": "pairs", "aitp": "a" * 2000, "aitp_finish": "length", "aitp_tokens": 256}
    left = row | {"text": "b" * 1000, "left": "question_too_long"}
    generations = tables.write(run.storage, run.key("evaluate", "g"), pa.Table.from_pylist([row, long, left]))
    figures = _nothing_evaluated()
    figures |= {"questions": {"asked": 3, "left": {"question_too_long": 1}}}
    outputs = {"generations": generations}
    run.commit(Manifest(stage="evaluate", label="e", outputs=outputs, figures=figures))
    html = _render(run)
    page = _Page(html)
    assert "script" not in page.tags
    assert page.tags.count("img") == 8
    assert page.tags.count("article") == len(gather(run).samples) + 3
    shown = cut(hostile, 600)
    assert page.text.count(f"ref {shown}") == 3
    # Of the question that was not asked there is no answer.
    assert [page.text.count(f"{model} {shown}") for model in ("base", "sft_only", "aitp")] == [2, 2, 1]
    assert "256 tokens, then cut" in page.text
    assert "… (+1,100 characters)" in page.text
    assert "1 were not asked (question_too_long)" in page.text
    assert "not asked: question_too_long · q<b>" in page.text
    assert "Has it helped?" in page.text
    columns = re.findall(r'<div class="answers">(.*?)\n</div>', html, re.DOTALL)
    assert [re.findall(r"<h3>(.*?)</h3>", one) for one in columns] == [["base", "SFT set alone", "new"]] * 2


def test_a_promotion_that_was_not_run_is_told_as_such(finish_run: FinishRun) -> None:
    run = finish_run()
    figures = _nothing_evaluated()
    run.commit(Manifest(stage="evaluate", label="e", figures=figures))
    report.execute(run)
    assert "Not promoted yet: `aitp promote` has not been run." in _read(run).text


def test_benchmark_tasks_are_a_table(finish_run: FinishRun) -> None:
    run = finish_run()
    metrics = {"acc": {"base": [0.25, 0.125], "sft_only": [0.5, None], "aitp": [None, None]}}
    results = {"quiz <b>": {"n": 1234, "metrics": metrics}, "group": {"n": None, "metrics": {"f1": {}}}}
    figures = _nothing_evaluated()
    figures |= {"tasks": {"harness": "0.4.13", "limit": 1500, "results": results}}
    run.commit(Manifest(stage="evaluate", label="e", figures=figures))
    html = _render(run)
    assert "By lm-evaluation-harness 0.4.13" in html
    assert "of each task the first 1,500 rows at most" in html
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    cells = {row[0]: row[1:] for row in rows if row}
    assert cells["quiz &lt;b&gt;"] == ["1,234", "acc", "0.2500 ± 0.1250", "0.5000", "–"]
    assert cells["group"] == ["–", "f1", "–", "–", "–"]


def test_validations_are_told_beside_the_training_loss(finish_run: FinishRun) -> None:
    run = finish_run()
    report.execute(run)
    plain = run.storage.read(run.key("report", "report.html")).decode()
    assert "held out for choosing" not in plain
    done = run.require_manifest("finetune")
    history = json.loads(run.storage.read(done.output("log_history")))
    history += [{"step": 12, "eval_loss": 2.0}, {"step": 24, "eval_loss": 1.75}]
    run.storage.write(done.output("log_history"), json.dumps(history).encode())
    told = {"eval_loss_first": 2.0, "eval_loss_best": 1.75, "eval_loss_last": 1.8, "best_step": 24}
    told |= {"planned_steps": 36, "validation": {"examples": 1234}}
    changed = done.model_copy(update={"figures": done.figures | told})
    run.storage.write(run.manifest_key("finetune"), changed.model_dump_json().encode())
    facts = gather(run)
    page = _Page(_render(run))
    assert (
        "On 1,234 examples held out for choosing, the best was 1.7500 at step 24 of 36, the last 1.8000."
        in page.text
    )
    drawn = [pictures.losses(some).data for some in (facts.log_history, facts.log_history[:-2])]
    assert drawn[0] != drawn[1]
    assert [data.count(b"<!-- held out for choosing -->") for data in drawn] == [1, 0]


def test_where_nothing_was_evaluated_nothing_is_told_of_it(finish_run: FinishRun) -> None:
    run = finish_run()
    report.execute(run)
    assert b"Has it helped?" not in run.storage.read(run.key("report", "report.html"))
