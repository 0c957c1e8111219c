"""Cases of the instruction side: what lies in `sft/<name>/**` and which examples must come of it."""

from __future__ import annotations

import codecs
import json

import pyarrow as pa

from tests.aitp_tasks.inputs.case import (
    HTML,
    LFS,
    Case,
    array,
    csv_bytes,
    gz,
    ipc_stream,
    jsonl,
    line,
    parquet,
    xz,
    zst,
)

CASES: list[Case] = []
ALL: dict = {"sft_failure_budget": 1.0}
CHOSEN: dict = {"preference": "chosen"}

_Q = (
    "Why does a canal need locks?",
    "How do I keep basil alive in winter?",
    "Name three uses of an old bicycle tube.",
    "What makes a bell ring low?",
    "Explain tides to a child.",
    "How long should bread dough rest?",
    "Which tool cuts glass tiles?",
    "Where do swifts sleep?",
)
_A = (
    "Because water does not climb hills, and boats must.",
    "Give it light, little water and no draught.",
    "A strap, a door stop and a seal for a jar.",
    "Its size and the thickness of its rim.",
    "The moon pulls the sea and the earth turns below.",
    "Until a pressed finger leaves a slow dent.",
    "A scoring wheel and a steady hand.",
    "On the wing, high above the town.",
)


def q(i: int) -> str:
    return _Q[i % 8] + (f" (Question {i}.)" if i > 7 else "")


def a(i: int) -> str:
    return _A[i % 8] + (f" (Answer {i}.)" if i > 7 else "")


def m(role: str, content: str, **more) -> dict:
    return {"role": role, "content": content, **more}


def sys(text: str) -> dict:
    return m("system", text)


def user(text: str, **more) -> dict:
    return m("user", text, **more)


def bot(text: str, **more) -> dict:
    return m("assistant", text, **more)


def ex(*messages: dict, tools: list | None = None) -> dict:
    return {"messages": list(messages)} if tools is None else {"messages": list(messages), "tools": tools}


def pair(i: int) -> dict:
    return ex(user(q(i)), bot(a(i)))


def pairs(*numbers: int) -> list:
    return [pair(i) for i in numbers]


def both(*numbers: int) -> list[str]:
    return [f"{q(i)}\n{a(i)}" for i in numbers]


def msgs(*numbers: int) -> list[dict]:
    return [{"messages": [user(q(i)), bot(a(i))]} for i in numbers]


def alp(*numbers: int) -> list[dict]:
    return [{"instruction": q(i), "input": "", "output": a(i)} for i in numbers]


def fv(role: str, value: str, **more) -> dict:
    return {"from": role, "value": value, **more}


def share(*numbers: int) -> list[dict]:
    return [{"id": f"c{i}", "conversations": [fv("human", q(i)), fv("gpt", a(i))]} for i in numbers]


def call(name: str, arguments: dict, id: str | None = None) -> dict:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if id is None else {"id": id, **made}


def raw_call(name: str, arguments: object, id: str) -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["town"],
        },
    },
}
WEATHER_BARE = {
    "name": "weather",
    "description": "Weather of a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


def case(name: str, files, **kw) -> None:
    CASES.append(Case(name="sft_" + name, files=files, **kw))


# ---------------------------------------------------------------- Alpaca and other pairs of columns

case(
    "alpaca_as_published",
    lambda: {
        "alpaca_data.json": array(
            [
                {"instruction": q(0), "input": "", "output": a(0)},
                {"instruction": "Sort the words.", "input": "pear, apple, fig", "output": "apple, fig, pear"},
                {
                    "instruction": q(1),
                    "input": "",
                    "output": a(1),
                    "text": "Below is an instruction that describes a task.\n\n### Instruction:\n"
                    + q(1)
                    + "\n\n### Response:\n"
                    + a(1),
                },
            ]
        )
    },
    examples=[pair(0), ex(user("Sort the words.\npear, apple, fig"), bot("apple, fig, pear")), pair(1)],
    compared=[both(0)[0], "Sort the words.\npear, apple, fig\napple, fig, pear", both(1)[0]],
    why="One JSON array; the rendered text beside the columns is not an input.",
)
case(
    "alpaca_input_blank_or_null_is_not_joined",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"instruction": q(0), "input": None, "output": a(0)},
                {"instruction": q(1), "input": "  \n ", "output": a(1)},
                {"instruction": q(2), "output": a(2)},
            ]
        )
    },
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="A blank input adds nothing.",
)
case(
    "alpaca_system_and_history",
    lambda: {
        "a.json": array(
            [
                {
                    "system": "You answer in one sentence.",
                    "history": [["What is the capital of Norway?", "Oslo."], ["And of Peru?", "Lima."]],
                    "instruction": "And of Kenya?",
                    "input": "",
                    "output": "Nairobi.",
                },
                {"instruction": q(0), "input": "", "output": a(0), "system": "", "history": []},
                {"instruction": q(1), "input": "", "output": a(1), "system": None, "history": None},
            ]
        )
    },
    examples=[
        ex(
            sys("You answer in one sentence."),
            user("What is the capital of Norway?"),
            bot("Oslo."),
            user("And of Peru?"),
            bot("Lima."),
            user("And of Kenya?"),
            bot("Nairobi."),
        ),
        *pairs(0, 1),
    ],
    compared=["What is the capital of Norway?\nOslo.", *both(0, 1)],
    why="History becomes turns, system a system turn; empty ones are none.",
)
case(
    "alpaca_history_in_parquet_with_nulls",
    lambda: {
        "a.parquet": parquet(
            [
                {
                    "instruction": "Now the other one.",
                    "input": "Keep it short.",
                    "output": "Done.",
                    "system": None,
                    "history": [["Paint one door.", "Painted."]],
                },
                {"instruction": q(4), "input": None, "output": a(4), "system": "Be kind.", "history": None},
            ]
        )
    },
    examples=[
        ex(
            user("Paint one door."), bot("Painted."), user("Now the other one.\nKeep it short."), bot("Done.")
        ),
        ex(sys("Be kind."), user(q(4)), bot(a(4))),
    ],
    why="The same from Parquet, where absent is null.",
)
case(
    "dolly_with_context",
    lambda: {
        "databricks-dolly.jsonl": jsonl(
            [
                {
                    "instruction": "Who built the bridge?",
                    "context": "The bridge was built by Ada Holm in 1911.",
                    "response": "Ada Holm.",
                    "category": "closed_qa",
                },
                {"instruction": q(2), "context": "", "response": a(2), "category": "brainstorming"},
            ]
        )
    },
    examples=[
        ex(user("Who built the bridge?\nThe bridge was built by Ada Holm in 1911."), bot("Ada Holm.")),
        pair(2),
    ],
    compared=["Who built the bridge?\nThe bridge was built by Ada Holm in 1911.\nAda Holm.", *both(2)],
    why="Dolly's context is joined as Alpaca's input.",
)
case(
    "instruction_response",
    lambda: {"a.parquet": parquet([{"instruction": q(i), "response": a(i)} for i in range(4)])},
    examples=pairs(0, 1, 2, 3),
    compared=both(0, 1, 2, 3),
    why="instruction/response is in the table.",
)
case(
    "instruction_output_without_input",
    lambda: {"evol.json": array([{"instruction": q(i), "output": a(i)} for i in range(3)])},
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="WizardLM's evolved instructions have two columns.",
)
case(
    "openorca",
    lambda: {
        "1M-GPT4-Augmented.parquet": parquet(
            [
                {
                    "id": "niv.1",
                    "system_prompt": "You are an AI assistant. Think step by step.",
                    "question": q(5),
                    "response": a(5),
                },
                {"id": "flan.2", "system_prompt": "", "question": q(6), "response": a(6)},
            ]
        )
    },
    examples=[ex(sys("You are an AI assistant. Think step by step."), user(q(5)), bot(a(5))), pair(6)],
    compared=both(5, 6),
    why="OpenOrca: system_prompt is a system turn, an empty one none.",
)
case(
    "question_answer_gsm8k",
    lambda: {
        "main/train.jsonl": jsonl(
            [
                {
                    "question": "Mia has 3 crates of 4 jars. How many jars?",
                    "answer": "3 * 4 = <<3*4=12>>12 jars.\n#### 12",
                }
            ]
        )
    },
    examples=[
        ex(user("Mia has 3 crates of 4 jars. How many jars?"), bot("3 * 4 = <<3*4=12>>12 jars.\n#### 12"))
    ],
    why="GSM8K's answers are kept as they are.",
)
case(
    "prompt_completion_strings",
    lambda: {"train.jsonl": jsonl([{"prompt": q(i), "completion": a(i)} for i in range(3)])},
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="prompt/completion in TRL's standard form.",
)
case(
    "prompt_completion_conversational",
    lambda: {
        "train.jsonl": jsonl(
            [
                {"prompt": [sys("Answer plainly."), user(q(0))], "completion": [bot(a(0))]},
                {
                    "prompt": [user("Hello."), bot("Hello. What can I do?"), user(q(1))],
                    "completion": [bot(a(1))],
                },
            ]
        )
    },
    examples=[
        ex(sys("Answer plainly."), user(q(0)), bot(a(0))),
        ex(user("Hello."), bot("Hello. What can I do?"), user(q(1)), bot(a(1))),
    ],
    compared=[both(0)[0], "Hello.\nHello. What can I do?"],
    why="TRL's conversational form: the completion follows the prompt.",
)
case(
    "input_output",
    lambda: {"a.jsonl": jsonl([{"input": q(i), "output": a(i), "source": "x"} for i in range(3)])},
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="input/output is in the table.",
)
case(
    "columns_beside_the_pair_do_not_matter",
    lambda: {
        "a.parquet": parquet(
            [
                {
                    "idx": i,
                    "instruction": q(i),
                    "input": "",
                    "output": a(i),
                    "score": 4.5,
                    "topic": None,
                    "embedding": [0.1, 0.2],
                    "meta": {"model": "m", "n": 1},
                }
                for i in range(3)
            ]
        )
    },
    examples=pairs(0, 1, 2),
    why="Extra columns are counted, not fatal.",
)
case(
    "alpaca_with_text_label_is_no_kto",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"instruction": q(i), "input": "", "output": a(i), "label": lab}
                for i, lab in enumerate(("gardening", "howto", "science"))
            ]
        )
    },
    examples=pairs(0, 1, 2),
    why="A label that is a topic and no truth value makes no preference set.",
)
case(
    "magpie_as_published",
    lambda: {
        "train.parquet": parquet(
            [
                {
                    "uuid": f"u{i}",
                    "model": "m",
                    "gen_input_configs": {"temperature": 1.0, "top_p": 1.0},
                    "instruction": q(i),
                    "response": a(i),
                    "conversations": [fv("human", q(i)), fv("gpt", a(i))],
                    "task_category": "Advice",
                    "other_task_category": [],
                    "difficulty": None,
                    "reward_model_score": None,
                    "min_neighbor_distance": 0.3,
                }
                for i in range(3)
            ]
        )
    },
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="Magpie holds the same pair in two forms; it is one example a row.",
)
case(
    "ultrachat_200k_prompt_beside_messages",
    lambda: {
        "train_sft-00000.parquet": parquet(
            [
                {
                    "prompt": q(0),
                    "prompt_id": "ab",
                    "messages": [user(q(0)), bot(a(0)), user("Tell me more."), bot("There is little more.")],
                }
            ]
        )
    },
    examples=[ex(user(q(0)), bot(a(0)), user("Tell me more."), bot("There is little more."))],
    compared=both(0),
    why="The prompt column repeats the first turn; the conversation is in messages.",
)
case(
    "no_robots_with_system",
    lambda: {
        "train.parquet": parquet(
            [
                {
                    "prompt": q(0),
                    "prompt_id": "x",
                    "messages": [sys("The assistant is a gardener."), user(q(1)), bot(a(1))],
                    "category": "Chat",
                }
            ]
        )
    },
    examples=[ex(sys("The assistant is a gardener."), user(q(1)), bot(a(1)))],
    compared=both(1),
    why="No Robots keeps a system turn in messages.",
)
case(
    "tulu3_mixture",
    lambda: {
        "train-00000-of-00006.parquet": parquet(
            [
                {
                    "id": "t1",
                    "messages": [{"content": q(0), "role": "user"}, {"content": a(0), "role": "assistant"}],
                    "source": "ai2/a",
                },
                {
                    "id": "t2",
                    "messages": [
                        {"content": q(1), "role": "user"},
                        {"content": a(1), "role": "assistant"},
                        {"content": "Thanks!", "role": "user"},
                        {"content": "Gladly.", "role": "assistant"},
                    ],
                    "source": "ai2/b",
                },
            ]
        )
    },
    examples=[pair(0), ex(user(q(1)), bot(a(1)), user("Thanks!"), bot("Gladly."))],
    compared=both(0, 1),
    why="Tulu 3 as published.",
)

