"""Cases for a team's own DeepSpeed file against the settings -> accepted, or refused and why.

Written by somebody who had not read the code ("`finetune.deepspeed: file.json` for a team's own
DeepSpeed configuration, checked for contradictions"; "a DeepSpeed file that contradicts the
settings" among the bad input).

`batch_size` is per process (DeepSpeed's train_micro_batch_size_per_gpu), so that
train_batch_size = batch_size * gradient_accumulation * processes.

`answer` is "accepted" or "refused". A refusal has to name `key` (the dotted path, or its last
part) and, where it contradicts a setting, both values: `file_value` and `setting_value` (as text;
30 and 30.0, 2e-05 and 0.00002 are each as good). With key None the file as a whole is at fault
and the refusal names the file. A refusal is an error of ours with a sentence, never a traceback
of json, RecursionError, MemoryError or a hang.

A key that the file does not have takes the setting's value; `effective` says what DeepSpeed must
be given in the end (also for "auto"). `open` marks the cases that the request's words leave open.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypedDict


class Settings(TypedDict):
    processes: int
    batch_size: int
    gradient_accumulation: int
    zero_stage: int
    max_grad_norm: float
    bf16: bool
    learning_rate: float


class Case(TypedDict):
    name: str
    why: str
    text: str | bytes  # bytes where it is not UTF-8 text; see `repeat`
    repeat: tuple[str, int] | None  # if given: text.replace("@", unit * times), made in the test
    settings: Settings
    answer: str
    key: str | None
    file_value: str | None
    setting_value: str | None
    effective: dict[str, Any]
    open: str | None


BASE: Settings = {
    "processes": 8,
    "batch_size": 4,
    "gradient_accumulation": 2,
    "zero_stage": 2,
    "max_grad_norm": 1.0,
    "bf16": True,
    "learning_rate": 2e-5,
}


def content(case: Case) -> bytes:
    """The file's bytes."""
    text = case["text"]
    if isinstance(text, bytes):
        return text
    if case["repeat"] is not None:
        unit, times = case["repeat"]
        text = text.replace("@", unit * times)
    return text.encode()


def with_(**changes: Any) -> Settings:
    made: Any = dict(BASE)
    made.update(changes)
    result: Settings = made
    return result


