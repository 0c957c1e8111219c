"""Cases for the LLaMA-Factory export of conversations and for marks of chat templates in texts.

Written from the words of issue 19 and from public knowledge alone, by somebody who had not read the code.

`Exported`: a conversation in role/content form and what the ShareGPT export is to say of it.  What the
cases hold to, from LLaMA-Factory's own converter and README:

* tags: user `human`, assistant `gpt`, tool result `observation`, assistant with `tool_calls`
  `function_call`; `human` and `observation` stand at odd places, `gpt` and `function_call` at even ones, the
  number of turns is even and not nought; everything else is dropped there without a word.
* the system turn is expected apart from the turns, as `system` (None: there is none; a tester takes None and
  the empty string as the same).  An export may write it as a first turn tagged `system` or in a column of
  its own: a tester takes it off before he compares.  `developer` is the newer name of `system`.
* leading system turns are joined by a blank line ("\\n\\n"), neighbours of one role (user, assistant) too.
* nothing is thrown away to make a conversation fit: where a turn would be lost, invented or moved, the
  conversation is `LeftOut`.
* the value of a `function_call` is JSON: an object with `name` and `arguments` (an object, never JSON within
  a string), or a list of such.  It is compared as parsed JSON, and one object equals a list of that object.
* the form of the `tools` column is not judged here.

Left out on purpose, since two answers are defensible: two tool results in a row, merging with an empty
neighbour, empty system turns, content None without calls, content as a list of parts, role names in other
spellings (`human`, `function`, `Assistant`), arguments that are no JSON, a result that opens a conversation.

`Marked`: the distinct well-known marks that a text holds (as sets; written in order of first appearance).
A mark is the exact string which a tokenizer or template of a common family takes as its own: ChatML,
Llama 2/3, Gemma, Mistral, Phi, Zephyr, DeepSeek, `<think>`.  Exact: other case, spaces within, missing
bars, escapes and full-width look-alikes are not marks; words like "USER:" are not marks either.
Left out: a lone `<s>` (also HTML), `<eos>`/`<bos>`, `<pad>`, marks of rarer families.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Turn = dict[str, str]


@dataclass(frozen=True)
class LeftOut:
    """No row in this export; the reason in words is for the reader, not to be matched."""

    reason: str


@dataclass(frozen=True)
class Exported:
    """A conversation and its turns in the export."""

    name: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None
    expected: list[Turn] | LeftOut
    system: str | None = None


@dataclass(frozen=True)
class Marked:
    """A text and the distinct template marks in it."""

    name: str
    text: str
    marks: tuple[str, ...]


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _system(content: str) -> Message:
    return {"role": "system", "content": content}


def _human(value: str) -> Turn:
    return {"from": "human", "value": value}


def _gpt(value: str) -> Turn:
    return {"from": "gpt", "value": value}


def _observation(value: str) -> Turn:
    return {"from": "observation", "value": value}


def _function_call(call: dict[str, Any] | list[dict[str, Any]]) -> Turn:
    return {"from": "function_call", "value": json.dumps(call, ensure_ascii=False)}


def _call(name: str, arguments: Any, call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town on a day",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "day": {"type": "string"}},
            "required": ["town"],
        },
    },
}

LONG_TEXT = "The ferry leaves the northern quay at seven and comes back at nine. " * 5_000
MANY_TURNS = 300


EXPORTED: list[Exported] = [
    # what the format takes as it is
    Exported(
        "plain_one_exchange",
        [_user("How deep is the harbour?"), _assistant("Eleven metres at low tide.")],
        None,
        [_human("How deep is the harbour?"), _gpt("Eleven metres at low tide.")],
    ),
    Exported(
        "plain_three_exchanges",
        [
            _user("Name a river."),
            _assistant("The Ems."),
            _user("And its length?"),
            _assistant("About 370 kilometres."),
            _user("Where does it end?"),
            _assistant("In the Dollart."),
        ],
        None,
        [
            _human("Name a river."),
            _gpt("The Ems."),
            _human("And its length?"),
            _gpt("About 370 kilometres."),
            _human("Where does it end?"),
            _gpt("In the Dollart."),
        ],
    ),
    Exported(
        "leading_system",
        [_system("Answer in one sentence."), _user("What is peat?"), _assistant("Half-rotted moss.")],
        None,
        [_human("What is peat?"), _gpt("Half-rotted moss.")],
        system="Answer in one sentence.",
    ),
    Exported(
        "leading_system_of_several_lines_is_kept_as_it_is",
        [_system("Rules:\n1. Be short.\n\n2. Be kind.\n"), _user("Hi"), _assistant("Hello.")],
        None,
        [_human("Hi"), _gpt("Hello.")],
        system="Rules:\n1. Be short.\n\n2. Be kind.\n",
    ),
    Exported(
        "two_leading_system_turns_are_joined_by_a_blank_line",
        [_system("You are a gardener."), _system("Speak plainly."), _user("Why moss?"), _assistant("Shade.")],
        None,
        [_human("Why moss?"), _gpt("Shade.")],
        system="You are a gardener.\n\nSpeak plainly.",
    ),
    Exported(
        "three_leading_system_turns_keep_their_order",
        [_system("One."), _system("Two."), _system("Three."), _user("Go"), _assistant("Gone.")],
        None,
        [_human("Go"), _gpt("Gone.")],
        system="One.\n\nTwo.\n\nThree.",
    ),
    Exported(
        "leading_developer_is_the_system_turn",
        [{"role": "developer", "content": "Never swear."}, _user("Hi"), _assistant("Good day.")],
        None,
        [_human("Hi"), _gpt("Good day.")],
        system="Never swear.",
    ),
    Exported(
        "leading_system_then_developer_are_joined",
        [
            _system("You are a clerk."),
            {"role": "developer", "content": "Use tables."},
            _user("List the days."),
            _assistant("Mon, Tue, Wed."),
        ],
        None,
        [_human("List the days."), _gpt("Mon, Tue, Wed.")],
        system="You are a clerk.\n\nUse tables.",
    ),
    # neighbours of one role
    Exported(
        "two_user_turns_in_a_row_are_merged",
        [_user("Here is my poem."), _user("Is it good?"), _assistant("It scans.")],
        None,
        [_human("Here is my poem.\n\nIs it good?"), _gpt("It scans.")],
    ),
    Exported(
        "three_user_turns_in_a_row_are_merged_in_order",
        [_user("a"), _user("b"), _user("c"), _assistant("abc")],
        None,
        [_human("a\n\nb\n\nc"), _gpt("abc")],
    ),
    Exported(
        "two_equal_user_turns_are_both_kept",
        [_user("Hello?"), _user("Hello?"), _assistant("I am here.")],
        None,
        [_human("Hello?\n\nHello?"), _gpt("I am here.")],
    ),
    Exported(
        "two_assistant_turns_in_a_row_are_merged",
        [_user("Tell me two facts."), _assistant("Iron rusts."), _assistant("Gold does not.")],
        None,
        [_human("Tell me two facts."), _gpt("Iron rusts.\n\nGold does not.")],
    ),
    Exported(
        "user_turns_merged_in_the_second_exchange",
        [_user("Hi"), _assistant("Hello."), _user("One thing."), _user("Why rain?"), _assistant("Clouds.")],
        None,
        [_human("Hi"), _gpt("Hello."), _human("One thing.\n\nWhy rain?"), _gpt("Clouds.")],
    ),
    Exported(
        "system_turns_and_neighbours_at_once",
        [
            _system("Short."),
            _system("Kind."),
            _user("q1"),
            _user("q2"),
            _assistant("a1"),
            _assistant("a2"),
            _user("q3"),
            _assistant("a3"),
        ],
        None,
        [_human("q1\n\nq2"), _gpt("a1\n\na2"), _human("q3"), _gpt("a3")],
        system="Short.\n\nKind.",
    ),
    # what the format cannot say
    Exported(
        "ends_with_user",
        [_user("Hi"), _assistant("Hello."), _user("And now?")],
        None,
        LeftOut("the last user turn has no answer; cutting it would lose it"),
    ),
    Exported(
        "ends_with_two_user_turns",
        [_user("Hi"), _assistant("Hello."), _user("And now?"), _user("Anybody?")],
        None,
        LeftOut("after merging it still ends with a user turn"),
    ),
    Exported(
        "begins_with_assistant",
        [_assistant("Welcome! What can I do?"), _user("Nothing."), _assistant("Fine.")],
        None,
        LeftOut("an assistant turn comes first"),
    ),
    Exported(
        "begins_with_assistant_and_has_an_even_number_of_turns",
        [_assistant("Welcome!"), _user("Bye.")],
        None,
        LeftOut("an assistant turn comes first and a user turn last; an even count does not make it fit"),
    ),
    Exported(
        "assistant_follows_the_leading_system",
        [_system("Greet first."), _assistant("Good morning."), _user("Morning."), _assistant("Tea?")],
        None,
        LeftOut("an assistant turn comes first after the system turn"),
    ),
    Exported(
        "system_in_the_middle",
        [
            _user("Hi"),
            _assistant("Hello."),
            _system("Now speak French."),
            _user("Ça va ?"),
            _assistant("Oui."),
        ],
        None,
        LeftOut("a system turn in the middle has no place in the format"),
    ),
    Exported(
        "system_between_user_and_assistant",
        [_user("Count."), _system("In Latin."), _assistant("Unus, duo, tres.")],
        None,
        LeftOut("a system turn after the user turn has no place; moving it to the front changes its place"),
    ),
    Exported(
        "system_leading_and_again_in_the_middle",
        [
            _system("Be short."),
            _user("Hi"),
            _assistant("Hello."),
            _system("Be long."),
            _user("x"),
            _assistant("y"),
        ],
        None,
        LeftOut("the second system turn stands in the middle"),
    ),
    Exported(
        "system_at_the_end",
        [_user("Hi"), _assistant("Hello."), _system("The talk is over.")],
        None,
        LeftOut("a system turn at the end has no place"),
    ),
    Exported(
        "developer_in_the_middle",
        [
            _user("Hi"),
            _assistant("Hello."),
            {"role": "developer", "content": "Be brief."},
            _user("x"),
            _assistant("y"),
        ],
        None,
        LeftOut("a developer turn in the middle has no place"),
    ),
    Exported("only_system", [_system("You are alone.")], None, LeftOut("no exchange at all")),
    Exported("only_user", [_user("Anybody there?")], None, LeftOut("no answer")),
    Exported("only_assistant", [_assistant("Nobody asked.")], None, LeftOut("no question")),
    Exported("system_and_user_only", [_system("Be kind."), _user("Hi")], None, LeftOut("no answer")),
    Exported("empty_list", [], None, LeftOut("no turns")),
    Exported(
        "role_unknown",
        [_user("Hi"), {"role": "critic", "content": "Too short."}, _assistant("Hello.")],
        None,
        LeftOut("the role critic has no tag"),
    ),
    Exported(
        "role_unknown_in_the_last_turn",
        [_user("Hi"), {"role": "narrator", "content": "She smiled."}],
        None,
        LeftOut("the role narrator has no tag and is no assistant"),
    ),
    Exported(
        "role_empty",
        [{"role": "", "content": "Hi"}, _assistant("Hello.")],
        None,
        LeftOut("an empty role has no tag"),
    ),
    # tools
    Exported(
        "call_result_answer",
        [
            _user("Weather in Emden?"),
            {"role": "assistant", "content": "", "tool_calls": [_call("weather", {"town": "Emden"})]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "rain"}'},
            _assistant("It rains."),
        ],
        [WEATHER_TOOL],
        [
            _human("Weather in Emden?"),
            _function_call({"name": "weather", "arguments": {"town": "Emden"}}),
            _observation('{"sky": "rain"}'),
            _gpt("It rains."),
        ],
    ),
    Exported(
        "call_with_arguments_as_a_json_string",
        [
            _user("Weather in Köln tomorrow?"),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [_call("weather", '{"town": "Köln", "day": "tomorrow"}')],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 19 °C"},
            _assistant("Sunny, 19 °C."),
        ],
        [WEATHER_TOOL],
        [
            _human("Weather in Köln tomorrow?"),
            _function_call({"name": "weather", "arguments": {"town": "Köln", "day": "tomorrow"}}),
            _observation("sunny, 19 °C"),
            _gpt("Sunny, 19 °C."),
        ],
    ),
    Exported(
        "ends_with_a_call",
        [
            _system("Use the tool."),
            _user("Weather in Norden?"),
            {"role": "assistant", "content": "", "tool_calls": [_call("weather", {"town": "Norden"})]},
        ],
        [WEATHER_TOOL],
        [_human("Weather in Norden?"), _function_call({"name": "weather", "arguments": {"town": "Norden"}})],
        system="Use the tool.",
    ),
    Exported(
        "two_calls_in_one_turn",
        [
            _user("Weather in Emden and Leer?"),
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    _call("weather", {"town": "Emden"}, "call_1"),
                    _call("weather", {"town": "Leer"}, "call_2"),
                ],
            },
        ],
        [WEATHER_TOOL],
        [
            _human("Weather in Emden and Leer?"),
            _function_call(
                [
                    {"name": "weather", "arguments": {"town": "Emden"}},
                    {"name": "weather", "arguments": {"town": "Leer"}},
                ]
            ),
        ],
    ),
    Exported(
        "two_calls_one_after_another",
        [
            _user("Compare Emden and Leer."),
            {"role": "assistant", "content": "", "tool_calls": [_call("weather", {"town": "Emden"})]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [_call("weather", {"town": "Leer"}, "call_2")],
            },
            {"role": "tool", "tool_call_id": "call_2", "content": "sun"},
            _assistant("Leer is drier."),
        ],
        [WEATHER_TOOL],
        [
            _human("Compare Emden and Leer."),
            _function_call({"name": "weather", "arguments": {"town": "Emden"}}),
            _observation("rain"),
            _function_call({"name": "weather", "arguments": {"town": "Leer"}}),
            _observation("sun"),
            _gpt("Leer is drier."),
        ],
    ),
    Exported(
        "call_without_arguments",
        [
            _user("What time is it?"),
            {"role": "assistant", "content": "", "tool_calls": [_call("clock", {})]},
            {"role": "tool", "tool_call_id": "call_1", "content": "12:04"},
            _assistant("Four past noon."),
        ],
        [
            {
                "type": "function",
                "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
            }
        ],
        [
            _human("What time is it?"),
            _function_call({"name": "clock", "arguments": {}}),
            _observation("12:04"),
            _gpt("Four past noon."),
        ],
    ),
    Exported(
        "no_calls_in_the_list_of_calls_is_a_plain_answer",
        [_user("Hi"), {"role": "assistant", "content": "Hello.", "tool_calls": []}],
        [WEATHER_TOOL],
        [_human("Hi"), _gpt("Hello.")],
    ),
    Exported(
        "null_calls_as_a_table_of_columns_gives_them_are_a_plain_answer",
        [
            {"role": "user", "content": "Hi", "tool_calls": None},
            {"role": "assistant", "content": "Hello.", "tool_calls": None},
        ],
        None,
        [_human("Hi"), _gpt("Hello.")],
    ),
    Exported(
        "text_beside_a_call",
        [
            _user("Weather in Emden?"),
            {
                "role": "assistant",
                "content": "I look it up.",
                "tool_calls": [_call("weather", {"town": "Emden"})],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            _assistant("Rain."),
        ],
        [WEATHER_TOOL],
        LeftOut("a function_call is JSON and nothing else; the sentence beside it would be lost"),
    ),
    Exported(
        "answer_directly_after_a_call",
        [
            _user("Weather in Emden?"),
            {"role": "assistant", "content": "", "tool_calls": [_call("weather", {"town": "Emden"})]},
            _assistant("Perhaps rain."),
        ],
        [WEATHER_TOOL],
        LeftOut("function_call and gpt stand at even places and cannot follow one another"),
    ),
    Exported(
        "ends_with_a_tool_result",
        [
            _user("Weather in Emden?"),
            {"role": "assistant", "content": "", "tool_calls": [_call("weather", {"town": "Emden"})]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
        [WEATHER_TOOL],
        LeftOut("the tool's result has no answer"),
    ),
    Exported(
        "user_speaks_directly_after_a_tool_result",
        [
            _user("Weather in Emden?"),
            {"role": "assistant", "content": "", "tool_calls": [_call("weather", {"town": "Emden"})]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            _user("Well?"),
            _assistant("Rain."),
        ],
        [WEATHER_TOOL],
        LeftOut("observation and human stand at odd places and cannot follow one another"),
    ),
    Exported(
        "tool_result_directly_after_the_user",
        [_user("Weather?"), {"role": "tool", "content": "rain"}, _assistant("Rain.")],
        [WEATHER_TOOL],
        LeftOut("observation and human stand at odd places and cannot follow one another"),
    ),
    Exported(
        "tools_described_but_never_called",
        [_user("Hi"), _assistant("Hello.")],
        [WEATHER_TOOL],
        [_human("Hi"), _gpt("Hello.")],
    ),
    # contents
    Exported(
        "empty_content_in_an_earlier_turn_is_a_turn",
        [_user(""), _assistant("You said nothing."), _user("Right."), _assistant("Fine.")],
        None,
        [_human(""), _gpt("You said nothing."), _human("Right."), _gpt("Fine.")],
    ),
    Exported(
        "white_space_at_the_ends_is_kept",
        [_user("  indented\n"), _assistant("\n\tdone  ")],
        None,
        [_human("  indented\n"), _gpt("\n\tdone  ")],
    ),
    Exported(
        "unicode_is_kept",
        [_user("日本語で「海」は？ 🌊👩‍🚀"), _assistant("うみ — مرحبا — Ünïcödé — e\u0301 — \u2028 — 𝔘")],
        None,
        [_human("日本語で「海」は？ 🌊👩‍🚀"), _gpt("うみ — مرحبا — Ünïcödé — e\u0301 — \u2028 — 𝔘")],
    ),
    Exported(
        "quotes_backslashes_and_braces_are_kept",
        [_user('Say "C:\\temp\\new" and {{content}}.'), _assistant('{"from": "human", "value": "x"}')],
        None,
        [_human('Say "C:\\temp\\new" and {{content}}.'), _gpt('{"from": "human", "value": "x"}')],
    ),
    Exported(
        "very_long_answer",
        [_user("Repeat the timetable."), _assistant(LONG_TEXT)],
        None,
        [_human("Repeat the timetable."), _gpt(LONG_TEXT)],
    ),
    Exported(
        "very_many_turns",
        [turn for i in range(MANY_TURNS) for turn in (_user(f"question {i}"), _assistant(f"answer {i}"))],
        None,
        [turn for i in range(MANY_TURNS) for turn in (_human(f"question {i}"), _gpt(f"answer {i}"))],
    ),
    Exported(
        "very_many_user_turns_before_one_answer",
        [*(_user(f"line {i}") for i in range(MANY_TURNS)), _assistant("Read.")],
        None,
        [_human("\n\n".join(f"line {i}" for i in range(MANY_TURNS))), _gpt("Read.")],
    ),
]


MARKED: list[Marked] = [
    Marked("marks_plain_prose", "The ferry leaves at seven.", ()),
    Marked("marks_empty_text", "", ()),
    Marked(
        "marks_chatml",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>",
        ("<|im_start|>", "<|im_end|>"),
    ),
    Marked("marks_chatml_end_alone_within_a_sentence", "Stop at <|im_end|> please.", ("<|im_end|>",)),
    Marked("marks_touch_letters", "before<|im_start|>after", ("<|im_start|>",)),
    Marked("marks_in_a_code_fence", "```python\nSTOP = '<|im_end|>'\n```", ("<|im_end|>",)),
    Marked(
        "marks_llama_2",
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello.",
        ("[INST]", "<<SYS>>", "<</SYS>>", "[/INST]"),
    ),
    Marked(
        "marks_llama_2_with_ends_of_sequence",
        "<s>[INST] Hi [/INST] Hello. </s>",
        ("<s>", "[INST]", "[/INST]", "</s>"),
    ),
    Marked(
        "marks_llama_3",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    Marked("marks_llama_3_end_of_text", "That is all.<|end_of_text|>", ("<|end_of_text|>",)),
    Marked("marks_gpt_end_of_text", "First document.<|endoftext|>Second document.", ("<|endoftext|>",)),
    Marked(
        "marks_gemma",
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    Marked("marks_mistral_instruction", "[INST] Name a river. [/INST] The Ems.", ("[INST]", "[/INST]")),
    Marked("marks_mistral_tool_calls", '[TOOL_CALLS] [{"name": "clock"}]', ("[TOOL_CALLS]",)),
    Marked(
        "marks_phi_3",
        "<|system|>\nShort.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>",
        ("<|system|>", "<|end|>", "<|user|>", "<|assistant|>"),
    ),
    Marked(
        "marks_zephyr",
        "<|user|>\nHi</s>\n<|assistant|>\nHello.</s>",
        ("<|user|>", "</s>", "<|assistant|>"),
    ),
    Marked(
        "marks_deepseek_full_width_bars",
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello.<｜end▁of▁sentence｜>",
        ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    ),
    Marked("marks_deepseek_one_of_them", "She typed <｜Assistant｜> by hand.", ("<｜Assistant｜>",)),
    Marked("marks_think_both", "<think>\nHm.\n</think>\nYes.", ("<think>", "</think>")),
    Marked("marks_think_closing_alone", "So it is four.\n</think>\n\nFour.", ("</think>",)),
    Marked(
        "marks_of_several_families",
        "<|im_end|> closes ChatML, <|eot_id|> Llama 3 and <end_of_turn> Gemma.",
        ("<|im_end|>", "<|eot_id|>", "<end_of_turn>"),
    ),
    Marked("marks_many_times_are_named_once", "<|im_end|>" * 50, ("<|im_end|>",)),
    Marked("marks_within_more_brackets", "<<|im_end|>>", ("<|im_end|>",)),
    Marked("marks_far_behind_in_a_long_text", LONG_TEXT + "<|im_start|>", ("<|im_start|>",)),
    # near misses
    Marked("near_miss_space_within", "Stop at <|im_end |> please.", ()),
    Marked("near_miss_space_after_the_bracket", "Stop at < |im_end|> please.", ()),
    Marked("near_miss_bars_missing", "Stop at <im_end> and <im_start> please.", ()),
    Marked("near_miss_one_bar_missing", "Stop at <|im_end> or <im_end|> please.", ()),
    Marked("near_miss_brackets_missing", "The token im_end, also written |im_end|.", ()),
    Marked("near_miss_hyphen_for_underscore", "Stop at <|im-end|> please.", ()),
    Marked("near_miss_upper_case", "Stop at <|IM_END|> please.", ()),
    Marked("near_miss_html_escape", "Stop at &lt;|im_end|&gt; please.", ()),
    Marked("near_miss_zero_width_space_within", "Stop at <|im\u200b_end|> please.", ()),
    Marked("near_miss_broken_by_a_line", "Stop at <|im_\nend|> please.", ()),
    Marked("near_miss_full_width_bars_for_chatml", "Stop at <｜im_end｜> please.", ()),
    Marked("near_miss_deepseek_with_ascii_underscores", "It ends with <｜end_of_sentence｜> there.", ()),
    Marked("near_miss_gemma_in_words", "<start of turn> and <end-of-turn> and start_of_turn", ()),
    Marked("near_miss_inst_in_lower_case", "[inst] Hi [/inst]", ()),
    Marked("near_miss_longer_word_in_brackets", "[INSTALL] the [INSTRUMENT] first.", ()),
    Marked("near_miss_thinking", "<thinking>Hm.</thinking> I <i>think</i> so, < think >.", ()),
    Marked("near_miss_sys_with_single_brackets", "<SYS>Be kind.</SYS>", ()),
    Marked("near_miss_vicuna_words", "USER: Hi\nASSISTANT: Hello.", ()),
    Marked("near_miss_alpaca_headings", "### Instruction:\nAdd.\n\n### Response:\n4", ()),
    Marked("near_miss_pipe_operators", "let y = x |> f <| g and a <|> b, [1;2] |> List.map h", ()),
    Marked("near_miss_ordinary_tags", "<user>Hi</user><system>on</system><end/><|...|>", ()),
    Marked("near_miss_cut_off_at_the_end", "The answer is four.<|im_end|", ()),
]


CASES: list[Exported | Marked] = [*EXPORTED, *MARKED]
