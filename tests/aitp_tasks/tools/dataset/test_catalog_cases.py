"""Cases told by somebody who had not read the code: versions listed, compared, taken back, marked, copied.

Those in which a night follows are in ``test_rollback_nights.py``, those of lineage in
``tests/aitp_tasks/tools/test_lineage.py``.
"""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from aitp_tasks import cli
from aitp_tasks.dataset.export import SCHEMA
from aitp_tasks.errors import ExitCode
from aitp_tasks.records import pairs, versions
from aitp_tasks.tools.dataset import export, leaving, rollback
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.tools.dataset import catalog_cases as told
from tests.aitp_tasks.tools.dataset.made_line import LINE, MadeLine, row_of

Case = dict[str, Any]


@dataclass
class Outcome:
    """What came of one command: exit code, result, and what was printed for a person."""

    code: int
    result: Any
    err: str

    @property
    def text(self) -> str:
        """All that it has said."""
        return self.err + json.dumps(self.result, ensure_ascii=False)

    @property
    def printed(self) -> str:
        """The same, letter by letter as it is printed."""
        return self.err + json.dumps(self.result)


class Shell:
    """Runs commands against a made line."""

    def __init__(self, line: MadeLine, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.line, self._config, self._capsys = line, config, capsys

    def __call__(self, arguments: list[str]) -> Outcome:
        place = 2 if arguments[0] == "dataset" else 1
        given = [*arguments[:place], "--config", str(self._config), *arguments[place:]]
        try:
            parsed = cli.parser().parse_args(given)
        except SystemExit as error:
            return Outcome(int(str(error.code)), None, self._capsys.readouterr().err)
        code, result = cli._guarded(lambda: cli._run_stage(parsed))
        return Outcome(code, result, self._capsys.readouterr().err)


@pytest.fixture
def shell(tmp_path: Path, root: Path, configure: Configure, capsys: pytest.CaptureFixture[str]) -> Shell:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configure().model_dump(mode="json")))
    return Shell(MadeLine(root), config, capsys)


#: Lines that were written for a case, by what they hold: each is copied for the next one that wants it.
_WRITTEN: dict[str, MadeLine] = {}


def build(line: MadeLine, given: Case, written: Path) -> None:
    """The versions of a case, its pointer, and what else lies there."""
    if isinstance(given["versions"], str):
        LARGE[given["versions"]](line)
        return
    key = json.dumps({name: given.get(name) for name in ("versions", "x2", "pair_texts")})
    if key not in _WRITTEN:
        _WRITTEN[key] = MadeLine(written / str(len(_WRITTEN)))
        _write(_WRITTEN[key], given)
    line.made = _WRITTEN[key].copied(line.root).made
    if given["latest"] is not None and given["latest"] != line.latest():
        line.point(given["latest"])
    for name in given.get("objects", ()):
        # A mark is one; all else is of no form.
        data = b'{"mark": "good"}' if "/marks/" in name else b"x"
        line.storage.write(name.replace("NAME", LINE), data)
    for name, others in given.get("other_datasets", {}).items():
        for other in others:
            source = line.root / f"datasets/{LINE}/{other}"
            shutil.copytree(source, line.root / f"datasets/{name.replace('NAME', LINE)}/{other}")