# name, why, text, answer, key, file_value, setting_value, settings or None, open or None
_ROWS: list[
    tuple[str, str, str | bytes, str, str | None, str | None, str | None, Settings | None, str | None]
] = [
    (
        "empty object",
        "Says nothing, contradicts nothing: all from the settings.",
        "{}",
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "all auto",
        "The usual file of transformers' users.",
        (
            '{"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", '
            '"gradient_accumulation_steps": "auto", "gradient_clipping": "auto", '
            '"bf16": {"enabled": "auto"}, "zero_optimization": {"stage": 2}, '
            '"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}'
        ),
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "stage auto",
        "transformers does not fill this one in everywhere; accelerate does.",
        '{"zero_optimization": {"stage": "auto"}}',
        "accepted",
        None,
        None,
        None,
        None,
        "is 'auto' allowed for the stage? (here: it takes the setting's)",
    ),
    (
        "auto misspelt",
        "'Auto' is not 'auto': DeepSpeed would get a string for a number.",
        '{"train_batch_size": "Auto"}',
        "refused",
        "train_batch_size",
        "Auto",
        None,
        None,
        None,
    ),
    (
        "product right",
        "8 x 4 x 2 = 64.",
        '{"train_batch_size": 64}',
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "product one off",
        "63 is no product of the settings.",
        '{"train_batch_size": 63}',
        "refused",
        "train_batch_size",
        "63",
        "64",
        None,
        None,
    ),
    (
        "product without the processes",
        "4 x 2 = 8: written for one GPU.",
        '{"train_batch_size": 8}',
        "refused",
        "train_batch_size",
        "8",
        "64",
        None,
        None,
    ),
    (
        "product without the accumulation",
        "8 x 4 = 32: the usual slip.",
        '{"train_batch_size": 32}',
        "refused",
        "train_batch_size",
        "32",
        "64",
        None,
        None,
    ),
    (
        "product zero",
        "0 divides nothing.",
        '{"train_batch_size": 0}',
        "refused",
        "train_batch_size",
        "0",
        "64",
        None,
        None,
    ),
    (
        "product negative",
        "Minus 64.",
        '{"train_batch_size": -64}',
        "refused",
        "train_batch_size",
        "-64",
        "64",
        None,
        None,
    ),
    (
        "product of one process",
        "1 x 1 x 1.",
        '{"train_batch_size": 1}',
        "accepted",
        None,
        None,
        None,
        with_(processes=1, batch_size=1, gradient_accumulation=1),
        None,
    ),
    (
        "factors swapped",
        "micro 2 x accum 4: the same product 64, yet both contradict (memory differs!).",
        ('{"train_batch_size": 64, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4}'),
        "refused",
        "train_micro_batch_size_per_gpu",
        "2",
        "4",
        None,
        None,
    ),
    (
        "micro batch other",
        "Names the micro batch and both numbers.",
        '{"train_micro_batch_size_per_gpu": 16}',
        "refused",
        "train_micro_batch_size_per_gpu",
        "16",
        "4",
        None,
        None,
    ),
    (
        "accumulation other",
        "Names the accumulation and both numbers.",
        '{"gradient_accumulation_steps": 1}',
        "refused",
        "gradient_accumulation_steps",
        "1",
        "2",
        None,
        None,
    ),
    (
        "all three right",
        "The full explicit file.",
        ('{"train_batch_size": 64, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2}'),
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "auto total, wrong micro",
        "One 'auto' does not excuse the other key.",
        '{"train_batch_size": "auto", "train_micro_batch_size_per_gpu": 5}',
        "refused",
        "train_micro_batch_size_per_gpu",
        "5",
        "4",
        None,
        None,
    ),
    (
        "stage right",
        "Nothing to say.",
        '{"zero_optimization": {"stage": 2}}',
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "stage other",
        "3 in the file, 2 in the settings.",
        '{"zero_optimization": {"stage": 3}}',
        "refused",
        "zero_optimization.stage",
        "3",
        "2",
        None,
        None,
    ),
    (
        "stage zero against two",
        "0 is falsy: `if stage and ...` lets it through.",
        '{"zero_optimization": {"stage": 0}}',
        "refused",
        "zero_optimization.stage",
        "0",
        "2",
        None,
        None,
    ),
    (
        "stage two against zero",
        "The setting 0 is falsy too.",
        '{"zero_optimization": {"stage": 2}}',
        "refused",
        "zero_optimization.stage",
        "2",
        "0",
        with_(zero_stage=0),
        None,
    ),
    (
        "stage four",
        "There is no stage 4.",
        '{"zero_optimization": {"stage": 4}}',
        "refused",
        "zero_optimization.stage",
        "4",
        "2",
        None,
        None,
    ),
    (
        "stage true with stage one",
        "true == 1 in Python: it must not pass as stage 1.",
        '{"zero_optimization": {"stage": true}}',
        "refused",
        "zero_optimization.stage",
        "true",
        "1",
        with_(zero_stage=1),
        None,
    ),
    (
        "stage as text",
        '"2" is a string.',
        '{"zero_optimization": {"stage": "2"}}',
        "refused",
        "zero_optimization.stage",
        "2",
        None,
        None,
        "a number as a string: refused here; reading it as the number is not what DeepSpeed does",
    ),
    (
        "zero_optimization true",
        "DeepSpeed's oldest form: a boolean for the whole section.",
        '{"zero_optimization": true}',
        "refused",
        "zero_optimization",
        "true",
        None,
        None,
        None,
    ),
    (
        "zero_optimization null",
        "null is not an object; .get on None is a traceback.",
        '{"zero_optimization": null}',
        "refused",
        "zero_optimization",
        "null",
        None,
        None,
        "null could count as absent",
    ),
    (
        "zero_optimization a list",
        "A list has no stage.",
        '{"zero_optimization": [2]}',
        "refused",
        "zero_optimization",
        None,
        None,
        None,
        None,
    ),
    (
        "stage missing in the section",
        "An empty section says nothing: taken from the settings.",
        '{"zero_optimization": {"overlap_comm": true}}',
        "accepted",
        None,
        None,
        None,
        None,
        "DeepSpeed's own default is stage 0: absent could also count as 0, a contradiction",
    ),
    (
        "batch as text",
        '"64" is the right number as a string.',
        '{"train_batch_size": "64"}',
        "refused",
        "train_batch_size",
        "64",
        None,
        None,
        'refused here for its kind; "64" == 64 could be accepted AND converted',
    ),
    (
        "batch true with product one",
        "true == 1.",
        '{"train_batch_size": true}',
        "refused",
        "train_batch_size",
        "true",
        "1",
        with_(processes=1, batch_size=1, gradient_accumulation=1),
        None,
    ),
    (
        "accumulation false",
        "false == 0.",
        '{"gradient_accumulation_steps": false}',
        "refused",
        "gradient_accumulation_steps",
        "false",
        "2",
        None,
        None,
    ),
    (
        "batch 64.0",
        "A float that is whole.",
        '{"train_batch_size": 64.0}',
        "accepted",
        None,
        None,
        None,
        None,
        "64.0: accepted as 64 (given on as an integer), or refused for its kind",
    ),
    (
        "batch 64.5",
        "No half examples.",
        '{"train_batch_size": 64.5}',
        "refused",
        "train_batch_size",
        "64.5",
        "64",
        None,
        None,
    ),
    (
        "batch NaN",
        "json.loads takes NaN, which is not JSON; NaN != 64 and also not < or >.",
        '{"train_batch_size": NaN}',
        "refused",
        "train_batch_size",
        "nan",
        None,
        None,
        None,
    ),
    (
        "clipping Infinity",
        "json.loads takes Infinity: clipping switched off unseen.",
        '{"gradient_clipping": Infinity}',
        "refused",
        "gradient_clipping",
        "inf",
        None,
        None,
        None,
    ),
    (
        "learning rate minus Infinity",
        "The third non-JSON number.",
        '{"optimizer": {"type": "AdamW", "params": {"lr": -Infinity}}}',
        "refused",
        "optimizer.params.lr",
        "inf",
        None,
        None,
        None,
    ),
    (
        "batch null",
        "null is not 'auto'.",
        '{"train_batch_size": null}',
        "refused",
        "train_batch_size",
        "null",
        None,
        None,
        "null could count as absent",
    ),
    (
        "batch a list",
        "A list of one.",
        '{"train_batch_size": [64]}',
        "refused",
        "train_batch_size",
        None,
        None,
        None,
        None,
    ),
    (
        "clipping right as integer",
        "1 and 1.0 are the same.",
        '{"gradient_clipping": 1}',
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "clipping other",
        "0.5 against 1.0.",
        '{"gradient_clipping": 0.5}',
        "refused",
        "gradient_clipping",
        "0.5",
        "1.0",
        None,
        None,
    ),
    (
        "clipping zero against one",
        "0 switches it off; falsy.",
        '{"gradient_clipping": 0}',
        "refused",
        "gradient_clipping",
        "0",
        "1.0",
        None,
        None,
    ),
    (
        "clipping zero on both sides",
        "Off here and there.",
        '{"gradient_clipping": 0.0}',
        "accepted",
        None,
        None,
        None,
        with_(max_grad_norm=0.0),
        None,
    ),
    (
        "clipping absent",
        "DeepSpeed does not clip without the key: the setting must be filled in, not lost.",
        '{"train_batch_size": 64}',
        "accepted",
        None,
        None,
        None,
        with_(max_grad_norm=0.3),
        None,
    ),
    (
        "learning rate right, written otherwise",
        "0.00002 is 2e-5.",
        '{"optimizer": {"type": "AdamW", "params": {"lr": 0.00002}}}',
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "learning rate other",
        "A tenth too large.",
        '{"optimizer": {"type": "AdamW", "params": {"lr": 2e-4}}}',
        "refused",
        "optimizer.params.lr",
        "0.0002",
        "2e-05",
        None,
        None,
    ),
    (
        "learning rate nearly right",
        "2.0000001e-5 is another number: contradiction, not rounding.",
        '{"optimizer": {"type": "AdamW", "params": {"lr": 2.0000001e-5}}}',
        "refused",
        "optimizer.params.lr",
        "2.0000001e-05",
        "2e-05",
        None,
        "how near is equal? (here: equal as doubles; a relative 1e-9 is as good)",
    ),
    (
        "learning rate as text",
        "YAML's 2e-5 is a string, and some copy it over.",
        '{"optimizer": {"type": "AdamW", "params": {"lr": "2e-5"}}}',
        "refused",
        "optimizer.params.lr",
        "2e-5",
        None,
        None,
        "a number as a string (see stage as text)",
    ),
    (
        "scheduler's peak other",
        "The scheduler sets the rate that is really used.",
        '{"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-3}}}',
        "refused",
        "scheduler.params.warmup_max_lr",
        "0.001",
        "2e-05",
        None,
        "does the check reach into the scheduler? By its purpose it should",
    ),
    (
        "bf16 on, fp16 on",
        "DeepSpeed allows only one of them.",
        '{"bf16": {"enabled": true}, "fp16": {"enabled": true}}',
        "refused",
        "fp16.enabled",
        "true",
        None,
        None,
        None,
    ),
    (
        "bf16 off in the file",
        "false against true.",
        '{"bf16": {"enabled": false}}',
        "refused",
        "bf16.enabled",
        "false",
        "true",
        None,
        None,
    ),
    (
        "bf16 on in the file only",
        "true against false.",
        '{"bf16": {"enabled": true}}',
        "refused",
        "bf16.enabled",
        "true",
        "false",
        with_(bf16=False),
        None,
    ),
    (
        "fp16 where bf16 is set",
        "Another precision than the settings'.",
        '{"fp16": {"enabled": true}}',
        "refused",
        "fp16.enabled",
        "true",
        None,
        None,
        None,
    ),
    (
        "fp16 disabled where bf16 is set",
        "Says only what is true.",
        '{"fp16": {"enabled": false}}',
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "neither, neither",
        "Full precision on both sides.",
        '{"bf16": {"enabled": false}, "fp16": {"enabled": false}}',
        "accepted",
        None,
        None,
        None,
        with_(bf16=False),
        None,
    ),
    (
        "bf16 as a number",
        "1 == True in Python.",
        '{"bf16": {"enabled": 1}}',
        "refused",
        "bf16.enabled",
        "1",
        None,
        None,
        "1 for true: refused for its kind here",
    ),
    (
        "bf16 as text",
        '"false" is truthy.',
        '{"bf16": {"enabled": "false"}}',
        "refused",
        "bf16.enabled",
        "false",
        "true",
        None,
        None,
    ),
    ("bf16 not a section", "A bare true.", '{"bf16": true}', "refused", "bf16", "true", None, None, None),
    (
        "parameter offload without stage 3",
        "The file contradicts itself: needs stage 3.",
        '{"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}',
        "refused",
        "zero_optimization.offload_param",
        None,
        "2",
        None,
        (
            "contradiction within the file and not with the settings: DeepSpeed asserts on it later, "
            "after the lease"
        ),
    ),
    (
        "parameter offload with stage 3",
        "A lawful file.",
        '{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}',
        "accepted",
        None,
        None,
        None,
        with_(zero_stage=3),
        None,
    ),
    (
        "elasticity",
        "Elastic training picks its own batch sizes.",
        ('{"elasticity": {"enabled": true, "max_train_batch_size": 2000, "micro_batch_sizes": [2, 4, 6]}}'),
        "refused",
        "elasticity",
        None,
        None,
        None,
        "refused here as it overrides the batch size; ignoring it unsaid would be wrong",
    ),
    (
        "unknown key",
        "DeepSpeed has more keys than we know: given on as it is.",
        '{"wall_clock_breakdown": false, "steps_per_print": 100}',
        "accepted",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "misspelt key",
        "A key that DeepSpeed does not know either: 'train_batchsize'.",
        '{"train_batchsize": 63}',
        "accepted",
        None,
        None,
        None,
        None,
        "accepted as unknown; a warning that nothing reads it would be kinder",
    ),
    (
        "other case",
        "'Train_Batch_Size' is not the key; it says nothing.",
        '{"Train_Batch_Size": 63}',
        "accepted",
        None,
        None,
        None,
        None,
        "as the misspelt key",
    ),
    (
        "duplicate key, last right",
        "json.loads keeps the last: 63 is lost unseen.",
        '{"train_batch_size": 63, "train_batch_size": 64}',
        "refused",
        "train_batch_size",
        None,
        None,
        None,
        "duplicates: refused here; Python's last-wins would accept",
    ),
    (
        "duplicate key, first right",
        "The same, the other way round: 63 wins.",
        '{"train_batch_size": 64, "train_batch_size": 63}',
        "refused",
        "train_batch_size",
        None,
        None,
        None,
        None,
    ),
    (
        "duplicate section",
        "Two zero_optimization: the second drops the first's stage.",
        '{"zero_optimization": {"stage": 3}, "zero_optimization": {"overlap_comm": true}}',
        "refused",
        "zero_optimization",
        None,
        None,
        None,
        "duplicates, as above",
    ),
    (
        "duplicate within a section",
        "Nested duplicates count too.",
        '{"zero_optimization": {"stage": 3, "stage": 2}}',
        "refused",
        "stage",
        None,
        None,
        None,
        "duplicates, as above",
    ),
    (
        "duplicate by escape",
        '"stag\\u0065" is "stage": the same key twice.',
        '{"zero_optimization": {"stage": 3, "stag\\u0065": 2}}',
        "refused",
        "stage",
        None,
        None,
        None,
        "duplicates, as above",
    ),
    (
        "escaped key",
        "One key, written with an escape: it is the key.",
        '{"train_b\\u0061tch_size": 63}',
        "refused",
        "train_batch_size",
        "63",
        "64",
        None,
        None,
    ),
    (
        "two contradictions",
        "Both should be named, so that it takes one round and not two.",
        '{"train_batch_size": 63, "gradient_clipping": 0.5}',
        "refused",
        "train_batch_size",
        "63",
        "64",
        None,
        "all at once or the first only? (here: at least the first)",
    ),
    (
        "section nested in itself",
        "A stage at the wrong depth is not the stage.",
        '{"zero_optimization": {"zero_optimization": {"stage": 3}}}',
        "accepted",
        None,
        None,
        None,
        None,
        "accepted as an unknown key",
    ),
    (
        "empty file",
        "Zero bytes: 'Expecting value: line 1 column 1' is no sentence.",
        "",
        "refused",
        None,
        None,
        None,
        None,
        None,
    ),
    ("white space only", "A file that was emptied.", " \n\t\n", "refused", None, None, None, None, None),
    (
        "list at the top",
        "[{...}] is no configuration.",
        '[{"train_batch_size": 64}]',
        "refused",
        None,
        None,
        None,
        None,
        None,
    ),
    ("string at the top", '"auto" for the lot.', '"auto"', "refused", None, None, None, None, None),
    ("null at the top", "null.", "null", "refused", None, None, None, None, None),
    ("number at the top", "2.", "2", "refused", None, None, None, None, None),
    (
        "line comment",
        "JSON has no comments.",
        '{"train_batch_size": 64 // all GPUs\n}',
        "refused",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "hash comment",
        "Nor these.",
        '# ours\n{"train_batch_size": 64}',
        "refused",
        None,
        None,
        None,
        None,
        None,
    ),
    ("trailing comma", "Nor this.", '{"train_batch_size": 64,}', "refused", None, None, None, None, None),
    ("single quotes", "A Python dict.", "{'train_batch_size': 64}", "refused", None, None, None, None, None),
    (
        "cut off",
        "Half a file: an upload broke.",
        '{"train_batch_size": 64, "zero_opt',
        "refused",
        None,
        None,
        None,
        None,
        None,
    ),
    ("two objects", "Data after the end.", "{}{}", "refused", None, None, None, None, None),
    ("yaml", "DeepSpeed's file is JSON.", "train_batch_size: 64\n", "refused", None, None, None, None, None),
    (
        "byte order mark",
        "Saved by Windows: json.loads of str raises on it.",
        b'\xef\xbb\xbf{"train_batch_size": 64}',
        "accepted",
        None,
        None,
        None,
        None,
        "a BOM: accepted here (utf-8-sig), or refused with a sentence",
    ),
    (
        "utf-16",
        "Saved by PowerShell: UnicodeDecodeError.",
        '{"train_batch_size": 64}'.encode("utf-16"),
        "refused",
        None,
        None,
        None,
        None,
        "json.loads(bytes) detects UTF-16 and would accept; either, but no traceback",
    ),
    (
        "not text",
        "A pickle, a PNG.",
        b"\x89PNG\r\n\x1a\n\x00\xff\xfe",
        "refused",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "number of 5,000 digits",
        "int() refuses over 4,300 digits with a bare ValueError.",
        '{"train_batch_size": ' + "9" * 5000 + "}",
        "refused",
        None,
        None,
        None,
        None,
        None,
    ),
    (
        "number 1e999",
        "Parses to inf.",
        '{"gradient_clipping": 1e999}',
        "refused",
        "gradient_clipping",
        "inf",
        "1.0",
        None,
        None,
    ),
]


