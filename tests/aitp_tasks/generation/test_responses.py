"""Responses: what can be meant in one way is read, the rest refused, and nothing is read wrong in silence."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aitp_tasks.generation.prompt_files import FILES
from aitp_tasks.generation.responses import Response, UnreadableError, read, remarks
from aitp_tasks.records.generated import STAGES

ROOT = Path(__file__).parents[3]
SCHEMAS: dict[str, dict[str, Any]] = {
    stage: yaml.safe_load((ROOT / "prompts" / name).read_text(encoding="utf-8"))["schema"]
    for stage, (name, _) in FILES.items()
}
CASES: list[dict[str, Any]] = [
    case
    for path in sorted((Path(__file__).parent / "responses").glob("*.yaml"))
    for case in yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
]
GOOD_SCORE = {"quality": 8, "difficulty": 6, "additional_information": False}
#: What JSON's escapes may have made of LaTeX.
#: Before a brace, between dollars only: see the test below.
LATEX_LIKE = re.compile(r"\\[bfnrt][A-Za-z]|\$.*\\[brt]\{")


@pytest.mark.parametrize("letter", "rt")
def test_a_control_character_before_a_brace_is_a_command_in_mathematics_only(letter: str) -> None:
    outside = rf'{{"answer": "a\{letter}{{b}} for $5"}}'
    assert read(outside, SCHEMAS["answer"]).value == json.loads(outside)
    inside = rf'{{"answer": "the $a\{letter}{{b}}$ of it"}}'
    assert read(inside, SCHEMAS["answer"]).value == {"answer": rf"the $a\{letter}{{b}}$ of it"}


def attempt(text: str, stage: str) -> Response | UnreadableError:
    try:
        return read(text, SCHEMAS[stage])
    except UnreadableError as error:
        return error


def outcome(case: dict[str, Any]) -> str:
    """``right``, or what came instead."""
    got = attempt(case["response"], case["stage"])
    if isinstance(got, UnreadableError):
        return "right" if "refused" in case and case["refused"] in str(got) else f"refused: {got}"
    if got.value != case.get("expected"):
        return f"read wrong: {got}"
    return "right" if (got.repairs == ()) == (case["wrong"] == "nothing") else f"repairs: {got}"


def test_the_corpus_is_read_and_refused_as_a_person_would() -> None:
    outcomes = [(case["stage"], case["wrong"], outcome(case)) for case in CASES]
    failures = [" | ".join(each) for each in outcomes if each[2] != "right"]
    print(*failures, sep="\n")
    assert not [failure for failure in failures if "| read wrong" in failure]
    assert len(failures) <= len(CASES) * 0.005


def test_the_corpus_is_large_and_says_of_each_stage_what_must_be_refused() -> None:
    assert len(CASES) >= 300
    assert len({(case["stage"], case["response"]) for case in CASES}) == len(CASES)
    # A judge's are in test_judging.
    for stage in STAGES:
        cases = [case for case in CASES if case["stage"] == stage]
        assert sum("refused" in case for case in cases) >= 30
        assert sum(case["wrong"] == "nothing" for case in cases) >= 5


@pytest.mark.parametrize("stage", SCHEMAS)
def test_no_beginning_of_a_response_reads_as_something_else(stage: str) -> None:
    for case in CASES:
        if case["stage"] != stage or not (has_one_object(case) or case["wrong"].startswith("cut")):
            continue
        for length in range(len(case["response"])):
            got = attempt(case["response"][:length], stage)
            if isinstance(got, Response):
                assert got.value == case.get("expected"), (case["wrong"], case["response"][:length])


def has_one_object(case: dict[str, Any]) -> bool:
    return (
        "expected" in case and "several objects" not in read(case["response"], SCHEMAS[case["stage"]]).repairs
    )


def scores() -> st.SearchStrategy[dict[str, Any]]:
    marks = st.integers(1, 10)
    return st.fixed_dictionaries(
        {"quality": marks, "difficulty": marks, "additional_information": st.booleans()}
    )


CHARACTERS = st.characters(
    exclude_categories=["Cs"], exclude_characters=[chr(i) for i in range(32) if chr(i) not in "\t\n\r"]
)
LIKELY = st.sampled_from(
    [*"\"'{}[],:`\\\n\t $“”„«»‘’/#*?.ab", '"}', '", "', '"]}', "answer", "```", "<think>", "</think>"]
)


def texts(least: int, most: int) -> st.SearchStrategy[str]:
    mixed = st.lists(LIKELY, min_size=least, max_size=min(most, 40)).map(lambda parts: "".join(parts)[:most])
    return st.text(CHARACTERS, min_size=least, max_size=min(most, 60)) | mixed


def questions() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"questions": st.lists(texts(10, 600), min_size=2, max_size=2)})


def answers() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"answer": texts(1, 4000)})


VALUES = st.one_of(
    st.tuples(st.just("score"), scores()),
    st.tuples(st.just("rewrite"), questions()),
    st.tuples(st.just("answer"), answers()),
)


@settings(max_examples=400)
@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_json_of_the_schema_comes_back_unchanged(
    value: tuple[str, dict[str, Any]], ascii_only: bool, indent: int | None
) -> None:
    stage, wanted = value
    text = json.dumps(wanted, ensure_ascii=ascii_only, indent=indent)
    assume(not LATEX_LIKE.search(text) and not any(map(is_refused_as_text, strings(wanted))))
    response = read(text, SCHEMAS[stage])
    assert (response.value, response.repairs) == (wanted, ())


def strings(value: dict[str, Any]) -> list[str]:
    return value.get("questions", [value["answer"]] if "answer" in value else [])


def is_refused_as_text(text: str) -> bool:
    """Whether a string is a placeholder, or may be an object once more as a string."""
    return remarks.is_placeholder(text) or bool(re.match(r"[\s`]*(json)?\s*\{", text))


WRAPPERS = {
    "fence": "```json\n{}\n```",
    "fence without a language": "```\n{}\n```",
    "prose": "Here is the JSON you asked for:\n\n{}\n\nI hope this helps!",
    "prose on the same line": "Sure! {} Let me know if it is of use.",
    "reasoning": "<think>\nIs it clear? I would say so.\n</think>\n\n{}",
    "reasoning and fence": "<think></think>\nOf course:\n```json\n{}\n```\nDone.",
}


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
@settings(max_examples=150)
@given(value=VALUES)
def test_what_is_around_the_object_does_not_change_it(
    wrapper: str, value: tuple[str, dict[str, Any]]
) -> None:
    stage, wanted = value
    text = json.dumps(wanted, ensure_ascii=False)
    assume(not LATEX_LIKE.search(text) and not any(map(is_refused_as_text, strings(wanted))))
    response = read(wrapper.replace("{}", text), SCHEMAS[stage])
    assert response.value == wanted
    assert response.repairs


PIECES = [
    '{"answer": "', '{"questions": ["', '"quality": 8', '"difficulty": 6', '"additional_information": false',
    "{", "}", "[", "]", '"', "'", ",", ":", "\\", "\\n", "\\u00", "\\frac", "$", "`", "```", "//", "/*", "*/",
    "#", "\n", " ", "8/10", "yes", "Quality: 8\n", "Difficulty: 6\n", "Additional information: no\n", "“",
    "”", "<think>", "</think>", "\ufeff", "\x00", "\ud800", "a", "...", "final: ", '"}', '", "', '"]}',
]  # fmt: skip


@settings(max_examples=1500)
@given(
    st.sampled_from(sorted(SCHEMAS)),
    st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)),
)
def test_any_text_is_read_or_refused(stage: str, text: str) -> None:
    got = attempt(text, stage)
    if isinstance(got, Response):
        json.dumps(got.value, ensure_ascii=False).encode()
    else:
        assert 0 < len(str(got)) < 200


HOSTILE = [
    "{", "[", '"', "'", "\\", "}", '{"', '["', "[[", '{"answer": "', '{"answer": "a"} ', '{"answer": <', "$",
    '{"questions": ["', '"}', '"]}', '", "', '"?", "', "{//", "{/*", "//", "/*", "#", "```", "<think>",
    "</think>", "\\nu $", "\\nu", "\\(", "“", " ", "\n", "quality: 8\n", "1", '"""', "C:\\a",
    '{"a": ', '{"a": "b", ', '{"a": "b"} ', '"a": 1, ', "{&quot;", '{\\"', '\\"', "<answer>", "</answer>",
    "<question>a?</question>", "1. a?\n", "- a?\n", '｛"', "：［", "］", '" + "', '" +\n"', '{"answer": {',
    "wait ", '[{"question": "a"}, ', '"question_1": "a", ', "8 (", '"quality" => 8, ', "<your answer ",
    "I will ", "\\b\\w", "C:\\t", "%TEMP%\\n", "\\d\\n", "\\n\\d", "\\\\aa\\b\\c", "`a\\nu`", "```a\\n",
    '„a"', "$a\\n", "$\\nu", "$$\\nfoo", "\\begin{a}\\nb", "\\alpha \\\\", "\\fa", "a.\\n", "＂",
    "<think></think>", "<unused94><unused95>", '</think>{"', "| a | b |\n", "一、a？\n", "thank you. ",
    '"code": 1, ',
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize(
    ("stage", "start"),
    [("score", ""), ("answer", '{"answer": "'), ("rewrite", '{"questions": ["What is meant here?", "')],
)
def test_a_hostile_megabyte_takes_little_time(unit: str, stage: str, start: str) -> None:
    text = (start + unit * 10**6)[: 10**6]
    begin = time.process_time()
    with pytest.raises(UnreadableError):
        read(text, SCHEMAS[stage])
    assert time.process_time() - begin < 2


