"""The reference of all failure messages, from the places that raise them."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TOP = """\
<!-- Written by `make docs`: change the message where it is raised. -->

# Failure messages

What a stage or a tool says of a failure in its last line, `error: …`, by the module that says it. A message
names the thing, its value and the remedy; what stands in `<…>` is filled in. The code is what the process
ends with ([exit codes](exit-codes.md)): 2, wrong input, and 3, a spent failure budget, want somebody to do
what the message says; 75 may pass by itself, and Airflow tries again. Look for a few words that are no names.
Those of an index (`vector_index/`) are followed by what to delete, and what to run again.
"""
_ERRORS = "errors.py"
_CODES = {"InputError": 2, "BudgetExceededError": 3, "TransientError": 75}
#: What pydantic makes a wrong setting of; only sections of the configuration raise it for people.
_SETTING, _SETTINGS = "ValueError", "config"
_LONGEST_NAME = 24


@dataclass(frozen=True)
class Message:
    """One message, as it stands in the code."""

    module: str
    line: int
    code: int
    text: str


def page(repository: Path) -> str:
    """One section for each module that has messages, in the order of their paths."""
    by_module: dict[str, list[Message]] = {}
    for message in messages(repository / "aitp_tasks"):
        by_module.setdefault(message.module, []).append(message)
    lines = [_TOP]
    for module, found in by_module.items():
        lines += [f"## [{module}](../../aitp_tasks/{module})", "", "| code | message |", "|---|---|"]
        lines += [f"| {message.code} | {_code(message.text)} |" for message in found]
        lines.append("")
    return "\n".join(lines)


def messages(package: Path) -> list[Message]:
    """All messages of a package, in the order of its modules and lines; equal ones of a module once."""
    trees = {
        path.relative_to(package).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
    }
    codes, constants = _codes(trees), _constants(trees.values())
    found: dict[tuple[str, int, str], Message] = {}
    for module, tree in trees.items():
        known = codes[module] | ({_SETTING: 2} if module.startswith(f"{_SETTINGS}/") else {})
        # A module's own come before those of others that have the same name.
        named = constants | _constants([tree])
        for line, code, text in sorted(_of(tree, known, named)):
            found.setdefault((module, code, text), Message(module, line, code, text))
    return list(found.values())


def _codes(trees: Mapping[str, ast.Module]) -> dict[str, dict[str, int]]:
    """Of each module, the exit code of each of our errors that it knows by name: that of its base."""
    # What each module calls a class: its own, or another's that it imports.
    known: dict[str, dict[str, tuple[str, str]]] = {module: {} for module in trees}
    bases: dict[tuple[str, str], list[str]] = {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                known[module][node.name] = (module, node.name)
                bases[module, node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
            elif isinstance(node, ast.ImportFrom) and node.module:
                path = node.module.removeprefix("aitp_tasks.").replace(".", "/")
                place = next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in trees), "")
                known[module] |= {name.asname or name.name: (place, name.name) for name in node.names}

    def code(module: str, name: str) -> int | None:
        where = known.get(module, {}).get(name)
        if where is None:
            return None
        if where[0] == _ERRORS and where[1] in _CODES:
            return _CODES[where[1]]
        if where != (module, name):
            return code(*where)
        return next((found for base in bases.get(where, ()) if (found := code(module, base))), None)

    return {
        module: {name: found for name in names if (found := code(module, name)) is not None}
        for module, names in known.items()
    }


def _constants(trees: Iterable[ast.Module]) -> dict[str, str]:
    """Texts and numbers that modules give a name to, as messages show them; none of two by one name."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = node.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str | int | float):
                    found.setdefault(node.targets[0].id, set()).add(str(value.value))
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _of(tree: ast.Module, codes: dict[str, int], constants: dict[str, str]) -> Iterator[tuple[int, int, str]]:
    """Line, code and text of each message of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in codes:
            text = _text(node.args[0], constants) if node.args else ""
            # One that only repeats what another error says is that one's.
            if re.search(r"[a-z]{3}", re.sub("<[^>]*>", "", text)):
                yield node.lineno, codes[node.func.id], " ".join(text.split())


def _text(node: ast.expr, constants: dict[str, str]) -> str:
    """A text as it is written, with the names of what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(value, constants) for value in values)
        case ast.FormattedValue(value=value):
            return _text(value, constants)
        case ast.Call(args=[ast.JoinedStr() as given, *_]):
            # Such as the address of a key that is put together on the spot.
            return _text(given, constants)
        case ast.BinOp(left=left, op=ast.Add(), right=right) if _is_text(node):
            return _text(left, constants) + _text(right, constants)
        case ast.IfExp(body=body, orelse=other):
            return " / ".join(filter(None, (_text(body, constants), _text(other, constants))))
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in constants:
            return constants[name]
    return f"<{_name(node)}>"


def _is_text(node: ast.expr) -> bool:
    """Whether what is added up is text; else it is a number."""
    return any(
        isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and isinstance(one.value, str))
        for one in ast.walk(node)
    )


def _name(node: ast.expr) -> str:
    """What a value is called: its last name, or as much of the expression as is short."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_")
        case ast.Constant(value=value):
            return str(value)
        case ast.Subscript(value=value):
            return _name(value)
        case ast.Call(args=[first, *_]):
            return _name(first)
        case ast.Call(func=func):
            return _name(func)
        case ast.BinOp(left=left) | ast.BoolOp(values=[left, *_]):
            return _name(left)
        case ast.IfExp(body=body):
            return _name(body)
    written = ast.unparse(node)
    return written if len(written) <= _LONGEST_NAME and ">" not in written else "…"


def _code(text: str) -> str:
    """A text as code in a cell of a table."""
    fence = "``" if "`" in text else "`"
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{room}{text.replace('|', chr(92) + '|')}{room}{fence}"