def _merge(case: Case) -> dict[str, Any]:
    """What DeepSpeed must be given where the file is accepted: all from the settings."""
    s = case["settings"]
    return {
        "train_batch_size": s["processes"] * s["batch_size"] * s["gradient_accumulation"],
        "train_micro_batch_size_per_gpu": s["batch_size"],
        "gradient_accumulation_steps": s["gradient_accumulation"],
        "gradient_clipping": s["max_grad_norm"],
        "zero_optimization.stage": s["zero_stage"],
        "bf16.enabled": s["bf16"],
    }


def _case(row: tuple[Any, ...], repeat: tuple[str, int] | None = None) -> Case:
    name, why, text, answer, key, file_value, setting_value, settings, unsure = row
    case: Case = {
        "name": name,
        "why": why,
        "text": text,
        "repeat": repeat,
        "settings": settings or BASE,
        "answer": answer,
        "key": key,
        "file_value": file_value,
        "setting_value": setting_value,
        "effective": {},
        "open": unsure,
    }
    if answer == "accepted":
        case["effective"] = _merge(case)
    return case


CASES: list[Case] = [_case(row) for row in _ROWS] + [
    _case(
        (
            "deeply nested",
            "100,000 brackets: RecursionError out of json.",
            '{"a": @',
            "refused",
            None,
            None,
            None,
            None,
            None,
        ),
        ("[", 100_000),
    ),
    _case(
        (
            "deeply nested and closed",
            "Well formed, 50,000 objects deep.",
            '{"x": @1',
            "refused",
            None,
            None,
            None,
            None,
            "not closed here either; what matters is that no RecursionError comes out",
        ),
        ('{"a":', 50_000),
    ),
    _case(
        (
            "fifty megabytes of white space",
            (
                "A configuration is a few kB: refused by its size "
                "before it is read, or accepted within a second or two."
            ),
            '{"train_batch_size": 64}@',
            "refused",
            None,
            None,
            None,
            None,
            "is there a limit of size? (here: yes)",
        ),
        (" ", 50_000_000),
    ),
    _case(
        (
            "a million keys",
            "20 MB of keys nobody knows.",
            '{@"z": 0}',
            "refused",
            None,
            None,
            None,
            None,
            "the same limit",
        ),
        ('"a_key_like_this": 0,', 1_000_000),
    ),
]