def test_a_long_answer_is_read_whole_however_it_is_wrapped() -> None:
    text = 'A "long" \\ answer: {1}.\n' * 20_000
    schema = {**SCHEMAS["answer"], "properties": {"answer": {"type": "string"}}}
    written = json.dumps({"answer": text})
    assert read(written, schema).value == {"answer": text}
    assert read(f"```json\n{written}\n```", schema).value == {"answer": text}


@pytest.mark.parametrize(
    ("response", "repairs"),
    [
        ('{"quality": 8, "difficulty": 6, "additional_information": false}', ()),
        ('{"quality": 8.0, "difficulty": 6, "additional_information": false}', ()),
        ('{"quality": "8/10", "difficulty": 6, "additional_information": "no"}', ("number", "boolean")),
        ('```json\n{"Quality": 8, "difficulty": 6, "additional_information": False,}\n```',
         ("fence", "key", "literal", "trailing comma")),
        ("Quality: 8\nDifficulty: 6\nAdditional information: no", ("lines",)),
        ('<think>8?</think>{"quality": 8 "difficulty": 6, /* so */ "additional_information": false',
         ("reasoning", "missing comma", "comment", "missing bracket")),
        ("\ufeffSo: {'quality': 8, difficulty: 6, “additional_information”: false}",
         ("byte order mark", "text around", "single quotes", "unquoted key", "smart quotes")),
        ('{"name": "judge", "arguments": {"quality": {"score": 8, "why": "clear"}, "difficulty": "six", '
         '"additional_information": false, "reasoning": "2 + 4"}}',
         ("wrapper", "other members", "nested value", "number")),
        ('[{"quality": 8}, {"difficulty": 6}, {"additional_information": false}]', ("list of objects",)),
        ("<quality>8</quality><difficulty>6</difficulty><additional_information>nein</additional_information>",
         ("tags", "number", "boolean")),
        ('"{\\"quality\\": 8, \\"difficulty\\": 6, \\"additional_information\\": false}"',
         ("encoded twice",)),
        ("{&quot;quality&quot;: 8; &quot;difficulty&quot;: 6, &quot;additional_information: false}",
         ("html entities", "punctuation", "missing quote")),
    ],
)  # fmt: skip
def test_every_repair_has_a_name(response: str, repairs: tuple[str, ...]) -> None:
    read_back = read(response, SCHEMAS["score"])
    assert (read_back.value, read_back.repairs) == (GOOD_SCORE, repairs)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\frac12", r"\frac12"),
        (r"x \to 0", r"x \to 0"),
        (r"$\nu$", r"$\nu$"),
        (r"$$E = h\nu$$", r"$$E = h\nu$$"),
        (r"\nuclear", "\nuclear"),
        (r"a\nabout", "a\nabout"),
        (r"I am \not sure", "I am \not sure"),
        (r"$a \not= b$", r"$a \not= b$"),
        (r"so\nu is the speed", "so\nu is the speed"),
        (r"\text", "\text"),
        (r"\\nu and \\frac12", r"\nu and \frac12"),
    ],
)
def test_latex_that_json_has_eaten_comes_back(written: str, meant: str) -> None:
    response = read(f'{{"answer": "{written}"}}', SCHEMAS["answer"])
    assert response.value == {"answer": meant}
    assert response.repairs == (() if json.loads(f'"{written}"') == meant else ("latex",))