def _write(line: MadeLine, given: Case) -> None:
    names, texts = given["versions"], given.get("pair_texts")
    for name in names:
        one = given.get(name) or told.VERSIONS.get(name)
        if one is None:
            one = {"base": names[0], "sft_rows": 100, "pairs": [told.F], "left_out": {}}
        held = {pair: dict(told.PAIRS[pair]) for pair in one["pairs"]}
        if texts is not None and name != names[0]:
            for pair in held.values():
                pair |= dict.fromkeys(("question", "answer"), texts["of_every_new_pair"])
        line.add(name, held, one["base"], one["sft_rows"], one["left_out"], latest=name != "w2")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where lines lie that are copied."""
    return tmp_path_factory.mktemp("lines")


def _thousand(line: MadeLine) -> None:
    first = line.add("n0000", {}, sft_rows=1)
    names = [f"n{number:04}" for number in range(1000)]
    for number, name in enumerate(names[1:], 1):
        assert first.contents is not None
        dated = first.contents.model_copy(
            update={"made_at": f"2026-11-20T{number // 60:02}:{number % 60:02}:00Z"}
        )
        made = first.model_copy(update={"name": name, "ancestors": tuple(names[:number]), "contents": dated})
        versions.write(line.storage, LINE, made)
    line.point(names[-1])


def _exchanged(line: MadeLine) -> None:
    """Two versions that share no pair of 50,000, one of which has a text of 1 MB."""
    for name, base, letter in (("v1", None, "a"), ("x2", "v1", "b")):
        line.add(name, {}, base, sft_rows=1)
        pair = {**told.PAIRS[told.A], "question": f"Why {letter}?"}
        rows = [row_of(f"{letter}{number:031x}", pair, name) for number in range(50_000)]
        rows[17]["messages"][1]["content"] = "word " * 200_000
        path = line.root / f"datasets/{LINE}/{name}/data/train-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=1024)


LARGE: dict[str, Callable[[MadeLine], None]] = {
    "1,000 versions, each on the one before": _thousand,
    "two, 50,000 pairs exchanged, one text of 1 MB": _exchanged,
}

Checks = dict[str, Callable[[Shell, list[Outcome], Any], bool]]


def _listed(outcomes: list[Outcome]) -> dict[str, Any]:
    return {row["name"]: row for row in outcomes[0].result["versions"]}


def _exits(_: Shell, outcomes: list[Outcome], wanted: Any) -> bool:
    allowed = wanted if isinstance(wanted, list) else [wanted]
    return all(outcome.code in allowed for outcome in outcomes)


def _says(_: Shell, outcomes: list[Outcome], wanted: list[str]) -> bool:
    return all(word in outcome.text for outcome in outcomes for word in wanted)


def _of_diff(reasons: dict[str, Any]) -> dict[str, list[str]]:
    return {reason: one["ids"] for reason, one in reasons.items()}


def _shares(name: str) -> Callable[[Shell, list[Outcome], Any], bool]:
    def check(_: Shell, outcomes: list[Outcome], wanted: dict[str, Any]) -> bool:
        found = outcomes[0].result[f"share_{name}"]
        return found.keys() == wanted.keys() and all(
            found[key] == pytest.approx(value, abs=1e-6) for key, value in wanted.items()
        )

    return check


def _figure(name: str) -> Callable[[Shell, list[Outcome], Any], bool]:
    def check(_: Shell, outcomes: list[Outcome], wanted: list[int]) -> bool:
        return bool(outcomes[0].result["changed_figures"][name] == wanted)

    return check


COMMON: Checks = {
    "exit": _exits,
    "says": _says,
    "says_not": lambda _, outcomes, words: not any(word in one.printed for one in outcomes for word in words),
    "traceback": lambda _, outcomes, __: not any("Traceback" in one.err for one in outcomes),
    # One line, whatever was asked for.
    "each": lambda _, outcomes, __: all(one.err.strip() for one in outcomes),
    "reads_outside": lambda _, outcomes, __: all(one.result is None for one in outcomes),
    "stdout_is_one_line_of_json": lambda _, outcomes, __: all(
        "\n" not in json.dumps(one.result) and json.loads(json.dumps(one.result)) == one.result
        for one in outcomes
    ),
}
LISTED: Checks = {
    "rows": lambda _, outcomes, rows: {k: v["rows"] for k, v in _listed(outcomes).items()} == rows,
    "pairs": lambda _, outcomes, rows: {k: v["pairs"] for k, v in _listed(outcomes).items()} == rows,
    "marked_as_latest": lambda _, outcomes, names: (
        [name for name, row in _listed(outcomes).items() if row["latest"]] == names
        and outcomes[0].err.count("(latest") == len(names)
    ),
    "each_once": lambda _, outcomes, __: len(_listed(outcomes)) == len(outcomes[0].result["versions"]),
    "versions": lambda _, outcomes, names: list(_listed(outcomes)) == names,
    "base": lambda _, outcomes, base: (
        outcomes[0].result["base"] == base
        if isinstance(base, str)
        else {name: row["base"] for name, row in _listed(outcomes).items()} == base
    ),
    "count": lambda _, outcomes, count: len(_listed(outcomes)) == count,
    "all_listed_in_json": lambda _, outcomes, __: all(name in outcomes[0].err for name in _listed(outcomes)),
    "removed": lambda _, outcomes, removed: (
        {rule: sum(counts.values()) for rule, counts in outcomes[0].result["removed"].items()} == removed
    ),
    "by_source": lambda _, outcomes, counts: (
        {name: one["pairs"] for name, one in outcomes[0].result["by_source"].items()} == counts
    ),
    "by_dump": lambda _, outcomes, counts: (
        {name: one["pairs"] for name, one in outcomes[0].result["by_dump"].items()} == counts
    ),
    "where_0_says": lambda _, outcomes, names: all(one.result["version"] in names for one in outcomes),
}
COMPARED: Checks = {
    "added": lambda _, outcomes, ids: outcomes[0].result["added"]["ids"] == ids,
    "removed": lambda _, outcomes, removed: _of_diff(outcomes[0].result["removed"]) == removed,
    "removed_ids": lambda _, outcomes, ids: (
        sorted(key for found in _of_diff(outcomes[0].result["removed"]).values() for key in found) == ids
    ),
    "invented_reason": lambda _, outcomes, __: (
        outcomes[0].result["removed"].keys() <= {leaving.NOT_BUILT_ON, leaving.NOT_ON_RECORD}
    ),
    "unchanged_pairs": lambda _, outcomes, count: outcomes[0].result["unchanged_pairs"] == count,
    "rows": _figure("rows"),
    "sft_rows": _figure("sft_rows"),
    "share_by_source": _shares("by_source"),
    "share_by_dump": _shares("by_dump"),
    "changed_figures": lambda _, outcomes, wanted: (
        outcomes[0].result["changed_figures"].items() >= wanted.items()
        if wanted
        else outcomes[0].result["changed_figures"] == {}
    ),
    "nan": lambda _, outcomes, __: "nan" not in outcomes[0].text.lower(),
    "added_count": lambda _, outcomes, count: outcomes[0].result["added"]["pairs"] == count,
    "removed_count": lambda _, outcomes, count: outcomes[0].result["removed_pairs"] == count,
    "output_bytes_at_most": lambda _, outcomes, most: (
        len(json.dumps(outcomes[0].result)) + len(outcomes[0].err) <= most
    ),
    "repeat_is_equal": lambda shell, outcomes, __: shell(["dataset", "diff", "v1", "x2"]) == outcomes[0],
}


#: Those that take seconds.
_SLOW = {"list-thousand", "diff-examples-bounded", "export-folder"}


def _marked(cases: list[Case]) -> list[Any]:
    slow = [pytest.mark.slow, pytest.mark.side_by_side]
    return [
        pytest.param(case, marks=slow if case["id"] in _SLOW else [], id=str(case["id"])) for case in cases
    ]


@pytest.mark.parametrize("case", _marked(told.LIST_SHOW))
def test_versions_are_listed_and_shown(case: Case, shell: Shell, written: Path) -> None:
    build(shell.line, case["given"], written)
    holds(case, shell, [shell(arguments) for arguments in case["do"]], COMMON | LISTED)


@pytest.mark.parametrize("case", _marked(told.DIFF))
def test_versions_are_compared(case: Case, shell: Shell, written: Path) -> None:
    build(shell.line, case["given"], written)
    holds(case, shell, [shell(arguments) for arguments in case["do"]], COMMON | COMPARED)


def holds(case: Case, shell: Shell, outcomes: list[Outcome], checks: Checks) -> None:
    """All that a case wants; what nobody checks is an error of the test."""
    wrong = {name: value for name, value in case["want"].items() if not checks[name](shell, outcomes, value)}
    assert not wrong, (case["why"], outcomes)


class Interrupted:
    """A storage in which something happens just before ``latest`` is swapped, once."""

    def __init__(self, storage: Any, meanwhile: Callable[[], object]) -> None:
        self._storage, self._meanwhile = storage, [meanwhile]

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._storage, name)
        if name != "write_if_matches":
            return made

        def write(key: str, *arguments: Any) -> bool:
            if key.endswith("/latest.json") and self._meanwhile:
                self._meanwhile.pop()()
            return bool(made(key, *arguments))

        return write


MOVED: Checks = {
    "latest_after": lambda shell, _, names: (
        shell.line.latest() in (names if isinstance(names, list) else [names])
    ),
    "versions_after": lambda shell, _, names: all(
        (shell.line.root / f"datasets/{LINE}/{name}/version.json").exists() for name in names
    ),
    "next_night_builds_on": lambda shell, outcomes, name: (
        _next(shell.line) == name
        and outcomes[-1].result["next_run_builds_on"] == name
        and f"the next run builds on {name}" in outcomes[-1].err
    ),
    "exit_of_first": lambda _, outcomes, code: outcomes[0].code == code,
    "loser_says_so": lambda shell, outcomes, __: (
        [one.code for one in outcomes if f"to {shell.line.latest()}, and nothing was rolled back" in one.err]
        == [ExitCode.TRANSIENT]
    ),
    "silent_overwrite": lambda _, outcomes, __: sum(one.code == 0 for one in outcomes) == 1,
    "v4_exists": lambda shell, _, __: (shell.line.root / f"datasets/{LINE}/v4/version.json").exists(),
    "night_says_late": lambda shell, outcomes, __: (
        "v4 builds on v3, but v2 is the latest version now" in outcomes[-1].err
    ),
}


def _next(line: MadeLine) -> str | None:
    base = versions.base(line.storage, LINE, "latest", "other inputs", lambda _: "made")
    return base and base.name


def _at_once(shell: Shell, monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Let something happen between a rollback's look at ``latest`` and its swap."""
    storage = Interrupted(shell.line.storage, other)
    monkeypatch.setattr(rollback, "open_storage", lambda _: storage)