# ---------------------------------------------------------------- ShareGPT and its relatives

case(
    "sharegpt_as_published",
    lambda: {
        "sg_90k_part1.json": array(
            [
                {
                    "id": "i1",
                    "conversations": [
                        fv("human", q(0)),
                        fv("gpt", a(0)),
                        fv("human", "More, please."),
                        fv("gpt", "That is all I know."),
                    ],
                },
                {
                    "id": "i2",
                    "conversations": [
                        fv("gpt", "This one starts with an answer."),
                        fv("human", q(1)),
                        fv("gpt", a(1)),
                    ],
                },
                {"id": "i3", "conversations": []},
                {
                    "id": "i4",
                    "conversations": [
                        fv("human", q(2), markdown=None, text=None),
                        fv("gpt", a(2), markdown="x", text=None),
                    ],
                },
                {"id": "i5", "conversations": [fv("gpt", "Nobody asked.")]},
            ]
        )
    },
    examples=[
        ex(user(q(0)), bot(a(0)), user("More, please."), bot("That is all I know.")),
        ex(bot("This one starts with an answer."), user(q(1)), bot(a(1))),
        "rejected",
        pair(2),
        "rejected",
    ],
    compared=both(0, 1, 2),
    why="Rows without turns or without a user turn hold no pair; those that begin with the assistant are compared by the answer after the question.",
)
case(
    "sharegpt_default_budget_bears_rows_without_pairs",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"id": str(i), "conversations": [] if i % 25 == 0 else [fv("human", q(i)), fv("gpt", a(i))]}
                for i in range(100)
            ]
        )
    },
    examples=["rejected" if i % 25 == 0 else pair(i) for i in range(100)],
    why="Four of a hundred have no turns: counted, no budget is spent.",
)
case(
    "sharegpt_system_turn_and_system_column",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"conversations": [fv("system", "You are terse."), fv("human", q(0)), fv("gpt", a(0))]},
                {"system": "You are friendly.", "conversations": [fv("human", q(1)), fv("gpt", a(1))]},
                {"system": "", "conversations": [fv("human", q(2)), fv("gpt", a(2))]},
            ]
        )
    },
    examples=[
        ex(sys("You are terse."), user(q(0)), bot(a(0))),
        ex(sys("You are friendly."), user(q(1)), bot(a(1))),
        pair(2),
    ],
    compared=both(0, 1, 2),
    why="Both places of a system prompt are kept.",
)
case(
    "openthoughts_system_and_marked_thoughts",
    lambda: {
        "train.parquet": parquet(
            [
                {
                    "system": "Explore the question first.",
                    "conversations": [
                        fv("user", q(3)),
                        fv(
                            "assistant",
                            "<|begin_of_thought|>\n\nLet me see.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
                            + a(3)
                            + "\n\n<|end_of_solution|>",
                        ),
                    ],
                }
            ]
        )
    },
    examples=[
        ex(
            sys("Explore the question first."),
            user(q(3)),
            bot(
                "<|begin_of_thought|>\n\nLet me see.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
                + a(3)
                + "\n\n<|end_of_solution|>"
            ),
        )
    ],
    why="user and assistant under from/value; marks inside an answer are part of it.",
)
case(
    "openhermes_with_many_null_columns",
    lambda: {
        "openhermes2_5.json": array(
            [
                {
                    "custom_instruction": None,
                    "topic": None,
                    "model_name": None,
                    "model": None,
                    "skip_prompt_formatting": False,
                    "category": "orca",
                    "conversations": [fv("human", q(i), weight=None), fv("gpt", a(i), weight=None)],
                    "views": None,
                    "language": None,
                    "id": None,
                    "title": None,
                    "idx": None,
                    "hash": None,
                    "avatarUrl": None,
                    "system_prompt": None,
                    "source": "airoboros",
                }
                for i in range(2)
            ]
        )
    },
    examples=pairs(0, 1),
    compared=both(0, 1),
    why="Columns of nulls are no other form, and a null weight is none.",
)
case(
    "conversations_with_role_and_content",
    lambda: {"a.jsonl": jsonl([{"conversations": [user(q(i)), bot(a(i))]} for i in range(2)])},
    examples=pairs(0, 1),
    compared=both(0, 1),
    why="The table: conversations with role/content.",
)
case(
    "conversation_wildchat",
    lambda: {
        "train.parquet": parquet(
            [
                {
                    "conversation_hash": f"h{i}",
                    "model": "gpt-4",
                    "timestamp": "2023-04-09",
                    "conversation": [
                        {
                            "content": q(i),
                            "country": "X",
                            "hashed_ip": "1",
                            "language": "English",
                            "redacted": False,
                            "role": "user",
                            "state": None,
                            "timestamp": None,
                            "toxic": False,
                            "turn_identifier": 10 + i,
                        },
                        {
                            "content": a(i),
                            "country": None,
                            "hashed_ip": None,
                            "language": "English",
                            "redacted": False,
                            "role": "assistant",
                            "state": None,
                            "timestamp": "t",
                            "toxic": False,
                            "turn_identifier": 10 + i,
                        },
                    ],
                    "turn": 1,
                    "language": "English",
                    "openai_moderation": [{"flagged": False}],
                    "toxic": False,
                    "redacted": False,
                }
                for i in range(3)
            ]
        )
    },
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="WildChat's conversation, with much beside role and content.",
)
case(
    "conversation_with_from_and_value",
    lambda: {"a.jsonl": jsonl([{"conversation": [fv("human", q(i)), fv("gpt", a(i))]} for i in range(2)])},
    examples=pairs(0, 1),
    why="The singular name with ShareGPT's turns.",
)
case(
    "messages_with_from_and_value",
    lambda: {"a.jsonl": jsonl([{"messages": [fv("human", q(i)), fv("gpt", a(i))]} for i in range(2)])},
    examples=pairs(0, 1),
    why="ShareGPT's turns under OpenAI's column name.",
)
case(
    "ultrachat_data_list",
    lambda: {
        "train_0.jsonl": jsonl(
            [
                {"id": "0", "data": [q(0), a(0), "And then?", "Then nothing."]},
                {"id": "1", "data": [q(1), a(1)]},
            ]
        )
    },
    examples=[ex(user(q(0)), bot(a(0)), user("And then?"), bot("Then nothing.")), pair(1)],
    compared=both(0, 1),
    why="UltraChat's data alternates, the user first.",
)
case(
    "lima_list_of_strings_in_conversations",
    lambda: {
        "train.jsonl": jsonl(
            [
                {"conversations": [q(0), a(0)], "source": "stackexchange"},
                {"conversations": [q(1), a(1), "Why?", "So it goes."], "source": "multi_turn"},
            ]
        )
    },
    examples=[pair(0), ex(user(q(1)), bot(a(1)), user("Why?"), bot("So it goes."))],
    compared=both(0, 1),
    why="LIMA's conversations are alternating texts, the user first.",
)
case(
    "messages_as_a_json_string",
    lambda: {
        "a.parquet": parquet([{"messages": line([user(q(i)), bot(a(i))])} for i in range(3)]),
        "b.jsonl": jsonl([{"conversations": json.dumps([fv("human", q(3)), fv("gpt", a(3))])}]),
    },
    examples=pairs(0, 1, 2, 3),
    compared=both(0, 1, 2, 3),
    why="A list written as a JSON string is that list.",
)
case(
    "sharegpt_in_parquet_list_of_struct",
    lambda: {
        "a.parquet": parquet(
            [
                {
                    "conversations": [
                        {"from": "human", "value": q(i), "weight": None},
                        {"from": "gpt", "value": a(i), "weight": None},
                    ]
                }
                for i in range(3)
            ]
        )
    },
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="A column of nulls in the struct is absent.",
)
case(
    "save_to_disk_arrow_of_messages",
    lambda: {"data-00000-of-00001.arrow": ipc_stream(pa.Table.from_pylist(msgs(0, 1, 2)), rows_a_batch=2)},
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="Arrow streams of datasets serve SFT sets as well as corpora.",
)
case(
    "consecutive_turns_of_one_role_stay_apart",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "conversations": [
                        fv("human", q(0)),
                        fv("human", "I mean the narrow ones."),
                        fv("gpt", a(0)),
                        fv("gpt", "In short: water."),
                    ]
                }
            ]
        )
    },
    examples=[ex(user(q(0)), user("I mean the narrow ones."), bot(a(0)), bot("In short: water."))],
    compared=both(0),
    why="Turns are kept as the user gave them.",
)

