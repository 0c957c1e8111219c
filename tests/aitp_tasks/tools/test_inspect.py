"""What inputs are taken for, told beside any run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.tools import inspect
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard

SHAREGPT = [
    {
        "id": str(number),
        "system": "s",
        "conversations": [{"from": "human", "value": f"q{number}"}, {"from": "gpt", "value": "a"}],
    }
    for number in range(4)
]
NO_TURNS = {"id": "5", "conversations": []}
UNKNOWN = {"id": "6", "conversations": [{"from": "wizard", "value": "x"}]}


@pytest.fixture
def folder(root: Path) -> str:
    lines = [*SHAREGPT, NO_TURNS, NO_TURNS, UNKNOWN]
    (root / "sft/sums/a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "sft/sums/notes.xlsx").write_bytes(b"x")
    (root / "sft/sums/broken.jsonl.gz").write_bytes(b"no gzip")
    (root / "sft/sums/_SUCCESS").write_bytes(b"")
    return f"file://{root}"


def test_a_set_is_told_whole(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect.execute(None, f"{folder}/sft/sums/")
    assert (found["role"], found["files"], found["rows_read"]) == ("sft", 3, 7 + 8)
    assert found["forms"] == {"jsonl sharegpt": 1, "parquet alpaca": 1}
    assert set(found["columns"]) == {"id", "system", "conversations", "instruction", "input", "output"}
    first = found["examples"][0]
    assert (first["file"], first["row"], first["text"]) == ("sft/sums/a.jsonl", 0, "q0\na")
    assert first["messages"][0] == {"role": "system", "content": "s"}
    assert len(found["examples"]) == 3
    assert found["rejected"]["no_turns"]["rows"] == 2
    assert found["rejected"]["no_turns"]["first"].startswith("sft/sums/a.jsonl row 4: ")
    assert "'wizard'" in found["quarantined"]["unknown_role"]["first"]
    assert found["not_kept"] == {"id": 4}
    assert list(found["unreadable"]) == ["sft/sums/broken.jsonl.gz"]
    assert found["first_not_read"] == ["sft/sums/notes.xlsx"]
    told = capsys.readouterr().err
    for words in (
        "q0\\na",
        "left out    2 no_turns",
        "left out    1 hidden files",
        "not kept    id (4 rows)",
        "notes.xlsx",
        "wizard",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("path", "role", "files", "rows"),
    [
        ("sft/sums/a.jsonl", None, 1, 7),
        ("corpus/news", None, 2, 12),
        ("corpus/news/news-00001.parquet", None, 1, 6),
        ("sft/sums/sums-00000.parquet/", None, 1, 8),
    ],
)
def test_a_folder_or_one_file(folder: str, path: str, role: str | None, files: int, rows: int) -> None:
    found = inspect.execute(None, f"{folder}/{path}", role)
    assert (found["files"], found["rows_read"]) == (files, rows)
    assert len(found["examples"]) == 3


def test_what_lies_elsewhere_has_the_role_that_is_said(tmp_path: Path) -> None:
    write_shard(tmp_path / "somewhere/x.parquet", alpaca(2))
    for uri in (f"file://{tmp_path}/somewhere", f"file://{tmp_path}/somewhere/x.parquet"):
        assert inspect.execute(None, uri, "sft")["rows_read"] == 2
        with pytest.raises(InputError, match="neither corpus/ nor sft/: say --role"):
            inspect.execute(None, uri)
    with pytest.raises(InputError, match="nothing is not there: name a folder or a file that is"):
        inspect.execute(None, f"file://{tmp_path}/nothing", "sft")


def test_credentials_are_not_repeated() -> None:
    with pytest.raises(InputError, match="holds credentials") as raised:
        inspect.execute(None, "s3://key:hidden@bucket/x")
    assert "hidden" not in str(raised.value)


def test_as_the_configuration_reads_it(folder: str, configure: Configure) -> None:
    config = configure(sft_text="user_turns", text_columns=["body"])
    assert inspect.execute(config, f"{folder}/sft/sums/a.jsonl")["examples"][0]["text"] == "q0"
    corpus = inspect.execute(config, f"{folder}/corpus/news")
    assert "has no column 'body'" in corpus["unreadable"]["corpus/news/news-00000.parquet"]


def test_the_first_rows_of_a_few_files_unless_all_is_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "ROWS", 3)
    for number in range(20):
        write_shard(root / f"sft/many/{number:02d}.parquet", [row | {"id": 1} for row in alpaca(10)])
    some = inspect.execute(None, f"file://{root}/sft/many")
    assert (some["files"], some["files_read"], some["rows_read"], some["whole"]) == (20, 5, 15, False)
    assert some["not_kept"] == {"id": 15}
    whole = inspect.execute(None, f"file://{root}/sft/many", whole=True)
    assert (whole["files_read"], whole["rows_read"], whole["not_kept"]) == (20, 200, {"id": 200})


def test_the_command_prints_one_line(folder: str) -> None:
    def aitp(*arguments: str) -> Any:
        program = Path(sys.executable).with_name("aitp")
        return subprocess.run([program, "inspect", *arguments], capture_output=True, text=True, timeout=300)

    done = aitp(f"{folder}/sft/sums", "--all")
    assert json.loads(done.stdout)["whole"] is True
    assert done.stdout.count("\n") == 1
    wrong = aitp(f"{folder}/sft/sums", "--set", "sft=x")
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (
        2,
        "error: --set sft=x is given without --config: give the configuration",
    )


def test_rows_before_a_damage_are_counted(root: Path) -> None:
    (root / "corpus/news/a.json").write_text('[{"text": "a"}, {"text": "b"}, {"text": null}, oops]')
    found = inspect.execute(None, f"file://{root}/corpus/news/a.json", whole=True)
    assert (found["rows_read"], len(found["examples"]), len(found["unreadable"])) == (3, 2, 1)


def test_a_text_column_that_leads_nowhere_is_told_as_plan_does(
    root: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "corpus/one").mkdir()
    (root / "corpus/one/a.jsonl").write_text('{"text": "a", "head": {}}\n')
    uri = f"file://{root}/corpus/one"
    assert inspect.execute(configure(text_columns=["text"]), uri)["problems"] == []
    capsys.readouterr()
    found = inspect.execute(configure(text_columns=["title", "text"]), uri)
    assert len(found["problems"]) == 1
    assert "no column 'title'" in found["problems"][0]
    assert "problem     file://" in capsys.readouterr().err