@pytest.mark.parametrize(
    "case",
    [case for case in told.ROLLBACK if case["id"] != "rollback-keeps-a-mark"],
    ids=lambda case: case["id"],
)
def test_latest_goes_back(
    case: Case, shell: Shell, written: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = shell.line
    build(line, case["given"], written)
    v4: Callable[..., object] = lambda latest=True: line.add("v4", {}, "v3", latest=latest)  # noqa: E731
    commands = [step for step in case["do"] if isinstance(step, list)]
    if case["id"] == "rollback-two-at-once":
        won: list[Outcome] = []

        def other() -> None:
            monkeypatch.undo()
            won.append(shell(commands[1]))

        _at_once(shell, monkeypatch, other)
        outcomes = [shell(commands[0]), *won]
    elif case["id"] == "rollback-night-first":
        _at_once(shell, monkeypatch, v4)
        outcomes = [shell(["dataset", "rollback", "v2"])]
    elif case["id"] == "rollback-while-night-finishes":
        v4(latest=False)
        outcomes = [shell(commands[0])]
        caplog.set_level(logging.WARNING)
        assert not versions.add(line.storage, LINE, line.made["v4"])
        outcomes.append(Outcome(0, None, caplog.text))
    else:
        outcomes = [shell(arguments) for arguments in commands]
    holds(case, shell, outcomes, COMMON | MOVED)


MARKED: Checks = {
    "marked": lambda shell, _, pair: list(_marks(shell.line)) == ([pair] if pair else []),
    "note_kept": lambda shell, _, note: [one.note for one in _marks(shell.line).values()] == [note],
    "counted": lambda shell, _, counts: shell(["dataset", "list"]).result["marks"] == counts,
    "marks_of_pair": lambda shell, _, count: len(_marks(shell.line)) == count,
    "says_plainly": lambda shell, outcomes, __: (
        outcomes[0].code == 0 or "no pairs of aitp (v3) have an id that begins with" in outcomes[0].err
    ),
    "objects_written": lambda shell, _, count: len(_marks(shell.line)) == count,
    "marks_kept": lambda shell, _, ids: list(_marks(shell.line)) == ids,
    "shown_escaped": lambda shell, outcomes, __: (
        not any(mark in outcomes[0].err for mark in "\x1b\x07\u202e")
    ),
}
#: What only a night shows; see ``test_rollback_nights.py``.
OF_NIGHTS = {"v3_still_has", "next_version_has", "next_version_has_not", "reason"}


def _marks(line: MadeLine) -> dict[str, pairs.Mark]:
    return pairs.marks_of(line.storage, LINE)


@pytest.mark.parametrize("case", told.MARKS, ids=lambda case: case["id"])
def test_people_mark_pairs(case: Case, shell: Shell, written: Path) -> None:
    build(shell.line, case["given"], written)
    outcomes = [shell(step) for step in case["do"] if isinstance(step, list)]
    now = {name: value for name, value in case["want"].items() if name not in OF_NIGHTS}
    holds(case | {"want": now}, shell, outcomes, COMMON | MARKED)


def _rows(folder: Path) -> int:
    return int(pq.read_table(folder / "data").num_rows)


def _loads_as(shell: Shell, folder: Path, wanted: Case) -> bool:
    import datasets

    found = datasets.load_dataset(str(folder), cache_dir=str(shell.line.root / "cache"))
    configurations = datasets.get_dataset_config_names(str(folder))
    return bool(
        len(configurations) == wanted["configs"]
        and list(found) == wanted["splits"]
        and found["train"].num_rows == wanted["rows"]
    )


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", _marked(told.EXPORT))
def test_a_version_is_copied(
    case: Case, shell: Shell, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, folder = shell.line, tmp_path / "out"
    build(line, case["given"], written)
    own, before = line.root / f"datasets/{LINE}/v2", _contents(line.root / f"datasets/{LINE}/v3")
    for name in case["given"].get("target_has", ()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    targets = [folder]
    if case["id"] == "export-into-the-root":
        targets = [own, line.root / f"datasets/{LINE}/v3", line.root / f"datasets/{LINE}/v3/inside"]
    if case["id"] == "export-interrupted":
        broken_off(shell, folder, monkeypatch)
    if case["id"] == "export-no-room":
        shell = full(shell, monkeypatch)
    version = "v9" if case["id"] == "export-unknown" else "v2"
    times = 2 if case["id"] == "export-twice" else 1
    outcomes = [shell(["dataset", "export", version, str(target)]) for target in targets * times]
    checks: Checks = {
        "rows": lambda _, __, rows: _rows(folder) == rows,
        "files_equal_those_of_version": lambda *_: _contents(folder) == _contents(own),
        "loads_as": lambda shell, _, wanted: _loads_as(shell, folder, wanted),
        "files_written": lambda _, __, count: not folder.exists() or len(_contents(folder)) == count,
        "mixed_rows": lambda _, outcomes, __: outcomes[0].code != 0 and len(_contents(folder)) == 2,
        "kept": lambda _, __, names: all((folder / name).read_text() == "mine" for name in names),
        "files_equal": lambda *_: _contents(folder) == _contents(own),
        "exit_of_first": lambda _, outcomes, code: outcomes[0].code == code,
        "half_file_under_final_name": lambda *_: _contents(folder) == _contents(own),
        "rows_if_0": lambda _, outcomes, rows: outcomes[0].code != 0 or _rows(folder) == rows,
        "v3_unchanged": lambda *_: _contents(line.root / f"datasets/{LINE}/v3") == before,
    }
    holds(case, shell, outcomes, COMMON | checks)


def broken_off(shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that is killed while it copies its second file."""
    copied = export._copied

    def killed(storage: Any, one: Any, target: Path) -> bool:
        if any(target.rglob("*.parquet")):
            (target / ".aitp-unfinished").write_bytes(b"PAR1 and no more")
            raise KeyboardInterrupt
        return copied(storage, one, target)

    with monkeypatch.context() as patch:
        patch.setattr(export, "_copied", killed)
        with pytest.raises(KeyboardInterrupt):
            shell(["dataset", "export", "v2", str(folder)])
    assert list(folder.rglob("*.parquet"))
    assert not (folder / "version.json").exists()


def full(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A machine whose disk is full."""
    import errno

    def download(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/out")

    monkeypatch.setattr(type(shell.line.storage), "download", download)
    return shell