# ---------------------------------------------------------------- role names


def roles(
    name: str,
    human: str,
    machine: str,
    key: str = "from",
    value: str = "value",
    why: str = "A known family's names of the roles.",
) -> None:
    case(
        name,
        lambda: {
            "a.jsonl": jsonl(
                [
                    {"conversations": [{key: human, value: q(i)}, {key: machine, value: a(i)}]}
                    for i in range(3)
                ]
            )
        },
        examples=pairs(0, 1, 2),
        compared=both(0, 1, 2),
        why=why,
    )


roles("roles_user_capital_gpt_capital", "User", "GPT")
roles("roles_user_bot", "user", "bot")
roles("roles_human_capital_assistant_capital", "Human", "Assistant", "role", "content")
roles("roles_user_chatgpt", "user", "chatgpt")
roles(
    "roles_user_model_of_gemma",
    "user",
    "model",
    "role",
    "content",
    "Gemma and Gemini call the assistant 'model'.",
)
roles(
    "roles_prompter_assistant_of_oasst",
    "prompter",
    "assistant",
    "role",
    "content",
    "Open Assistant calls the user 'prompter'.",
)
roles(
    "roles_upper_case", "USER", "ASSISTANT", "role", "content", "Role names are taken without regard to case."
)
case(
    "roles_differ_from_row_to_row",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"conversations": [fv("human", q(0)), fv("gpt", a(0))]},
                {"conversations": [fv("user", q(1)), fv("bing", a(1))]},
                {"conversations": [fv("user", q(2)), fv("bard", a(2))]},
                {"conversations": [fv("human", q(3)), fv("chatgpt", a(3))]},
                {
                    "messages": [
                        {"role": "System", "content": "Short."},
                        {"role": "User", "content": q(4)},
                        {"role": "Bot", "content": a(4)},
                    ]
                },
            ]
        )
    },
    examples=[*pairs(0, 1, 2, 3), ex(sys("Short."), user(q(4)), bot(a(4)))],
    compared=both(0, 1, 2, 3, 4),
    why="ShareGPT's raw dump names bing, bard and chatgpt beside gpt.",
)
case(
    "role_developer_stays",
    lambda: {"a.jsonl": jsonl([{"messages": [m("developer", "Use metric units."), user(q(0)), bot(a(0))]}])},
    examples=[ex(m("developer", "Use metric units."), user(q(0)), bot(a(0)))],
    compared=both(0),
    why="developer is a role of its own in the canonical form.",
)
case(
    "one_row_with_an_unknown_role",
    lambda: {
        "a.jsonl": jsonl(
            [*msgs(0, 1), {"messages": [user(q(2)), m("narrator", "Night fell."), bot(a(2))]}, *msgs(3)]
        )
    },
    settings=ALL,
    examples=[*pairs(0, 1), None, pair(3)],
    why="A turn of an unknown role cannot be kept nor dropped: the row is damaged.",
)
case(
    "all_rows_with_unknown_roles_refused",
    lambda: {
        "a.jsonl": jsonl([{"conversations": [fv("Alice", q(i)), fv("Bertram", a(i))]} for i in range(5)])
    },
    settings=ALL,
    refused=("alice", "bertram"),
    why="The roles that were seen are quoted.",
)
case(
    "other_turn_keys_refused",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "conversations": [
                        {"speaker": "user", "utterance": q(i)},
                        {"speaker": "assistant", "utterance": a(i)},
                    ]
                }
                for i in range(5)
            ]
        )
    },
    settings=ALL,
    refused=("speaker", "utterance"),
    why="The keys of the turns that were seen are quoted.",
)
case(
    "unknown_columns_refused",
    lambda: {"a.parquet": parquet([{"frage": q(i), "antwort": a(i)} for i in range(5)])},
    settings=ALL,
    refused=("frage", "antwort"),
    why="The columns that were seen are quoted.",
)

