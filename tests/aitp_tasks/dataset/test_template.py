"""Templates of the card: which are refused at plan, and what the others make of it."""

from pathlib import Path

import pytest
import yaml

from aitp_tasks.dataset import template
from aitp_tasks.errors import InputError
from tests.aitp_tasks import handed
from tests.aitp_tasks.dataset.card_cases import TEMPLATES

#: By what is said of it; all others can be used.
REFUSED = {
    "template-breaks-yaml": "begins with a front matter",
    "template-unknown-placeholder": "'rowz' is undefined",
    "template-missing": "does not exist|cannot be read",
    "template-reads-files": "cannot be filled",
    "template-crlf-bom": "begins with a front matter",
    "template-contradicts-licence": "begins with a front matter",
}
OWN = "# {{ title }}\n\n{{ loading }}\n\n{{ limits }}\n\n{{ evaluation }}\n"


def text_of(case: dict[str, object]) -> str | None:
    given = case["given"]
    assert isinstance(given, dict)
    text = given["template"]
    return OWN if case["id"] == "template-own" else text


@pytest.mark.parametrize("case", TEMPLATES, ids=lambda case: case["id"])
def test_a_template_is_used_or_refused_by_name(tmp_path: Path, case: dict[str, object]) -> None:
    text, path = text_of(case), tmp_path / "own.md"
    if text is not None:
        path.write_bytes(text.encode())
    if case["id"] in REFUSED:
        with pytest.raises(InputError, match=REFUSED[str(case["id"])]) as raised:
            template.load(str(path) if text is not None else f"file://{tmp_path}/none.md")
        assert (tmp_path.name in str(raised.value), "root:x" in str(raised.value)) == (True, False)
        return
    folder = tmp_path / "version"
    folder.mkdir()
    used = template.load(str(path))
    handed.version(folder, handed.rows(), template=used, config=handed.config(license="cc-by-4.0"))
    card = (folder / "README.md").read_text()
    _, front, rest = card.split("---\n", 2)
    values = yaml.safe_load(front)
    assert {"license", "size_categories", "configs"} <= values.keys()
    assert rest.splitlines()[:1] == {"template-own": ["# aitp news-1"], "template-empty": []}.get(
        str(case["id"]), ["# Only a title"]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n{% if %}", r"\(line 2\)"),
        ("{{ title.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ title + 1 }}", "cannot be filled"),
        ("{{ title[9999] }}", "cannot be filled"),
    ],
)
def test_what_cannot_be_filled_is_told_with_what_there_is(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.md"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as raised:
        template.load(str(path))
    assert all(name in str(raised.value) for name in ("own.md", "assemble.card", *template.SECTIONS))


def test_what_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "own.md"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is no text in UTF-8"):
        template.load(str(path))
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        template.load(str(tmp_path))


def test_a_template_from_a_storage_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.md").write_text("{{ title }}")
    assert template.load(f"file://{tmp_path}/own.md") == "{{ title }}"
    assert template.load(None) is None


def test_what_is_put_into_a_place_is_no_template() -> None:
    sections = dict.fromkeys(template.SECTIONS, "{{ 7777 * 7777 }}{% raise %}")
    assert template.render("{{ title }}", sections) == "{{ 7777 * 7777 }}{% raise %}"
    assert template.render(None, sections).count("{% raise %}") == len(template.SECTIONS)
