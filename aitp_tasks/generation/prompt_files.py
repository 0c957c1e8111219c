"""The prompts: YAML files that KOR-Bench can load too, filled without formatting.

A file has KOR-Bench's key ``prompt_format``: a list whose first element is a
template with positional ``{}`` and doubled braces for literal ones. It may add
``version``, ``schema`` (of the response) and ``sampling``. A template is split
at its placeholders once; what is put between the pieces is never interpreted. Each
prompt stage has one; that of the judge is read where answers are judged.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aitp_tasks.config import Prompts, Verdict
from aitp_tasks.errors import InputError
from aitp_tasks.generation.responses import aliases
from aitp_tasks.records import digest
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.storage import open_storage

#: The prompt by which answers are judged.
JUDGE = "judge"
#: File and arguments of each prompt, in the order of their placeholders.
FILES = {
    "rewrite": ("rewrite_shift_question.yaml", ("text",)),
    "score": ("score_shift.yaml", ("question",)),
    "answer": ("generate_shift_answer.yaml", ("text", "question")),
    JUDGE: ("judge_answer.yaml", ("text", "question", "answer")),
}
#: What is read of a response to each, as its prompt's schema describes it where the file has none.
_READ: dict[str, dict[str, dict[str, Any]]] = {
    "rewrite": {
        "questions": {"type": "array", "items": {"type": "string", "minLength": 10, "maxLength": 600}}
    },
    "score": {
        "quality": {"type": "integer", "minimum": 1, "maximum": 10},
        "difficulty": {"type": "integer", "minimum": 1, "maximum": 10},
        "additional_information": {"type": "boolean"},
    },
    "answer": {"answer": {"type": "string", "minLength": 1, "maxLength": 4000}},
    JUDGE: {"verdict": {"type": "string", "enum": [verdict.value for verdict in reversed(Verdict)]}},
}
#: Sampling where the file has none; a mark may come with a word on it where the schema is not enforced.
_SAMPLING: dict[str, dict[str, Any]] = {
    "rewrite": {"max_tokens": 640, "temperature": 0.0},
    "score": {"max_tokens": 256, "temperature": 0.0},
    "answer": {"max_tokens": 2048, "temperature": 0.0},
    JUDGE: {"max_tokens": 64, "temperature": 0.0},
}
_KEYS = {"prompt_format", "version", "schema", "sampling"}
#: Of a digest, where the file has no version.
_VERSION_CHARACTERS = 12


class _Sampling(BaseModel):
    """What an engine takes; it would refuse every row for another value."""

    # A per-request seed kills vLLM's CPU engine; the engine's own seed is used.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_tokens: int = Field(1, ge=1)
    temperature: float = Field(0, ge=0, le=2)
    top_p: float = Field(1, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    repetition_penalty: float = Field(1, gt=0)


def load_folder(config: Prompts, judged: bool = False) -> dict[str, FrozenPrompt]:
    """Read and check the prompts of the stages, and that of the judge where answers are ``judged``.

    Raises:
        InputError: a file is missing, not YAML, or not a usable prompt; or a question is to get several
            answers, and they would all be one and the same.
    """
    loaded = {stage: load(config, stage) for stage in FILES if judged or stage != JUDGE}
    _require_variety(config, loaded["answer"])
    return loaded


def is_there(config: Prompts, stage: str) -> bool:
    """Whether the folder has the file of a prompt."""
    path = _path(config, stage)
    if _in_storage(path):
        folder, _, name = path.rpartition("/")
        return open_storage(folder).find(name) is not None
    return Path(path).exists()


def load(config: Prompts, stage: str) -> FrozenPrompt:
    """Read and check one prompt.

    Raises:
        InputError: its file is missing, not YAML, or not a usable prompt.
    """
    path = _path(config, stage)
    values = _values(path)
    template = _template(values["prompt_format"], path)
    version, schema, sampling = (values.get(name) for name in ("version", "schema", "sampling"))
    schema = _schema(_default_schema(stage, template) if schema is None else schema, path, stage)
    sampling = _sampling(_SAMPLING[stage] if sampling is None else sampling, path)
    if version is None:
        version = digest.of_value([template, schema, sampling])[:_VERSION_CHARACTERS]
    prompt = FrozenPrompt(
        name=stage,
        version=str(version),
        template=template,
        output_schema=_asking(stage, schema, config.questions_per_document),
        sampling=sampling | _sampling(config.sampling, "prompts.sampling", ()),
    )
    pieces(prompt, path)
    return prompt


def _path(config: Prompts, stage: str) -> str:
    return f"{config.folder}/{FILES[stage][0]}"


def _require_variety(config: Prompts, answering: FrozenPrompt) -> None:
    """Refuse to sample several answers where each token is the likeliest one."""
    # An engine that is told no temperature samples at 1.
    greedy = {"temperature": 0.0, "top_k": 1}
    name = next((name for name, value in greedy.items() if answering.sampling.get(name) == value), None)
    if config.answers_per_question == 1 or name is None:
        return
    where = "prompts.sampling" if name in config.sampling else f"sampling in {_path(config, 'answer')}"
    raise InputError(
        f"prompts.answers_per_question={config.answers_per_question}, and {where} has "
        f"{name}={answering.sampling[name]:g}, by which all answers to a question are the same: set "
        f"{'temperature to 0.8' if name == 'temperature' else 'top_k to 0'}, or answers_per_question to 1"
    )


def _values(path: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(_read(path).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"prompt {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or "prompt_format" not in values:
        raise InputError(f"prompt {path} is not a mapping with prompt_format: write one, as in prompts/")
    if unknown := sorted(map(str, values.keys() - _KEYS)):
        raise InputError(f"prompt {path} has {', '.join(unknown)}: it may hold {', '.join(sorted(_KEYS))}")
    return values


def _default_schema(stage: str, template: str) -> dict[str, Any]:
    """What the stage reads, under the names that the template gives it."""
    properties = {_named_in(template, name): described for name, described in _READ[stage].items()}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _named_in(template: str, name: str) -> str:
    return next((other for other in reversed(aliases.spellings(name)) if other in template), name)


def _read(path: str) -> bytes:
    if _in_storage(path):
        folder, _, name = path.rpartition("/")
        return open_storage(folder).read(name)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"prompt {path} cannot be read ({error.strerror}): correct prompts.folder") from None


def _in_storage(path: str) -> bool:
    return path.startswith(("s3://", "file://"))


def _template(value: Any, path: str) -> str:
    if not (isinstance(value, list) and value and isinstance(value[0], str)):
        raise InputError(f"prompt {path}: prompt_format must be a list whose first element is the template")
    return value[0]


def _schema(value: Any, path: str, stage: str) -> dict[str, Any]:
    try:
        Draft202012Validator.check_schema(value)
    except SchemaError as error:
        raise InputError(f"prompt {path}: schema is not a JSON schema: {error.message}") from None
    if not isinstance(value, dict) or value.get("type") != "object":
        raise InputError(f"prompt {path}: schema must describe an object")
    properties, required = value.get("properties", {}), value.get("required", [])
    for name, read in _READ[stage].items():
        found = [other for other in aliases.spellings(name) if other in properties]
        described = properties[found[0]] if len(found) == 1 else None
        fits = isinstance(described, dict) and described.get("type") == read["type"]
        if not fits or found[0] not in required:
            names = " or ".join(map(repr, aliases.spellings(name)))
            raise InputError(
                f"prompt {path}: {stage} reads {names} of each response: "
                f"describe it in the schema as type {read['type']}, and name it in required"
            )
    if stage == "rewrite":
        items = properties["questions"].get("items")
        if not isinstance(items, dict) or items.get("type") != "string":
            raise InputError(f"prompt {path}: the schema's questions must have items of type string")
    if stage == JUDGE and not _are_verdicts(properties["verdict"].get("enum")):
        raise InputError(
            f"prompt {path}: the schema's verdict must have an enum of some or all of {', '.join(Verdict)}"
        )
    return value


def _are_verdicts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(one in list(Verdict) for one in value)


def _asking(stage: str, schema: dict[str, Any], questions: int) -> dict[str, Any]:
    """A schema with the number of questions that are asked for."""
    if stage != "rewrite":
        return schema
    properties = schema["properties"]
    asked = properties["questions"] | {"minItems": questions, "maxItems": questions}
    return schema | {"properties": properties | {"questions": asked}}


def _sampling(value: Any, path: str, needed: tuple[str, ...] = ("max_tokens",)) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(needed) <= value.keys():
        raise InputError(f"prompt {path}: sampling must name max_tokens")
    try:
        return _Sampling.model_validate(value).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"prompt {path}: sampling has {first['loc'][0]}={first['input']!r} ({first['msg']}); "
            f"it may hold {', '.join(sorted(_Sampling.model_fields))}"
        ) from None


def pieces(prompt: FrozenPrompt, where: str = "") -> tuple[str, ...]:
    """The literal pieces of a template around its placeholders, braces undoubled.

    Raises:
        InputError: the braces do not pair, a placeholder is not ``{}``, or their
            number is not the stage's.
    """
    _, arguments = FILES[prompt.name]
    try:
        result = _split(prompt.template)
    except ValueError as error:
        raise InputError(f"prompt {where or prompt.name}: {error}; literal braces are doubled") from None
    if len(result) - 1 != len(arguments):
        raise InputError(
            f"prompt {where or prompt.name} has {len(result) - 1} placeholders {{}}: "
            f"{prompt.name} needs {len(arguments)} ({', '.join(arguments)})"
        )
    return result


@cache
def _split(template: str) -> tuple[str, ...]:
    result = [""]
    for literal, field, spec, conversion in Formatter().parse(template):
        result[-1] += literal
        if field is not None:
            if field or spec or conversion:
                raise ValueError(f"placeholder {{{field}}} is not positional: write {{}}")
            result.append("")
    return tuple(result)


def fill(prompt: FrozenPrompt, values: Mapping[str, str]) -> str:
    """The prompt with its arguments put in, unchanged whatever they contain."""
    _, arguments = FILES[prompt.name]
    literals = pieces(prompt)
    filled = (values[name] + literal for name, literal in zip(arguments, literals[1:], strict=True))
    return literals[0] + "".join(filled)