# ---------------------------------------------------------------- mixtures per row

case(
    "first_row_of_another_form",
    lambda: {"a.jsonl": jsonl([{"error": "timeout"}, *msgs(0, 1, 2)])},
    settings=ALL,
    examples=[None, *pairs(0, 1, 2)],
    why="The first object costs itself only.",
)
case(
    "messages_null_beside_alpaca_columns",
    lambda: {
        "a.parquet": parquet(
            [
                {"messages": [user(q(0)), bot(a(0))], "instruction": None, "input": None, "output": None},
                {"messages": None, "instruction": q(1), "input": None, "output": a(1)},
                {"messages": None, "instruction": "Add these.", "input": "2 and 5", "output": "7"},
            ]
        )
    },
    examples=[pair(0), pair(1), ex(user("Add these.\n2 and 5"), bot("7"))],
    compared=[*both(0, 1), "Add these.\n2 and 5\n7"],
    why="Where forms mix, each row is read by the form that it fills.",
)
case(
    "three_forms_in_one_jsonl",
    lambda: {
        "a.jsonl": jsonl(
            [
                msgs(0)[0],
                alp(1)[0],
                share(2)[0],
                {"prompt": q(3), "completion": a(3)},
                {"question": q(4), "answer": a(4)},
                msgs(5)[0],
            ]
        )
    },
    examples=pairs(0, 1, 2, 3, 4, 5),
    compared=both(0, 1, 2, 3, 4, 5),
    why="A concatenation of sets is common before training.",
)
case(
    "shards_of_different_forms_and_formats",
    lambda: {
        "1/alpaca.json": array(alp(0, 1)),
        "2/sharegpt.jsonl.gz": gz(jsonl(share(2))),
        "3/messages.parquet": parquet(msgs(3, 4)),
        "4/dolly.jsonl.zst": zst(jsonl([{"instruction": q(5), "context": "", "response": a(5)}])),
        "5/pairs.csv": csv_bytes([["prompt", "completion"], [q(6), a(6)]]),
        "6/last.jsonl.xz": xz(jsonl(msgs(7))),
    },
    examples=pairs(0, 1, 2, 3, 4, 5, 6, 7),
    compared=both(0, 1, 2, 3, 4, 5, 6, 7),
    why="Each shard in its own form and format.",
)
case(
    "broken_rows_cost_themselves",
    lambda: {
        "a.jsonl": jsonl(msgs(0))
        + b'{"messages": [{"role": "user", "content": "Cut\n'
        + jsonl(msgs(1))
        + b"[]\n{}\n"
        + jsonl([{"messages": 7}, {"messages": "no list"}])
        + jsonl(msgs(2))
    },
    settings=ALL,
    examples=[pair(0), None, pair(1), None, None, None, None, pair(2)],
    why="Damaged rows are quarantined one by one.",
)
case(
    "damage_beyond_the_budget_refused",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"messages": [user(q(i)), m("narrator" if i % 10 == 0 else "assistant", a(i))]}
                for i in range(100)
            ]
        )
    },
    refused=("narrator",),
    why="Ten percent damaged rows are above the default budget, and the role that was met is quoted.",
)
case(
    "most_rows_give_nothing_refused",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"conversations": [fv("gpt", a(i))] if i < 8 else [fv("human", q(i)), fv("gpt", a(i))]}
                for i in range(10)
            ]
        )
    },
    settings=ALL,
    refused=("8",),
    why="A set of which eight rows of ten hold no pair is refused, and the share is told.",
)

# ---------------------------------------------------------------- what is compared

case(
    "compared_greeting_before_the_question",
    lambda: {
        "a.jsonl": jsonl(
            [{"messages": [bot("Greetings."), user("Explain the lock."), bot("A lock lifts boats.")]}]
        )
    },
    examples=[ex(bot("Greetings."), user("Explain the lock."), bot("A lock lifts boats."))],
    compared=["Explain the lock.\nA lock lifts boats."],
    why="The first answer after the question, not the greeting.",
)
case(
    "compared_answer_after_tool_call",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "messages": [
                        user("Weather in Oslo?"),
                        {
                            "role": "assistant",
                            "content": None,
                            "tool_calls": [raw_call("weather", '{"town": "Oslo"}', "c1")],
                        },
                        {"role": "tool", "tool_call_id": "c1", "content": "sunny, 20"},
                        bot("It is sunny."),
                    ]
                }
            ]
        )
    },
    examples=[
        ex(
            user("Weather in Oslo?"),
            bot("", tool_calls=[call("weather", {"town": "Oslo"}, "c1")]),
            m("tool", "sunny, 20", tool_call_id="c1"),
            bot("It is sunny."),
        )
    ],
    compared=["Weather in Oslo?\nIt is sunny."],
    why="A call without text is no answer; the one that follows is.",
)
case(
    "compared_blank_turns_are_passed_over",
    lambda: {
        "a.jsonl": jsonl(
            [{"messages": [user("  "), bot("Did you mean to ask?"), user(q(0)), bot("\u200b"), bot(a(0))]}]
        )
    },
    examples=[ex(user("  "), bot("Did you mean to ask?"), user(q(0)), bot("\u200b"), bot(a(0)))],
    compared=both(0),
    why="First user turn with text, then first non-blank answer after it; the example itself is kept whole.",
)
case(
    "compared_system_is_not_in_it",
    lambda: {
        "a.jsonl": jsonl(
            [{"messages": [sys("A long standing order."), user(q(0)), bot(a(0)), user(q(1)), bot(a(1))]}]
        )
    },
    examples=[ex(sys("A long standing order."), user(q(0)), bot(a(0)), user(q(1)), bot(a(1)))],
    compared=both(0),
    why="Only the first question and its answer are compared.",
)
case(
    "no_pair_user_only_and_answer_before_question",
    lambda: {
        "a.jsonl": jsonl(
            [
                *msgs(0, 1, 2, 3),
                {"messages": [user(q(4))]},
                {"messages": [bot(a(5)), user(q(5))]},
                {"messages": [sys("Only a system turn.")]},
            ]
        )
    },
    examples=[*pairs(0, 1, 2, 3), "rejected", "rejected", "rejected"],
    compared=both(0, 1, 2, 3),
    why="Sound rows without an answer after a question hold no pair.",
)
case(
    "no_pair_blank_answers",
    lambda: {
        "a.jsonl": jsonl(
            [
                *msgs(0, 1, 2),
                {"messages": [user(q(4)), bot("")]},
                {"messages": [user(q(5)), bot(" \n\u200b")]},
            ]
        )
    },
    examples=[*pairs(0, 1, 2), "rejected", "rejected"],
    compared=both(0, 1, 2),
    why="A blank answer is nothing to learn; the row is sound.",
)
case(
    "trailing_question_is_kept",
    lambda: {
        "a.jsonl": jsonl([{"conversations": [fv("human", q(0)), fv("gpt", a(0)), fv("human", "ok thanks")]}])
    },
    examples=[ex(user(q(0)), bot(a(0)), user("ok thanks"))],
    compared=both(0),
    why="The row holds a pair, and its turns are kept as given.",
)

# ---------------------------------------------------------------- tools, reasoning, weights, names