class Odd(TypedDict):
    name: str
    why: str
    path: str  # what stands at finetune.deepspeed, within a fresh folder
    make: str  # how the test makes it
    answer: str


PATHS: list[Odd] = [
    {
        "name": "no such file",
        "why": "A misspelt name.",
        "path": "missing.json",
        "make": "nothing",
        "answer": "refused at plan, naming the setting and the path",
    },
    {
        "name": "a folder",
        "why": "IsADirectoryError.",
        "path": "folder.json",
        "make": "a folder",
        "answer": "refused at plan, naming the setting and the path",
    },
    {
        "name": "not readable",
        "why": "Mode 000 (skip as root).",
        "path": "secret.json",
        "make": "a file with mode 000",
        "answer": "refused at plan, naming the path",
    },
    {
        "name": "a pipe",
        "why": "open() on a FIFO waits for ever.",
        "path": "pipe.json",
        "make": "os.mkfifo",
        "answer": "refused at plan, at once",
    },
    {
        "name": "changed after plan",
        "why": "Checked at plan, other content at the run: twice.",
        "path": "ds.json",
        "make": "stage 2 at plan, stage 3 at the run",
        "answer": "the run uses what was frozen at plan, or refuses; never the unchecked content",
    },
    {
        "name": "empty string",
        "why": "`deepspeed: ''` from an unset variable.",
        "path": "",
        "make": "nothing",
        "answer": "as if not set, or refused; not the current folder",
    },
]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{key}: given twice")
    return dict(pairs)


