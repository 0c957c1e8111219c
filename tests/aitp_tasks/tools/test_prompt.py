"""The prompts looked at and tried out, beside any run."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.tools import prompt
from tests.aitp_tasks.conftest import REPOSITORY, Configure
from tests.aitp_tasks.generation import test_part as test_generation
from tests.aitp_tasks.generation.test_part import SELECT_ALL, StandIn, StandInPrompter, good

pytestmark = pytest.mark.slow

engine = test_generation.engine
small_models = test_generation.small_models
#: Prompts with the sampling that they ask for themselves.
AS_WRITTEN = {"folder": str(REPOSITORY / "prompts")}


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "document.txt"
    path.write_text("The port of grain lies at the river's mouth. {} \\frac")
    return str(path)


def test_check_reads_all_that_are_there(configure: Configure, tmp_path: Path) -> None:
    told = prompt.execute(configure(prompts=AS_WRITTEN), "check")["prompts"]
    assert set(told) == {"rewrite", "score", "answer", "judge"}
    assert told["judge"]["keys"] == ["verdict"]
    # The judge's only has to be there where it is used.
    for path in Path(AS_WRITTEN["folder"]).glob("[!j]*"):
        (tmp_path / path.name).write_text(path.read_text())
    three = {"folder": str(tmp_path)}
    assert set(prompt.execute(configure(prompts=three), "check")["prompts"]) == {"rewrite", "score", "answer"}
    with pytest.raises(InputError, match="judge_answer.yaml cannot be read"):
        prompt.execute(configure(prompts=three, gates={"min_faithfulness": "partly"}), "check")
    assert told["score"]["sampling"] == {"max_tokens": 64, "temperature": 0.0}


def test_check_names_what_is_wrong(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    for path in Path(configure().prompts.folder).iterdir():
        text = path.read_text()
        (folder / path.name).write_text(text.replace("{}", "") if "score" in path.name else text)
    with pytest.raises(InputError, match=r"score_shift.yaml has 0 placeholders \{\}: score needs 1"):
        prompt.execute(configure(prompts={"folder": str(folder)}), "check")


@pytest.mark.parametrize("place", ["file://{}", "{}"])
def test_prompts_may_lie_in_storage(configure: Configure, tmp_path: Path, place: str) -> None:
    (tmp_path / "mine").symlink_to(configure().prompts.folder)
    mine = AS_WRITTEN | {"folder": place.format(tmp_path / "mine")}
    assert prompt.execute(configure(prompts=mine), "check") == prompt.execute(
        configure(prompts=AS_WRITTEN), "check"
    )


@pytest.mark.parametrize("stage", ["rewrite", "score", "answer", "judge"])
def test_show_fills_a_prompt(configure: Configure, document: str, stage: str) -> None:
    model = configure().engine.model
    told = prompt.execute(configure(engine={"model": model, "max_model_len": 4096}), "show", stage, document)
    assert Path(document).read_text() in told["content"]
    assert 50 < told["tokens"] < 512
    assert told["characters_cut"] == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [(None, b"", "no document: name"), ("none", None, "cannot be read"), ("bad", b"\xff", "is not UTF-8")],
)
def test_a_document_that_cannot_be_read_is_named(
    configure: Configure, tmp_path: Path, name: str | None, content: bytes | None, message: str
) -> None:
    if name and content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        prompt.execute(configure(), "show", "rewrite", name and str(tmp_path / name))


@pytest.fixture
def stand_in(engine: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr(prompt, "open_engine", StandIn)
    monkeypatch.setattr(prompt, "Prompter", StandInPrompter)
    return engine


def test_try_takes_a_document_through_all_stages(
    configure: Configure, document: str, stand_in: type[StandIn]
) -> None:
    told = prompt.execute(configure(**SELECT_ALL), "try", document=document)
    assert len(told["questions"]) == len(told["scores"]) == len(told["answers"]) == 2
    assert told["answers"][0]["answer"].startswith("Because of ")
    assert told["refused"] == []
    assert not list(Path(configure().root.removeprefix("file://")).glob("generations/**/*.parquet"))


def test_try_judges_where_answers_are_judged(
    configure: Configure, document: str, stand_in: type[StandIn]
) -> None:
    verdicts = iter(["supported", "no verdict"])

    def judges(stage: str, values: dict[str, str]) -> str:
        return json.dumps({"verdict": next(verdicts)}) if stage == "judge" else good(stage, values)

    stand_in.respond = staticmethod(judges)
    config = configure(**SELECT_ALL, gates={"min_faithfulness": "supported"})
    told = prompt.execute(config, "try", document=document)
    (verdict,) = told["verdicts"]
    assert verdict["faithfulness"] == "supported"
    assert verdict["judged"] in {row["pair_id"] for row in told["answers"]}
    assert [row["stage"] for row in told["refused"]] == ["judge"]


def test_try_says_why_there_is_nothing(configure: Configure, document: str, stand_in: type[StandIn]) -> None:
    def low(stage: str, values: dict[str, str]) -> str:
        marks = {"quality": 2, "difficulty": 9, "additional_information": False}
        return json.dumps(marks) if stage == "score" else good(stage, values)

    stand_in.respond = staticmethod(low)
    told: dict[str, Any] = prompt.execute(configure(**SELECT_ALL), "try", document=document)
    assert told["answers"] == []
    assert [row["reason"] for row in told["refused"]] == ["quality", "quality"]
