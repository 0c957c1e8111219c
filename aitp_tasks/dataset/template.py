"""The card's template: the project's own, or one that the configuration names.

It is Jinja in a sandbox: places for sections that are made here, no files, no Python. What
is put into a place is never read as a template. The front matter is none of its business,
since by that loaders know the rows.
"""

from collections.abc import Mapping
from pathlib import Path

from aitp_tasks.errors import InputError
from aitp_tasks.storage import open_storage

OWN = Path(__file__).with_name("card.jinja")
#: What a template may name; each is Markdown.
SECTIONS = (
    *("title", "summary", "made_of", "funnel", "removals", "coverage", "evaluation", "prompts", "models"),
    *("limits", "licence", "loading", "reproduce"),
)
_MARK = "\ufeff"


def load(setting: str | None) -> str | None:
    """The text of the template that ``assemble.card`` names, if it can be used; None for the project's own.

    Raises:
        InputError: it cannot be read, has a front matter of its own, or cannot be filled.
    """
    if setting is None:
        return None
    text = _read(setting).removeprefix(_MARK).replace("\r\n", "\n")
    if text.lstrip().startswith("---"):
        raise InputError(
            f"card template {setting} begins with a front matter: AITP writes that itself, from the version "
            "and assemble.license: take it out"
        )
    render(text, {name: f"*{name}*" for name in SECTIONS}, setting)
    return text


def render(text: str | None, sections: Mapping[str, str], setting: str = "") -> str:
    """A template filled.

    Args:
        text: the template; None is the project's own.
        sections: by their names.
        setting: ``assemble.card``, for the message.

    Raises:
        InputError: it cannot be filled.
    """
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    try:
        return environment.from_string(OWN.read_text(encoding="utf-8") if text is None else text).render(
            sections
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        line = getattr(error, "lineno", None)
        raise InputError(
            f"card template {setting} cannot be filled{f' (line {line})' if line else ''}: "
            f"{' '.join(str(error).split())}: correct assemble.card, which may name {', '.join(SECTIONS)}"
        ) from None


def _read(setting: str) -> str:
    try:
        if setting.startswith(("s3://", "file://")):
            folder, _, name = setting.rpartition("/")
            return open_storage(folder).read(name).decode("utf-8")
        return Path(setting).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"card template {setting} cannot be read ({error.strerror}): correct assemble.card"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"card template {setting} is no text in UTF-8: correct assemble.card") from None