def reference(data: bytes, settings: Settings) -> tuple[str, str | None]:
    """Slow and obvious: ("accepted", None) or ("refused", key)."""
    if len(data) > 1_000_000:
        return "refused", None
    try:
        loaded = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_pairs)
    except ValueError as error:
        text = str(error)
        return "refused", text.split(":")[0] if text.endswith("given twice") else None
    except RecursionError:
        return "refused", None
    if not isinstance(loaded, dict):
        return "refused", None
    for section in ("zero_optimization", "bf16", "fp16", "optimizer", "scheduler"):
        if section in loaded and not isinstance(loaded[section], dict):
            return "refused", section
    if "elasticity" in loaded:
        return "refused", "elasticity"
    fp16 = loaded.get("fp16", {}).get("enabled", False)
    if fp16 is not False and fp16 != "auto":
        return "refused", "fp16.enabled"
    if "offload_param" in loaded.get("zero_optimization", {}) and settings["zero_stage"] != 3:
        return "refused", "zero_optimization.offload_param"
    expected: list[tuple[tuple[str, ...], Any]] = [
        (
            ("train_batch_size",),
            settings["processes"] * settings["batch_size"] * settings["gradient_accumulation"],
        ),
        (("train_micro_batch_size_per_gpu",), settings["batch_size"]),
        (("gradient_accumulation_steps",), settings["gradient_accumulation"]),
        (("gradient_clipping",), settings["max_grad_norm"]),
        (("zero_optimization", "stage"), settings["zero_stage"]),
        (("bf16", "enabled"), settings["bf16"]),
        (("optimizer", "params", "lr"), settings["learning_rate"]),
        (("scheduler", "params", "warmup_max_lr"), settings["learning_rate"]),
    ]
    # the first contradiction is named; naming all of them is better still
    for path, setting in expected:
        value: Any = loaded
        for part in path:
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        else:
            if value == "auto":
                continue
            if isinstance(setting, bool):
                good = value is setting
            else:
                good = (
                    isinstance(value, (int, float))
                    and not isinstance(value, bool)
                    and math.isfinite(value)
                    and value == setting
                )
            if not good:
                return "refused", ".".join(path)
    return "accepted", None


if __name__ == "__main__":
    for case in CASES:
        verdict, key = reference(content(case), case["settings"])
        assert verdict == case["answer"], (case["name"], verdict, key)
        assert key == case["key"] or (key or "").endswith(case["key"] or "-"), (case["name"], key)
    assert len({case["name"] for case in CASES}) == len(CASES)
    print(len(CASES) + len(PATHS), "cases;", sum(c["open"] is not None for c in CASES), "open")