case(
    "openai_tools_with_everything",
    lambda: {
        "train.jsonl": jsonl(
            [
                {
                    "messages": [
                        sys("Use tools."),
                        user("Weather in Bergen for two days?", name="ana"),
                        {
                            "role": "assistant",
                            "content": "Let me look.",
                            "tool_calls": [
                                raw_call("weather", '{"town": "Bergen", "days": 2}', "call_7"),
                                raw_call("weather", '{"town": "Voss"}', "call_8"),
                            ],
                        },
                        {
                            "role": "tool",
                            "tool_call_id": "call_7",
                            "name": "weather",
                            "content": '{"mm": 12}',
                        },
                        {"role": "tool", "tool_call_id": "call_8", "name": "weather", "content": '{"mm": 3}'},
                        bot("Rain, much of it."),
                    ],
                    "tools": [WEATHER],
                    "parallel_tool_calls": True,
                }
            ]
        )
    },
    examples=[
        ex(
            sys("Use tools."),
            user("Weather in Bergen for two days?", name="ana"),
            bot(
                "Let me look.",
                tool_calls=[
                    call("weather", {"town": "Bergen", "days": 2}, "call_7"),
                    call("weather", {"town": "Voss"}, "call_8"),
                ],
            ),
            m("tool", '{"mm": 12}', tool_call_id="call_7", name="weather"),
            m("tool", '{"mm": 3}', tool_call_id="call_8", name="weather"),
            bot("Rain, much of it."),
            tools=[WEATHER],
        )
    ],
    compared=["Weather in Bergen for two days?\nLet me look."],
    why="Calls, ids, names and tools are kept; arguments are parsed; a tool's answer stays text.",
)
case(
    "tool_arguments_as_object",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "messages": [
                        user("Add 2 and 3."),
                        {
                            "role": "assistant",
                            "tool_calls": [
                                {
                                    "type": "function",
                                    "function": {
                                        "name": "add",
                                        "arguments": {"a": 2, "b": 3, "opts": {"deep": [1, None, "x"]}},
                                    },
                                }
                            ],
                        },
                        {"role": "tool", "content": "5"},
                        bot("5."),
                    ]
                }
            ]
        )
    },
    examples=[
        ex(
            user("Add 2 and 3."),
            bot("", tool_calls=[call("add", {"a": 2, "b": 3, "opts": {"deep": [1, None, "x"]}})]),
            m("tool", "5"),
            bot("5."),
        )
    ],
    compared=["Add 2 and 3.\n5."],
    why="Objects stay objects, null in an argument too; a call without id has none; a missing content is empty.",
)
case(
    "openai_legacy_function_call",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "messages": [
                        user("Weather in Rome?"),
                        {
                            "role": "assistant",
                            "content": None,
                            "function_call": {"name": "weather", "arguments": '{"town": "Rome"}'},
                        },
                        {"role": "function", "name": "weather", "content": "hot"},
                        bot("It is hot."),
                    ]
                }
            ]
        )
    },
    examples=[
        ex(
            user("Weather in Rome?"),
            bot("", tool_calls=[call("weather", {"town": "Rome"})]),
            m("tool", "hot", name="weather"),
            bot("It is hot."),
        )
    ],
    compared=["Weather in Rome?\nIt is hot."],
    why="The older function_call is one tool call, the role function a tool's turn.",
)
case(
    "llamafactory_glaive_toolcall",
    lambda: {
        "glaive_toolcall_en_demo.json": array(
            [
                {
                    "conversations": [
                        fv("human", "Weather in Lund?"),
                        fv("function_call", '{"name": "weather", "arguments": {"town": "Lund"}}'),
                        fv("observation", '{"sky": "grey"}'),
                        fv("gpt", "Grey skies."),
                    ],
                    "tools": json.dumps([WEATHER_BARE]),
                }
            ]
        )
    },
    examples=[
        ex(
            user("Weather in Lund?"),
            bot("", tool_calls=[call("weather", {"town": "Lund"})]),
            m("tool", '{"sky": "grey"}'),
            bot("Grey skies."),
            tools=[WEATHER_BARE],
        )
    ],
    compared=["Weather in Lund?\nGrey skies."],
    why="LLaMA-Factory's ShareGPT with function_call, observation and tools as a JSON string.",
)
case(
    "tools_column_empty_or_null",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"conversations": [fv("human", q(0)), fv("gpt", a(0))], "tools": ""},
                {"conversations": [fv("human", q(1)), fv("gpt", a(1))], "tools": None},
            ]
        )
    },
    examples=pairs(0, 1),
    why="No tools are no tools.",
)
case(
    "tools_as_json_string_beside_messages",
    lambda: {
        "a.parquet": parquet(
            [
                {"messages": [user(q(0)), bot(a(0))], "tools": line([WEATHER])},
                {"messages": [user(q(1)), bot(a(1))], "tools": None},
            ]
        )
    },
    examples=[ex(user(q(0)), bot(a(0)), tools=[WEATHER]), pair(1)],
    compared=both(0, 1),
    why="TRL and datasets keep tools as a JSON string for Parquet's sake.",
)
case(
    "hermes_tool_call_in_text",
    lambda: {
        "func-calling.json": array(
            [
                {
                    "id": "h1",
                    "conversations": [
                        fv("system", "You may call functions."),
                        fv("human", "Price of tea?"),
                        fv(
                            "gpt",
                            '<tool_call>\n{"name": "price", "arguments": {"of": "tea"}}\n</tool_call>\n',
                        ),
                        fv("tool", '<tool_response>\n{"eur": 3}\n</tool_response>\n'),
                        fv("gpt", "Three euros."),
                    ],
                    "category": "c",
                    "subcategory": "s",
                    "task": "t",
                }
            ]
        )
    },
    examples=[
        ex(
            sys("You may call functions."),
            user("Price of tea?"),
            bot('<tool_call>\n{"name": "price", "arguments": {"of": "tea"}}\n</tool_call>\n'),
            m("tool", '<tool_response>\n{"eur": 3}\n</tool_response>\n'),
            bot("Three euros."),
        )
    ],
    why="A call that is written in the text is the text, line ends included.",
)
case(
    "tool_calls_in_parquet_with_nulls",
    lambda: {
        "a.parquet": parquet(
            [
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": "Time in Graz?",
                            "tool_calls": None,
                            "tool_call_id": None,
                            "name": None,
                        },
                        {
                            "role": "assistant",
                            "content": None,
                            "tool_calls": [raw_call("clock", '{"town": "Graz"}', "k1")],
                            "tool_call_id": None,
                            "name": None,
                        },
                        {
                            "role": "tool",
                            "content": "12:05",
                            "tool_calls": None,
                            "tool_call_id": "k1",
                            "name": "clock",
                        },
                        {
                            "role": "assistant",
                            "content": "Five past noon.",
                            "tool_calls": None,
                            "tool_call_id": None,
                            "name": None,
                        },
                    ]
                }
            ]
        )
    },
    examples=[
        ex(
            user("Time in Graz?"),
            bot("", tool_calls=[call("clock", {"town": "Graz"}, "k1")]),
            m("tool", "12:05", tool_call_id="k1", name="clock"),
            bot("Five past noon."),
        )
    ],
    compared=["Time in Graz?\nFive past noon."],
    why="Parquet's nulls are absent fields.",
)
case(
    "tool_roles_of_other_families",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"messages": [user("Roll a die."), bot("Rolling."), m(role, "4"), bot("A four.")]}
                for role in ("tool", "function", "observation", "ipython")
            ]
        )
    },
    examples=[ex(user("Roll a die."), bot("Rolling."), m("tool", "4"), bot("A four."))] * 4,
    why="function (OpenAI), observation (GLM) and ipython (Llama 3) are a tool's turns.",
)
case(
    "reasoning_content",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"messages": [user(q(0)), bot(a(0), reasoning_content="First think of hills.")]},
                {"messages": [user(q(1)), {"role": "assistant", "reasoning_content": None, "content": a(1)}]},
            ]
        )
    },
    examples=[ex(user(q(0)), bot(a(0), reasoning_content="First think of hills.")), pair(1)],
    compared=both(0, 1),
    why="Reasoning is kept beside the content and is not the answer that is compared.",
)
case(
    "think_marks_inside_content_are_kept",
    lambda: {
        "a.jsonl": jsonl([{"messages": [user(q(0)), bot("<think>\nHills, boats.\n</think>\n\n" + a(0))]}])
    },
    examples=[ex(user(q(0)), bot("<think>\nHills, boats.\n</think>\n\n" + a(0)))],
    why="Templates of reasoning models parse this themselves.",
)
case(
    "openai_weight_per_message",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "messages": [
                        user(q(0)),
                        bot("A poor answer.", weight=0),
                        user("Better, please."),
                        bot(a(0), weight=1),
                    ]
                }
            ]
        )
    },
    examples=[ex(user(q(0)), bot("A poor answer.", weight=0), user("Better, please."), bot(a(0), weight=1))],
    why="OpenAI's weight per assistant message.",
)
case(
    "axolotl_train_flags",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "conversations": [
                        fv("human", q(0), train=False),
                        fv("gpt", "A poor answer.", train=False),
                        fv("human", "Again."),
                        fv("gpt", a(0), train=True),
                    ]
                }
            ]
        )
    },
    examples=[ex(user(q(0), weight=0), bot("A poor answer.", weight=0), user("Again."), bot(a(0), weight=1))],
    why="train: false and true are weight 0 and 1.",
)
case(
    "sharegpt_weights_in_parquet",
    lambda: {
        "a.parquet": parquet(
            [
                {
                    "conversations": [
                        {"from": "human", "value": q(0), "weight": None},
                        {"from": "gpt", "value": "Hm.", "weight": 0},
                        {"from": "human", "value": "Well?", "weight": None},
                        {"from": "gpt", "value": a(0), "weight": 1},
                    ]
                }
            ]
        )
    },
    examples=[ex(user(q(0)), bot("Hm.", weight=0), user("Well?"), bot(a(0), weight=1))],
    why="OpenChat's weight per turn; a null one is none.",
)
case(
    "llamafactory_parts_with_loss_weight",
    lambda: {
        "v1_sft_demo.jsonl": jsonl(
            [
                {
                    "messages": [
                        {
                            "role": "system",
                            "content": [{"type": "text", "value": "Be exact."}],
                            "loss_weight": 0.0,
                        },
                        {"role": "user", "content": [{"type": "text", "value": q(0)}], "loss_weight": 0.0},
                        {
                            "role": "assistant",
                            "content": [
                                {"type": "reasoning", "value": "Think of hills."},
                                {"type": "text", "value": a(0)},
                            ],
                            "loss_weight": 1.0,
                        },
                    ]
                }
            ]
        )
    },
    examples=[
        ex(
            m("system", "Be exact.", weight=0),
            user(q(0), weight=0),
            bot(a(0), reasoning_content="Think of hills.", weight=1),
        )
    ],
    compared=both(0),
    why="LLaMA-Factory's newest form: parts with type and value, a weight per message.",
)
case(
    "llamafactory_parts_with_tool_call",
    lambda: {
        "v1_tool.jsonl": jsonl(
            [
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [{"type": "text", "value": "Weather in Lund?"}],
                            "loss_weight": 0.0,
                        },
                        {
                            "role": "assistant",
                            "content": [
                                {
                                    "type": "tool_call",
                                    "value": '{"name": "weather", "arguments": {"town": "Lund"}}',
                                }
                            ],
                            "loss_weight": 1.0,
                        },
                        {"role": "tool", "content": [{"type": "text", "value": "grey"}], "loss_weight": 0.0},
                        {
                            "role": "assistant",
                            "content": [{"type": "text", "value": "Grey skies."}],
                            "loss_weight": 1.0,
                        },
                    ],
                    "tools": json.dumps([WEATHER_BARE]),
                }
            ]
        )
    },
    examples=[
        ex(
            user("Weather in Lund?", weight=0),
            bot("", tool_calls=[call("weather", {"town": "Lund"})], weight=1),
            m("tool", "grey", weight=0),
            bot("Grey skies.", weight=1),
            tools=[WEATHER_BARE],
        )
    ],
    compared=["Weather in Lund?\nGrey skies."],
    why="A tool_call part is a tool call.",
)
case(
    "openai_text_parts_are_joined",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "text", "text": "First part."},
                                {"type": "text", "text": "Second part."},
                            ],
                        },
                        {"role": "assistant", "content": [{"type": "text", "text": "One answer."}]},
                    ]
                },
                *msgs(0),
            ]
        )
    },
    examples=[ex(user("First part.\nSecond part."), bot("One answer.")), pair(0)],
    compared=["First part.\nSecond part.\nOne answer.", *both(0)],
    why="Text parts are joined by line ends; strings stay strings in the same file.",
)

