"""The reference of all settings, from the models of ``aitp_tasks.config``: a table a section."""

from collections.abc import Iterator
from typing import Any

from aitp_tasks.config import RunConfig

_TOP = """\
<!-- Written by `make docs`: change the fields in aitp_tasks/config/ instead. -->

# Configuration

A run is configured by one YAML file, for example [configs/demo.yaml](../../configs/demo.yaml). Paths in it
that start with `./` or `../` are relative to the file. A setting that has a default may be left out; one
that is not listed here is refused. On the command line, `--set density.bandwidth=0.5` replaces a setting.

With `extends: ./other.yaml` a file says only what differs from another one, which may extend a third:
sections are joined setting by setting, any other value takes the other's place.

## The run
"""

#: JSON Schema, of a section or of one setting.
Schema = dict[str, Any]


def page() -> str:
    """The page, in the order of ``RunConfig``."""
    schema = RunConfig.model_json_schema()
    definitions = schema["$defs"]
    fields = schema["properties"]
    sections = {name: section for name in fields if (section := _section(fields[name], definitions))}
    settings = {name: field for name, field in fields.items() if name not in sections}
    lines = [_TOP, *_table({**schema, "properties": settings}, "", definitions)]
    for name, section in sections.items():
        lines += _described(section, name, definitions, "##")
    return "\n".join(lines)


def _described(section: Schema, path: str, definitions: Schema, heading: str) -> Iterator[str]:
    """Heading, description and table of a section, and the same of those inside it."""
    yield from (f"{heading} {path}", "", section["description"].replace("``", "`"), "")
    yield from _table(section, f"{path}.", definitions)
    for name, field in section["properties"].items():
        if inner := _section(field, definitions):
            yield from _described(inner, f"{path}.{name}", definitions, f"{heading}#")


def _table(section: Schema, prefix: str, definitions: Schema) -> Iterator[str]:
    yield from ("| setting | value | default | meaning |", "|---|---|---|---|")
    for name, field in section["properties"].items():
        cells = (
            f"`{prefix}{name}`",
            _link(prefix + name) if _section(field, definitions) else _value(field, definitions),
            "**required**" if name in section.get("required", ()) else _default(field),
            f"**{_title(field, definitions)}.** {field['description']}",
        )
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
    yield ""


def _link(path: str) -> str:
    return f"[a section](#{path.replace('.', '')})"


def _section(field: Schema, definitions: Schema) -> Schema:
    """The section that a field holds; empty for a value."""
    for kind in (field, *field.get("anyOf", ())):
        named = _named(kind, definitions) if "$ref" in kind else {}
        if "properties" in named:
            return named
    return {}


def _named(kind: Schema, definitions: Schema) -> Schema:
    """What a reference leads to."""
    found: Schema = definitions[kind["$ref"].rpartition("/")[2]]
    return found


def _title(field: Schema, definitions: Schema) -> str:
    # A field that has the same title as its type leaves it to the type.
    title: str = field["title"] if "title" in field else _named(field, definitions)["title"]
    return title


def _value(kind: Schema, definitions: Schema) -> str:
    """What may be given, as a person reads it."""
    if "$ref" in kind:
        return _value(_named(kind, definitions), definitions)
    if "anyOf" in kind:
        return ", or ".join(_value(one, definitions) for one in kind["anyOf"] if one.get("type") != "null")
    if "enum" in kind:
        *most, last = [f"`{value}`" for value in kind["enum"]]
        return f"{', '.join(most)} or {last}" if most else last
    match kind["type"]:
        case "array":
            return f"list of {_value(kind['items'], definitions)}"
        case "object":
            values = kind["additionalProperties"]
            return f"mapping to {_value(values, definitions)}" if isinstance(values, dict) else "mapping"
        case "boolean":
            return "`true` or `false`"
        case "string":
            return "text" + _form(kind)
        case "integer":
            return f"whole number{_bounds(kind)}"
        case "number":
            return f"number{_bounds(kind)}"
    raise ValueError(
        f"no words for a setting of the kind {kind}: add them to docs/from_code/configuration.py"
    )


def _form(kind: Schema) -> str:
    pattern = f" of the form `{kind['pattern']}`" if "pattern" in kind else ""
    return pattern + (f", at most {kind['maxLength']} characters" if "maxLength" in kind else "")


def _bounds(kind: Schema) -> str:
    """As words, with a space before them: from 1 to 8; above 0, at most 100; from 1 up."""
    low, above, high, below = (
        _number(kind[key]) if key in kind else ""
        for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    )
    start = f" from {low}" if low else f" above {above}" if above else ""
    if low and high:
        return f"{start} to {high}"
    end = f"at most {high}" if high else f"below {below}" if below else ""
    if not end:
        return start + (" up" if low else "")
    return f"{start}, {end}" if start else f" {end}"


def _number(value: float) -> str:
    return f"{int(value) if value == int(value) else value:,}"


def _default(field: Schema) -> str:
    # What is made anew for each configuration is an empty mapping, and no default in the schema.
    value = field.get("default", {})
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case list():
            return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"