@pytest.mark.parametrize(
    "response",
    [
        "<answer>Vgl. ［1］ und ｛2｝.</answer>",
        "{'answer': 'Vgl. ［1］ und ｛2｝.'}",
        "{«answer»: «Vgl. ［1］ und ｛2｝.»}",
        '｛"answer"："Vgl. ［1］ und ｛2｝."｝',
    ],
)
def test_full_width_brackets_of_a_text_stay_as_they_are(response: str) -> None:
    got = attempt(response, "answer")
    assert isinstance(got, UnreadableError) or got.value == {"answer": "Vgl. ［1］ und ｛2｝."}


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnreadableError, match="surrogate"):
        read('{"answer": "\ud83d"}', SCHEMAS["answer"])


def test_other_schemas_are_read_too() -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}},
                       "share": {"type": "number"}, "text": {"type": "string"}},
        "required": ["title", "text"],
    }  # fmt: skip
    response = read("{title: 'A \"b\" c', 'share': 0.5, tags: ['x', 'y',], 'text': 'It's d.'", schema)
    assert response.value == {"title": 'A "b" c', "share": 0.5, "tags": ["x", "y"], "text": "It's d."}


TEXTS = {"type": "object", "properties": {"text": {"type": "string"}}}
NESTED = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "grounds": TEXTS,
        "steps": {"type": "array", "items": TEXTS},
    },
    "required": ["answer", "grounds", "steps"],
}


@pytest.mark.parametrize("wrapper", ["{}", *WRAPPERS.values()])
def test_objects_within_objects_are_left_as_they_are(wrapper: str) -> None:
    value = {
        "answer": "So it is.",
        "grounds": {"text": "It is said.", "sure": True},
        "steps": [{"text": "a", "more": {"n": [1, {}]}}, {"text": "b"}],
    }
    response = read(wrapper.replace("{}", json.dumps(value)), NESTED)
    assert response.value == value
    assert set(response.repairs) <= {"fence", "text around", "reasoning"}
    assert bool(response.repairs) == (wrapper != "{}")


@pytest.mark.parametrize(
    ("grounds", "message"),
    [
        ('{"sure": true, "sure": false}', "sure is given twice"),
        ("[" * 500 + "]" * 500, "more than 50 layers"),
        ('{"a": ' * 400 + "1" + "}" * 400, "more than 50 layers"),
    ],
)
def test_what_is_within_is_clear_or_refused(grounds: str, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        read(f'{{"answer": "So it is.", "grounds": {grounds}, "steps": []}}', NESTED)