# ---------------------------------------------------------------- preferences and KTO

case(
    "dpo_without_choice_refused",
    lambda: {"a.jsonl": jsonl([{"prompt": q(i), "chosen": a(i), "rejected": "No idea."} for i in range(4)])},
    refused=("preference",),
    why="A preference set is no SFT set; the remedy names sft.preference.",
)
case(
    "dpo_strings_chosen",
    lambda: {"a.jsonl": jsonl([{"prompt": q(i), "chosen": a(i), "rejected": "No idea."} for i in range(4)])},
    settings=CHOSEN,
    examples=pairs(0, 1, 2, 3),
    compared=both(0, 1, 2, 3),
    why="The preferred answer makes the example.",
)
case(
    "ultrafeedback_binarized_chosen",
    lambda: {
        "train_prefs.parquet": parquet(
            [
                {
                    "prompt": q(i),
                    "prompt_id": str(i),
                    "chosen": [user(q(i)), bot(a(i))],
                    "rejected": [user(q(i)), bot("No idea.")],
                    "messages": [user(q(i)), bot(a(i))],
                    "score_chosen": 8.0,
                    "score_rejected": 3.0,
                }
                for i in range(3)
            ]
        )
    },
    settings=CHOSEN,
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="chosen holds the whole conversation; the prompt is not put in front of it twice.",
)
case(
    "trl_explicit_prompt_conversational_chosen",
    lambda: {
        "a.jsonl": jsonl(
            [{"prompt": [sys("Plain."), user(q(0))], "chosen": [bot(a(0))], "rejected": [bot("No idea.")]}]
        )
    },
    settings=CHOSEN,
    examples=[ex(sys("Plain."), user(q(0)), bot(a(0)))],
    compared=both(0),
    why="TRL's conversational preference with an explicit prompt.",
)
case(
    "trl_implicit_prompt_chosen",
    lambda: {
        "a.jsonl": jsonl(
            [{"chosen": [user(q(i)), bot(a(i))], "rejected": [user(q(i)), bot("No idea.")]} for i in range(2)]
        )
    },
    settings=CHOSEN,
    examples=pairs(0, 1),
    compared=both(0, 1),
    why="TRL's implicit prompt: chosen is the conversation.",
)
case(
    "llamafactory_dpo_refused",
    lambda: {
        "dpo_en_demo.json": array(
            [
                {
                    "conversations": [fv("human", q(i))],
                    "chosen": fv("gpt", a(i)),
                    "rejected": fv("gpt", "No idea."),
                }
                for i in range(3)
            ]
            + [
                {
                    "conversations": [fv("human", q(3)), fv("gpt", a(3)), fv("human", q(4))],
                    "chosen": fv("gpt", a(4)),
                    "rejected": fv("gpt", "No idea."),
                }
            ]
        )
    },
    refused=("preference",),
    why="Not a third of it is instruction data: it is a preference set.",
)
case(
    "llamafactory_dpo_chosen",
    lambda: {
        "dpo_en_demo.json": array(
            [
                {
                    "conversations": [fv("system", "Plain."), fv("human", q(0))],
                    "chosen": fv("gpt", a(0)),
                    "rejected": fv("gpt", "No idea."),
                },
                {
                    "conversations": [fv("human", q(3)), fv("gpt", a(3)), fv("human", q(4))],
                    "chosen": fv("gpt", a(4)),
                    "rejected": fv("gpt", "No idea."),
                },
            ]
        )
    },
    settings=CHOSEN,
    examples=[ex(sys("Plain."), user(q(0)), bot(a(0))), ex(user(q(3)), bot(a(3)), user(q(4)), bot(a(4)))],
    compared=both(0, 3),
    why="The chosen turn ends the conversation.",
)
case(
    "alpaca_ranking_chosen",
    lambda: {
        "a.json": array(
            [
                {
                    "instruction": "Sort the words.",
                    "input": "fig, ant",
                    "chosen": "ant, fig",
                    "rejected": "fig, ant",
                },
                {"instruction": q(0), "input": "", "chosen": a(0), "rejected": "No idea."},
            ]
        )
    },
    settings=CHOSEN,
    examples=[ex(user("Sort the words.\nfig, ant"), bot("ant, fig")), pair(0)],
    why="LLaMA-Factory's Alpaca form of preferences.",
)
case(
    "orca_dpo_pairs_chosen",
    lambda: {
        "orca_rlhf.jsonl": jsonl(
            [
                {"system": "You are helpful.", "question": q(0), "chosen": a(0), "rejected": "No idea."},
                {"system": "", "question": q(1), "chosen": a(1), "rejected": "No idea."},
            ]
        )
    },
    settings=CHOSEN,
    examples=[ex(sys("You are helpful."), user(q(0)), bot(a(0))), pair(1)],
    compared=both(0, 1),
    why="Intel's Orca pairs: system, question, chosen, rejected.",
)
case(
    "kto_without_choice_refused",
    lambda: {"a.jsonl": jsonl([{"prompt": q(i), "completion": a(i), "label": i % 2 == 0} for i in range(6)])},
    refused=("preference",),
    why="Rows with label false are bad answers and must not be learnt in silence.",
)
case(
    "kto_trl_chosen",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"prompt": q(i), "completion": a(i) if i != 2 else "Go away.", "label": i != 2}
                for i in range(5)
            ]
        )
    },
    settings=CHOSEN,
    examples=[pair(0), pair(1), "rejected", pair(3), pair(4)],
    compared=both(0, 1, 3, 4),
    why="Only rows with label true are taken.",
)
case(
    "kto_llamafactory_messages_refused",
    lambda: {
        "kto_en_demo.json": array([{"messages": [user(q(i)), bot(a(i))], "label": i != 1} for i in range(4)])
    },
    refused=("preference",),
    why="LLaMA-Factory's KTO demo: messages and a truth value.",
)
case(
    "kto_llamafactory_messages_chosen_parquet",
    lambda: {
        "kto.parquet": parquet([{"messages": [user(q(i)), bot(a(i))], "label": i != 1} for i in range(4)])
    },
    settings=CHOSEN,
    examples=[pair(0), "rejected", pair(2), pair(3)],
    compared=both(0, 2, 3),
    why="The same with preference: chosen.",
)

