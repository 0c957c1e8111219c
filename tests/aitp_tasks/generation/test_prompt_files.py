"""Prompt files: checked when they are planned, filled without being interpreted."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aitp_tasks.config import Prompts
from aitp_tasks.errors import InputError
from aitp_tasks.generation import prompt_files as prompts
from aitp_tasks.generation.engine import Completion
from aitp_tasks.generation.requests import Parsed, parse
from aitp_tasks.generation.stored import Response
from aitp_tasks.records.plan import FrozenPrompt

REPOSITORY = Path(__file__).resolve().parents[3]
HOSTILE = "{} {0} {text!r} }}{{ %s %(x)s \\n \\frac{1}{2} <|im_start|>system\x00 ${HOME} `id`"


def shipped() -> dict[str, Any]:
    return dict(prompts.load_folder(Prompts(folder=str(REPOSITORY / "prompts")), judged=True))


def test_arguments_arrive_unchanged() -> None:
    filled = prompts.fill(shipped()["answer"], {"text": HOSTILE, "question": HOSTILE + "?"})
    assert HOSTILE + "?" in filled
    assert filled.index(HOSTILE) < filled.index(HOSTILE + "?")


def test_counts_of_a_configuration_are_whole() -> None:
    loaded = prompts.load_folder(Prompts(folder=str(REPOSITORY / "prompts"), sampling={"top_k": 20}))
    assert isinstance(loaded["score"].sampling["top_k"], int)


def _scores(required: list[str] | None = None, quality: str = "integer") -> dict[str, Any]:
    kinds = {"quality": quality, "difficulty": "integer", "additional_information": "boolean"}
    properties = {name: {"type": kind} for name, kind in kinds.items()}
    return {"type": "object", "properties": properties, "required": required or list(kinds)}


@pytest.mark.parametrize("stage", list(prompts.FILES))
def test_filling_equals_kor_bench_formatting(stage: str) -> None:
    """KOR-Bench formats element 0 of ``prompt_format`` with positional arguments."""
    name, arguments = prompts.FILES[stage]
    values = {argument: f"a plain {argument}" for argument in arguments}
    template = yaml.safe_load((REPOSITORY / "prompts" / name).read_text())["prompt_format"][0]
    assert prompts.fill(shipped()[stage], values) == template.format(*values.values())


def test_the_number_of_questions_is_part_of_the_prompts_identity() -> None:
    three = prompts.load_folder(Prompts(folder=str(REPOSITORY / "prompts"), questions_per_document=3))
    assert three["rewrite"].output_schema["properties"]["questions"]["maxItems"] == 3
    assert three["rewrite"].digest != shipped()["rewrite"].digest
    assert three["score"].digest == shipped()["score"].digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prompt_format": ["no placeholder"]},
            r"score_shift.yaml has 0 placeholders \{\}: score needs 1 \(question\)",
        ),
        ({"prompt_format": ["{} and {}"]}, "has 2 placeholders"),
        ({"prompt_format": ["{question}"]}, "is not positional"),
        ({"prompt_format": ["{} {"]}, "literal braces are doubled"),
        ({"prompt_format": "{}"}, "must be a list"),
        ({"schema": {"type": "nonsense"}}, "not a JSON schema"),
        ({"schema": {"type": "array"}}, "must describe an object"),
        ({"schema": _scores(required=["quality", "difficulty"])}, "'additional_information' .* in required"),
        ({"schema": _scores(quality="string")}, "score reads 'quality' .* as type integer"),
        ({"sampling": {}}, "must name max_tokens"),
        ({"sampling": {"max_tokens": 1, "seed": 1}}, "sampling has seed=1"),
        ({"sampling": {"max_tokens": 0}}, "sampling has max_tokens=0 .*greater than or equal to 1"),
        ({"sampling": {"max_tokens": 9, "top_k": 2.5}}, "sampling has top_k=2.5"),
        ({"sampling": {"max_tokens": 9, "temperature": 3}}, "sampling has temperature=3"),
        ({"sampling": {"max_tokens": 9, "repetition_penalty": 0}}, "sampling has repetition_penalty=0"),
        ({"prompt_format": None}, "is not a mapping with prompt_format"),
        (
            {"smapling": {"max_tokens": 9}},
            "has smapling: it may hold prompt_format, sampling, schema, version",
        ),
        (
            {
                "schema": _scores()
                | {
                    "properties": _scores()["properties"]
                    | {"additional_information_needed": {"type": "boolean"}}
                }
            },
            "reads 'additional_information' or 'additional_information_needed'",
        ),
    ],
)
def test_a_wrong_prompt_file_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    for name, _ in prompts.FILES.values():
        (tmp_path / name).write_text((REPOSITORY / "prompts" / name).read_text())
    path = tmp_path / "score_shift.yaml"
    values = yaml.safe_load(path.read_text()) | change
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    with pytest.raises(InputError, match=message):
        prompts.load_folder(Prompts(folder=str(tmp_path)))


#: Prompts in the authors' form, in our words: nothing but a template, in which the score's key is theirs.
AUTHORS = {
    "rewrite": 'Ask questions about this text, as JSON with the key questions: {{"questions": []}}\n{}',
    "score": 'Judge this: {}\nAs {{"quality": 1, "additional_information_needed": True}}, or as lines.',
    "answer": "Background: {}\nAnswer this question as JSON: {}",
    "judge": "Does {} support, to the question {}, the answer {}?",
}


def authors(folder: Path, **changes: str) -> dict[str, FrozenPrompt]:
    """A folder with nothing but templates, read."""
    for stage, (name, _) in prompts.FILES.items():
        text = (AUTHORS | changes)[stage]
        (folder / name).write_text(yaml.safe_dump({"prompt_format": [text]}), encoding="utf-8")
    return prompts.load_folder(Prompts(folder=str(folder)), judged=True)


def test_a_folder_of_templates_alone_is_usable(tmp_path: Path) -> None:
    loaded = authors(tmp_path)
    assert list(loaded["score"].output_schema["properties"]) == [
        "quality",
        "difficulty",
        "additional_information_needed",
    ]
    assert loaded["rewrite"].output_schema == shipped()["rewrite"].output_schema
    assert loaded["answer"].output_schema == shipped()["answer"].output_schema
    assert loaded["answer"].sampling == {"max_tokens": 2048, "temperature": 0.0}
    assert loaded["judge"].output_schema == shipped()["judge"].output_schema
    assert loaded["judge"].sampling == shipped()["judge"].sampling
    assert prompts.fill(loaded["answer"], {"text": "T {}", "question": "Q"}).endswith(
        "T {}\nAnswer this question as JSON: Q"
    )


def test_a_schema_by_default_is_that_of_the_shipped_prompts(tmp_path: Path) -> None:
    loaded = authors(tmp_path, score="Judge by quality, difficulty and additional_information: {}")
    assert loaded["score"].output_schema == shipped()["score"].output_schema


def test_a_version_by_default_follows_the_content(tmp_path: Path) -> None:
    before = authors(tmp_path)
    again = authors(tmp_path)
    other = authors(tmp_path, score=AUTHORS["score"] + " Be strict.")
    assert {stage for stage in before if before[stage].version != other[stage].version} == {"score"}
    assert all(before[stage].version == again[stage].version != "None" for stage in before)
    assert len({prompt.version for prompt in before.values()}) == 4


@pytest.mark.parametrize(
    "text",
    [
        '{"quality": 8, "difficulty": 6, "additional_information_needed": true}',
        '{"quality": 8, "difficulty": 6, "additional_information": true}',
        "Quality: 8\nDifficulty: 6\nAdditional Information Needed: True",
    ],
)
@pytest.mark.parametrize("ours", [True, False])
def test_responses_in_the_authors_form_are_parsed(tmp_path: Path, text: str, ours: bool) -> None:
    prompt = shipped()["score"] if ours else authors(tmp_path)["score"]
    parsed = parse(Response(Completion(text, "stop", 1, 1)), prompt)
    assert isinstance(parsed, Parsed)
    assert parsed.value == {"quality": 8, "difficulty": 6, "additional_information": True}
    assert (parsed.repairs == ()) == (text.startswith("{") and ("needed" in text) != ours)


@pytest.mark.parametrize("items", [None, True, {"type": "object"}])
def test_questions_are_strings(tmp_path: Path, items: Any) -> None:
    for name, _ in prompts.FILES.values():
        (tmp_path / name).write_text((REPOSITORY / "prompts" / name).read_text())
    path = tmp_path / "rewrite_shift_question.yaml"
    values = yaml.safe_load(path.read_text())
    questions = {"type": "array"} | ({} if items is None else {"items": items})
    values["schema"]["properties"]["questions"] = questions
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="questions must have items of type string"):
        prompts.load_folder(Prompts(folder=str(tmp_path)))


def test_a_missing_prompt_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rewrite_shift_question.yaml cannot be read .*prompts.folder"):
        prompts.load_folder(Prompts(folder=str(tmp_path)))


def test_the_judges_prompt_is_read_where_answers_are_judged(tmp_path: Path) -> None:
    authors(tmp_path)
    folder = Prompts(folder=str(tmp_path))
    assert prompts.is_there(folder, "judge")
    (tmp_path / "judge_answer.yaml").unlink()
    assert set(prompts.load_folder(folder)) == {"rewrite", "score", "answer"}
    assert not prompts.is_there(folder, "judge")
    assert not prompts.is_there(Prompts(folder=f"file://{tmp_path}"), "judge")
    with pytest.raises(InputError, match=r"judge_answer.yaml cannot be read .*prompts.folder"):
        prompts.load_folder(folder, judged=True)


@pytest.mark.parametrize("verdicts", [None, [], ["supported", "maybe"], "supported", [1], [["partly"]]])
def test_a_judge_gives_no_verdicts_but_those_that_are_read(tmp_path: Path, verdicts: Any) -> None:
    authors(tmp_path)
    described = {"type": "string"} | ({} if verdicts is None else {"enum": verdicts})
    schema = {"type": "object", "properties": {"verdict": described}, "required": ["verdict"]}
    text = yaml.safe_dump({"prompt_format": [AUTHORS["judge"]], "schema": schema})
    (tmp_path / "judge_answer.yaml").write_text(text)
    with pytest.raises(InputError, match=r"enum of some or all of contradicted, not_in_document|not a JSON"):
        prompts.load_folder(Prompts(folder=str(tmp_path)), judged=True)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (
            {},
            r"sampling in .*generate_shift_answer.yaml has temperature=0, .*: set temperature to 0.8, or",
        ),
        (
            {"temperature": 0.0},
            "prompts.sampling has temperature=0, by which all answers to a question are the same",
        ),
        (
            {"temperature": 0.8, "top_k": 1},
            "prompts.sampling has top_k=1, .*: set top_k to 0, or answers_per_quest",
        ),
        ({"temperature": 0.8}, None),
    ],
)
def test_several_answers_that_would_be_one_are_refused(
    sampling: dict[str, float], message: str | None
) -> None:
    folder = {"folder": str(REPOSITORY / "prompts"), "sampling": sampling}
    prompts.load_folder(Prompts(**folder))
    several = Prompts(**folder, answers_per_question=4)
    if message is None:
        assert prompts.load_folder(several)["answer"].sampling["temperature"] == 0.8
    else:
        with pytest.raises(InputError, match=f"prompts.answers_per_question=4, and {message}"):
            prompts.load_folder(several)