# ---------------------------------------------------------------- multimodal, text only

case(
    "images_column_rows_left_out",
    lambda: {
        "mllm.json": array(
            [
                *msgs(0, 1, 2),
                {
                    "messages": [user("<image>Who are they?"), bot("Two ferrymen.")],
                    "images": ["mllm_demo_data/1.jpg"],
                },
            ]
        )
    },
    examples=[*pairs(0, 1, 2), "rejected"],
    compared=both(0, 1, 2),
    why="A row with images is multimodal: left out and counted.",
)
case(
    "images_column_empty_is_text",
    lambda: {
        "a.jsonl": jsonl([{**r, "images": e} for r, e in zip(msgs(0, 1, 2), ([], None, []), strict=True)])
    },
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="An empty list of images makes no multimodal row.",
)
case(
    "audios_and_videos_rows_left_out",
    lambda: {
        "a.jsonl": jsonl(
            [
                *msgs(0, 1, 2, 3),
                {"messages": [user("<audio>What is said?"), bot("A price.")], "audios": ["1.mp3"]},
                {"messages": [user("<video>What happens?"), bot("A gate opens.")], "videos": ["1.mp4"]},
            ]
        )
    },
    examples=[*pairs(0, 1, 2, 3), "rejected", "rejected"],
    why="audios and videos as images.",
)
case(
    "image_part_in_openai_content",
    lambda: {
        "a.jsonl": jsonl(
            [
                *msgs(0, 1),
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "text", "text": "What is it?"},
                                {"type": "image_url", "image_url": {"url": "https://example.org/1.png"}},
                            ],
                        },
                        bot("A gate."),
                    ]
                },
            ]
        )
    },
    examples=[*pairs(0, 1), "rejected"],
    why="An image part cannot be learnt from its text.",
)
case(
    "text_with_angle_brackets_is_no_image",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "messages": [
                        user("What does the HTML tag <image> do?"),
                        bot("Browsers read <image> as <img>."),
                    ]
                }
            ]
        )
    },
    examples=[ex(user("What does the HTML tag <image> do?"), bot("Browsers read <image> as <img>."))],
    why="Without an image column or part it is a question about a tag.",
)
case(
    "text_only_chatml_refused",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"text": f"<|im_start|>user\n{q(i)}<|im_end|>\n<|im_start|>assistant\n{a(i)}<|im_end|>\n"}
                for i in range(4)
            ]
        )
    },
    settings=ALL,
    refused=("text",),
    why="A rendered template is refused with the remedy.",
)
case(
    "text_only_guanaco_refused",
    lambda: {"a.parquet": parquet([{"text": f"### Human: {q(i)}### Assistant: {a(i)}"} for i in range(4)])},
    settings=ALL,
    refused=("text",),
    why="openassistant-guanaco's single text column.",
)
case(
    "glaive_v2_chat_text_refused",
    lambda: {
        "glaive-function-calling-v2.json": array(
            [
                {
                    "system": "SYSTEM: You are helpful.",
                    "chat": f"USER: {q(i)}\n\n\nASSISTANT: {a(i)} <|endoftext|>",
                }
                for i in range(4)
            ]
        )
    },
    settings=ALL,
    refused=("chat",),
    why="A conversation as one rendered text is no form of the table; the columns are quoted.",
)

# ---------------------------------------------------------------- CSV, files, listing

case(
    "csv_alpaca_with_line_ends",
    lambda: {
        "a.csv": csv_bytes(
            [
                ["instruction", "input", "output"],
                ["Sort, please.", "fig\nant", "ant\nfig"],
                [q(0), "", 'Say "water", then "hill".'],
            ]
        )
    },
    examples=[
        ex(user("Sort, please.\nfig\nant"), bot("ant\nfig")),
        ex(user(q(0)), bot('Say "water", then "hill".')),
    ],
    why="Line ends, commas and quotes in CSV.",
)
case(
    "csv_answers_that_look_like_numbers",
    lambda: {
        "a.csv": csv_bytes(
            [
                ["question", "answer"],
                ["How much is 6 times 7?", "42"],
                ["And its double?", "84"],
                ["Write one half.", "0.50"],
            ]
        )
    },
    examples=[
        ex(user("How much is 6 times 7?"), bot("42")),
        ex(user("And its double?"), bot("84")),
        ex(user("Write one half."), bot("0.50")),
    ],
    compared=["How much is 6 times 7?\n42", "And its double?\n84", "Write one half.\n0.50"],
    why="An answer is a text, whatever it looks like.",
)
case(
    "csv_messages_as_json_with_mark_and_crlf",
    lambda: {
        "a.csv": codecs.BOM_UTF8
        + csv_bytes(
            [["id", "messages"], *[[str(i), line([user(q(i)), bot(a(i))])] for i in range(3)]], end="\r\n"
        )
    },
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="JSON in a CSV's cell, with Excel's mark and line ends.",
)
case(
    "jsonl_mark_crlf_and_blank_lines",
    lambda: {
        "a.jsonl": codecs.BOM_UTF8 + jsonl(msgs(0, 1)).replace(b"\n", b"\r\n\r\n") + line(msgs(2)[0]).encode()
    },
    examples=pairs(0, 1, 2),
    why="As for a corpus.",
)
case(
    "hidden_and_unknown_beside_shards",
    lambda: {
        ".ipynb_checkpoints/a-checkpoint.jsonl": jsonl(msgs(5)),
        "README.md": b"# Set\n",
        "_SUCCESS": b"",
        "a.JSONL": jsonl(msgs(0)),
        "b.jsonl.gz": gz(jsonl(msgs(1))),
    },
    examples=pairs(0, 1),
    hidden=2,
    unknown=("README.md",),
    why="The listing's rules hold for sets as for dumps.",
)
case(
    "unknown_refuse",
    lambda: {"a.jsonl": jsonl(msgs(0)), "notes.xlsx": b"PK\x03\x04"},
    settings={"unknown_files": "refuse"},
    refused=("notes.xlsx",),
    why="Named and refused.",
)
case(
    "array_in_jsonl_refused",
    lambda: {"list.jsonl": array(msgs(0, 1, 2))},
    settings=ALL,
    refused=("list.jsonl", "array"),
    why="One array is not JSON Lines.",
)
case(
    "lfs_pointer_refused",
    lambda: {"a.json": array(alp(0, 1)), "b.json": LFS},
    settings=ALL,
    refused=("b.json", "lfs"),
    why="A pointer is not the file.",
)
case(
    "utf16_refused",
    lambda: {"a.jsonl": jsonl(msgs(0, 1)).decode().encode("utf-16")},
    settings=ALL,
    refused=("a.jsonl", "utf-16"),
    why="The encoding is named.",
)
case(
    "error_page_refused",
    lambda: {"a.jsonl": jsonl(msgs(0, 1)), "b.jsonl": HTML},
    settings=ALL,
    refused=("b.jsonl",),
    why="A shard without one usable row is refused.",
)

# ---------------------------------------------------------------- field mapping by hand

case(
    "mapping_alpaca_columns",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "query_text": "Sort the words.",
                    "extra": "fig, ant",
                    "reply": "ant, fig",
                    "persona": "A clerk.",
                    "before": [["Hello.", "Hello."]],
                },
                {"query_text": q(0), "extra": "", "reply": a(0), "persona": "", "before": []},
            ]
        )
    },
    settings={
        "mapping": {
            "formatting": "alpaca",
            "columns": {
                "prompt": "query_text",
                "query": "extra",
                "response": "reply",
                "system": "persona",
                "history": "before",
            },
        }
    },
    examples=[
        ex(
            sys("A clerk."), user("Hello."), bot("Hello."), user("Sort the words.\nfig, ant"), bot("ant, fig")
        ),
        pair(0),
    ],
    why="LLaMA-Factory's column names for its Alpaca form.",
)
case(
    "mapping_aya_inputs_targets",
    lambda: {
        "a.parquet": parquet(
            [
                {"inputs": q(i), "targets": a(i), "language": "English", "annotation_type": "original"}
                for i in range(3)
            ]
        )
    },
    settings={"mapping": {"formatting": "alpaca", "columns": {"prompt": "inputs", "response": "targets"}}},
    examples=pairs(0, 1, 2),
    compared=both(0, 1, 2),
    why="What detection does not know is given by hand.",
)
case(
    "mapping_sharegpt_tags",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "dialog": [
                        {"speaker": "Boss", "utterance": "Be brief."},
                        {"speaker": "Customer", "utterance": q(i)},
                        {"speaker": "Agent", "utterance": a(i)},
                    ]
                }
                for i in range(3)
            ]
        )
    },
    settings={
        "mapping": {
            "formatting": "sharegpt",
            "columns": {"messages": "dialog"},
            "tags": {
                "role_tag": "speaker",
                "content_tag": "utterance",
                "user_tag": "Customer",
                "assistant_tag": "Agent",
                "system_tag": "Boss",
            },
        }
    },
    examples=[ex(sys("Be brief."), user(q(i)), bot(a(i))) for i in range(3)],
    compared=both(0, 1, 2),
    why="LLaMA-Factory's tags for other turn keys and role names.",
)
case(
    "mapping_sharegpt_tools_and_system",
    lambda: {
        "a.json": array(
            [
                {
                    "turns": [
                        fv("human", "Weather in Lund?"),
                        fv("function_call", '{"name": "weather", "arguments": {"town": "Lund"}}'),
                        fv("observation", "grey"),
                        fv("gpt", "Grey."),
                    ],
                    "api": json.dumps([WEATHER_BARE]),
                    "order": "Be brief.",
                }
            ]
        )
    },
    settings={
        "mapping": {
            "formatting": "sharegpt",
            "columns": {"messages": "turns", "tools": "api", "system": "order"},
        }
    },
    examples=[
        ex(
            sys("Be brief."),
            user("Weather in Lund?"),
            bot("", tool_calls=[call("weather", {"town": "Lund"})]),
            m("tool", "grey"),
            bot("Grey."),
            tools=[WEATHER_BARE],
        )
    ],
    why="Default tags, other columns.",
)
case(
    "mapping_goes_before_detection",
    lambda: {
        "a.jsonl": jsonl(
            [{"instruction": "not this", "output": "nor this", "de_q": q(i), "de_a": a(i)} for i in range(2)]
        )
    },
    settings={"mapping": {"formatting": "alpaca", "columns": {"prompt": "de_q", "response": "de_a"}}},
    examples=pairs(0, 1),
    compared=both(0, 1),
    why="What is given by hand is meant.",
)
case(
    "mapping_names_an_absent_column",
    lambda: {"a.jsonl": jsonl([{"inputs": q(i), "targets": a(i)} for i in range(3)])},
    settings={
        "mapping": {"formatting": "alpaca", "columns": {"prompt": "inputs", "response": "replies"}},
        **ALL,
    },
    refused=("replies",),
    why="The column that the data lack is named.",
)

# ---------------------------------------------------------------- unicode and exactness

case(
    "unicode_is_kept_exactly",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "messages": [
                        user("Què vol dir «e\u0301» i 👩\u200d🚀?"),
                        bot("שלום\u2028second line, 橋, a\u0308 and ä."),
                    ]
                }
            ]
        )
    },
    examples=[
        ex(user("Què vol dir «e\u0301» i 👩\u200d🚀?"), bot("שלום\u2028second line, 橋, a\u0308 and ä."))
    ],
    compared=["Què vol dir «e\u0301» i 👩\u200d🚀?\nשלום\u2028second line, 橋, a\u0308 and ä."],
    why="No normal form is forced, no character lost, U+2028 ends no row.",
)
case(
    "content_is_not_trimmed_in_the_example",
    lambda: {"a.jsonl": jsonl([{"messages": [user("Indent this:\n\tx = 1\n"), bot("    x = 1\n\n")]}])},
    examples=[ex(user("Indent this:\n\tx = 1\n"), bot("    x = 1\n\n"))],
    why="Code's white space is content.",
)
case(
    "escaped_json_and_template_marks_are_text",
    lambda: {
        "a.jsonl": jsonl(
            [
                {
                    "messages": [
                        user('Print {"a": [1, 2]} and {{name}}, please.'),
                        bot('{"a": [1, 2]} and {{name}} <|im_end|>\\n'),
                    ]
                }
            ]
        )
    },
    examples=[
        ex(user('Print {"a": [1, 2]} and {{name}}, please.'), bot('{"a": [1, 2]} and {{name}} <|im_end|>\\n'))
    ],
    why="Content that looks like JSON or like a template is content.",
)
case(
    "answer_that_is_a_json_list_stays_text",
    lambda: {
        "a.jsonl": jsonl(
            [
                {"instruction": "Give three primes as JSON.", "input": "", "output": "[2, 3, 5]"},
                {"instruction": "Give an object.", "input": "", "output": '{"role": "user", "content": "x"}'},
            ]
        )
    },
    examples=[
        ex(user("Give three primes as JSON."), bot("[2, 3, 5]")),
        ex(user("Give an object."), bot('{"role": "user", "content": "x"}')),
    ],
    compared=["Give three primes as JSON.\n[2, 3, 5]", 'Give an object.\n{"role": "user", "content": "x"}'],
    why="Only lists of messages are parsed from strings, not answers.",
)
_NOTHING = ("null", " null\n", "[]", "{}", '""')
_CALLED = {"type": "function", "function": {"name": "now", "arguments": {}}}
case(
    "nothing_that_is_written_as_json_is_nothing",
    lambda: {
        "tools.jsonl": jsonl([pair(0) | {"tools": text} for text in _NOTHING]),
        "turns.jsonl": jsonl([ex(user(q(1)), bot(a(1), tool_calls=text)) for text in _NOTHING]),
        "history.jsonl": jsonl([{"history": text, "instruction": q(2), "output": a(2)} for text in _NOTHING]),
        "arguments.jsonl": jsonl(
            [ex(user(q(3)), bot("", tool_calls=[{"name": "now", "arguments": text}])) for text in _NOTHING]
            + [ex(user(q(4)), {"role": "function_call", "content": text}) for text in _NOTHING[:2]]
        ),
    },
    examples=[ex(user(q(3)), bot("", tool_calls=[_CALLED]))] * 5
    + [None] * 2
    + [pair(2)] * 5
    + [pair(0)] * 5
    + [pair(1)] * 5,
    settings=ALL,
    why="json.dumps of what is not there, PHP's of an empty object; a turn of calls needs one, though.",
)
case(
    "duplicate_rows_are_two_examples",
    lambda: {"a.jsonl": jsonl(msgs(0, 0)), "b.jsonl": jsonl(msgs(0))},
    examples=pairs(0, 0, 0),
    compared=both(0, 0, 0),
    why="Nothing asked for deduplication.",
)
