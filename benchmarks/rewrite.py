"""The prompt stages: against bare vLLM, against the published runner's loop, and when killed.

    make bench-rewrite                     # everything; hours on two cores
    make bench-rewrite PARTS="raw loop"    # some of: raw prefix loop kills deaths busy repeat speculation

raw: three stages, 300 requests each and more, and ``vllm.LLM.chat`` on exactly the
same prompts and sampling, stage by stage in turn, twice; tokens per second, model
loading left out of both. prefix: of the answers' prompts of documents with two
questions, the share that the prefix cache gave, beside the share that each has in
common with the one before it, which is all that it could. loop: documents by batches
that are sent and awaited one after another, without a schema, as the published runner
does; usable pairs per second of each, by the same gates; once with the runner's
reader, once with this project's, which takes more of what such responses say
(``vs_batch_loop``), and once with the schema as well. kills: the stages killed
whenever one of ten random numbers of tokens has been generated, and how many tokens
they generate in all, against an unbroken pass. deaths: an engine killed five times
during a part. busy: one stage alone, and beside two processes that only count, in turn,
three times; how many times longer it takes, loading left out. repeat: one stage as the
processor computes it, in each other dtype, and so that no response depends on the
others; tokens per second. speculation: the answers' requests on an engine without and on
one with ``engine.speculation: ngram``, in turn, three times, without a prefix cache; how many
times as fast (``speculation_speedup``), and how many responses are the same, beside how many
an engine without gives the same twice. The last line of output is one JSON object.
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml
from embedders import REPOSITORY
from measure import run_parts, timed

from aitp_tasks.records import generated, tables
from aitp_tasks.records.run import Run

STAGES = ("rewrite", "score", "answer")
_DATA = REPOSITORY / ".aitp" / "data"
#: Of the three stages, and of bare vLLM beside each.
_PASSES = 2
#: Some give no question; with this share of the questions answered, each stage has over 300 requests.
_DOCUMENTS, _ANSWERED = 305, 0.8
_PREFIX_DOCUMENTS, _LOOP_DOCUMENTS, _DEATH_DOCUMENTS = 80, 60, 60
_BUSY_DOCUMENTS, _REPEAT_DOCUMENTS, _BUSY_PASSES = 24, 24, 3
_SPECULATION_DOCUMENTS = 24
#: Processes that do nothing but count.
_OTHERS = 2
_KILLS, _DEATHS = 10, 5
#: The engine is killed whenever it has generated so many tokens more.
_TOKENS_A_DEATH = 500
#: Requests in flight: on the average, a kill costs half of each. With n requests in
#: all, ten kills are expected to cost 5 * _IN_FLIGHT / n of the tokens.
_IN_FLIGHT, _KILL_DOCUMENTS = 5, 320
#: Characters of a question and of an answer where the engine is killed.
_SHORT = {"questions": 60, "answer": 80}
_HELPER = Path(__file__).with_name("engines.py")


def planned(folder: Path, documents: int, **settings: Any) -> Run:
    """A run over the demo's documents, up to its difference set, in one part."""
    if not (folder / "corpus").exists():
        folder.mkdir(exist_ok=True)
        (folder / "corpus").symlink_to(_DATA / "corpus")
        (folder / "sft").symlink_to(_DATA / "sft")
    values = {
        "root": f"file://{folder}",
        "difference.tau": 1e9,
        "difference.max_documents": documents,
        "difference.documents_per_part": documents,
        "prompts.failure_budget": 1.0,
        "prompts.sampling": "{max_tokens: 128, repetition_penalty: 1.1}",
        "engine.max_model_len": 1024,
        # A small model's short questions are answered too, so that every stage has requests enough.
        "gates.min_question_words": 1,
        "gates.min_quality": 1,
        "gates.min_difficulty": 1,
        **settings,
    }
    overrides = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    told, _, _ = timed(["plan", "--config", str(REPOSITORY / "configs/demo.yaml"), *overrides])
    for stage, units in (("embed", True), ("merge", False), ("density", True), ("difference", False)):
        for unit in range(told["embed_units"] if units else 1):
            timed([stage, "--run", told["run"], *(["--unit", str(unit)] if units else [])])
    return Run.open(told["run"])


def run_stages(run: Run) -> dict[str, dict[str, Any]]:
    """All three stages, one process each; the figures of their manifests."""
    return {stage: run_stage(run, stage) for stage in STAGES}


def run_stage(run: Run, stage: str) -> dict[str, Any]:
    """One stage in a process; the figures of its manifest."""
    # Nothing looks at it meanwhile: with the engine's threads on all cores, that shows.
    command = [Path(sys.executable).with_name("aitp"), stage, "--run", run.uri, "--unit", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return run.require_manifest(stage, run.parts[0]).figures


def raw(folder: Path) -> dict[str, Any]:
    """Tokens per second against bare vLLM."""
    settings = {
        "engine.max_model_len": 512,
        "gates.keep_best": _ANSWERED,
        # Bare vLLM asks once.
        "prompts.second_attempt": False,
    }
    runs = [planned(folder / f"pass{number}", _DOCUMENTS, **settings) for number in range(_PASSES)]
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    # In turn: the machine's speed changes, and the first to load finds vLLM on the disk.
    for stage in STAGES:
        for run in runs:
            theirs.append(_helped("raw", run.uri, stage))
            ours.append(run_stage(run, stage))
        found[f"{stage}_requests"] = ours[-1]["generated"]
        found[f"{stage}_tokens_per_second"] = [one["tokens_per_second"] for one in ours[-_PASSES:]]
        found[f"{stage}_raw_tokens_per_second"] = [one["tokens_per_second"] for one in theirs[-_PASSES:]]
        found[f"{stage}_load_seconds"] = [one["load_seconds"] for one in ours[-_PASSES:]]
    rate = sum(one["generated_tokens"] for one in ours) / sum(one["busy_seconds"] for one in ours)
    raw_rate = sum(one["tokens"] for one in theirs) / sum(one["seconds"] for one in theirs)
    return found | {"vs_raw_vllm": round(rate / raw_rate, 3)}


def prefix(folder: Path) -> dict[str, Any]:
    """What the prefix cache gives to the answers, of long and of short documents, with two questions each."""
    found: dict[str, Any] = {}
    for name, context in (("", 2048), ("_short", 512)):
        settings = {
            "engine.max_model_len": context,
            # Whole blocks are shared; a CPU's have 128 tokens where nothing is said.
            "engine.engine_args": "{enforce_eager: true, block_size: 32}",
            "gates.max_question_similarity": 1,
            # A second attempt's prompt is in the cache as a whole.
            "prompts.second_attempt": False,
        }
        run = planned(folder / f"documents{name}", _PREFIX_DOCUMENTS, **settings)
        run_stages(run)
        prompts = _of_two_questions(run)
        tokens = sum(row["prompt_tokens"] for row in prompts)
        found |= {
            f"prefix_hit_answer{name}": round(sum(row["cached_tokens"] for row in prompts) / tokens, 3),
            f"prefix_shareable_answer{name}": _helped("shareable", run.uri)["share"],
            f"prefix_requests{name}": len(prompts),
            f"prefix_tokens_per_prompt{name}": round(tokens / len(prompts)),
        }
    return found


def _of_two_questions(run: Run) -> list[dict[str, Any]]:
    """The stored answers to documents with two questions."""
    stored = [tables.read(run.storage, found.key) for found in run.storage.list("generations/answer/")]
    answers = [row for table in stored for row in table.to_pylist()]
    of_document = Counter(row["id"].partition("-")[0] for row in answers)
    return [row for row in answers if of_document[row["id"].partition("-")[0]] == 2]


def loop(folder: Path) -> dict[str, Any]:
    """Usable pairs per second against the published runner's loop."""
    settings = {
        "prompts.sampling": "{max_tokens: 256, repetition_penalty: 1.1}",
        "gates.min_question_words": 3,
    }
    run = planned(folder, _LOOP_DOCUMENTS, **settings)
    figures = run_stages(run)
    pairs = len(generated.kept_rows(run, "answer", run.parts[0]))
    seconds = sum(figures[stage]["busy_seconds"] for stage in STAGES)
    found: dict[str, Any] = {"pairs": pairs, "pairs_per_second": round(pairs / seconds, 4)}
    for way in ("published", "tolerant", "schema"):
        theirs = _helped("loop", run.uri, way)
        found |= {f"loop_{way}_{name}": theirs[name] for name in ("questions", "scored", "pairs")}
        # As if it had made one pair, where it has made none.
        rate = max(theirs["pairs"], 1) / theirs["seconds"]
        found[f"vs_batch_loop_{way}"] = round(pairs / seconds / rate, 2)
    return found | {"vs_batch_loop": found["vs_batch_loop_tolerant"]}


def kills(folder: Path) -> dict[str, Any]:
    """What ten kills of the whole task cost, in tokens."""
    settings = {
        "engine.engine_args": f"{{enforce_eager: true, max_num_seqs: {_IN_FLIGHT}}}",
        "engine.max_model_len": 512,
        "prompts.folder": _short_prompts(folder / "prompts"),
    }
    whole, broken = (planned(folder / name, _KILL_DOCUMENTS, **settings) for name in ("whole", "broken"))
    counted = {name: folder / f"{name}.count" for name in ("whole", "broken")}
    for stage in STAGES:
        _counting(whole, stage, counted["whole"]).wait()
    generated = counted["whole"].stat().st_size
    points = sorted(random.Random(0).randrange(generated) for _ in range(_KILLS))
    killed = _killed_at(points, broken, counted["broken"])
    rows = {name: list(_identities(run)) for name, run in (("whole", whole), ("broken", broken))}
    tokens = {name: path.stat().st_size for name, path in counted.items()}
    return {
        "kills": killed,
        "kills_requests": sum(
            whole.require_manifest(stage, whole.parts[0]).figures["generated"] for stage in STAGES
        ),
        "kills_in_flight": _IN_FLIGHT,
        "kills_tokens": tokens["whole"],
        "recompute_factor": round(tokens["broken"] / tokens["whole"], 4),
        "rows_lost": len(set(rows["whole"]) - set(rows["broken"])),
        "rows_duplicated": len(rows["broken"]) - len(set(rows["broken"])),
    }


def _short_prompts(folder: Path) -> Path:
    """The shipped prompts with room for a sentence: a kill costs the same share, in less time."""
    folder.mkdir()
    for shipped in (REPOSITORY / "prompts").glob("*.yaml"):
        prompt = yaml.safe_load(shipped.read_text(encoding="utf-8"))
        for name, field in prompt["schema"]["properties"].items():
            text = field.get("items", field)
            if text["type"] == "string":
                text["maxLength"] = _SHORT[name]
        (folder / shipped.name).write_text(yaml.safe_dump(prompt), encoding="utf-8")
    return folder


def _killed_at(points: list[int], run: Run, counted: Path) -> int:
    """Run the stages, and kill them whenever so many tokens have been generated; how often that was."""
    left = list(points)
    for stage in STAGES:
        while run.find_manifest(stage, run.parts[0]) is None:
            process = _counting(run, stage, counted)
            while process.poll() is None:
                if left and counted.exists() and counted.stat().st_size >= left[0]:
                    _kill(process.pid)
                    left.pop(0)
                    break
                time.sleep(0.02)
            process.wait()
    return len(points) - len(left)


def _kill(pid: int) -> None:
    process = psutil.Process(pid)
    for each in [process, *process.children(recursive=True)]:
        each.kill()


def _counting(run: Run, stage: str, counted: Path) -> "subprocess.Popen[bytes]":
    """A stage whose engine writes one byte a generated token to a file."""
    environment = os.environ | {"AITP_COUNTED": str(counted)}
    command = [sys.executable, str(_HELPER), "counting", stage, run.uri]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _identities(run: Run) -> Iterator[str]:
    """A part's questions and pairs; greedy decoding gives the same ones again."""
    for row in generated.kept_rows(run, "rewrite", run.parts[0]):
        yield row["question_id"]
    for row in generated.kept_rows(run, "answer", run.parts[0]):
        yield row["question_id"] + " answered"


def deaths(folder: Path) -> dict[str, Any]:
    """A part whose engine is killed five times."""
    run = planned(folder, _DEATH_DOCUMENTS)
    killed = 0
    process = _counting(run, "rewrite", folder / "count")
    last = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        grown = (folder / "count").stat().st_size if (folder / "count").exists() else 0
        if killed < _DEATHS and grown > _TOKENS_A_DEATH * (killed + 1) and time.monotonic() - last > 5:
            for each in psutil.Process(process.pid).children(recursive=True):
                each.send_signal(signal.SIGKILL)
            killed, last = killed + 1, time.monotonic()
    done = run.require_manifest("rewrite", run.parts[0])
    assert done.ledger is not None
    return {
        "engine_kills": killed,
        "engine_kills_survived": done.figures["engine_restarts"],
        "rows_in": done.ledger.rows_in,
        "rows_killing": done.ledger.quarantined.get("kills_engine", 0),
    }


def busy(folder: Path) -> dict[str, Any]:
    """How much longer a stage takes beside others that are busy."""
    alone: list[float] = []
    beside: list[float] = []
    for number in range(_BUSY_PASSES):
        for seconds, others in ((alone, 0), (beside, _OTHERS)):
            run = planned(folder / f"{number}-{others}", _BUSY_DOCUMENTS)
            counting_ones = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)
            ]
            try:
                seconds.append(run_stage(run, "rewrite")["busy_seconds"])
            finally:
                for process in counting_ones:
                    process.kill()
    factor = statistics.median(beside) / statistics.median(alone)
    return {"alone_seconds": alone, "beside_seconds": beside, "busy_factor": round(factor, 2)}


def repeat(folder: Path) -> dict[str, Any]:
    """Tokens per second in each dtype, and where no response depends on the others."""
    ways = {
        "bfloat16": {"engine.engine_args": "{enforce_eager: true, dtype: bfloat16}"},
        "float32": {"engine.engine_args": "{enforce_eager: true, dtype: float32}"},
        "deterministic_bfloat16": {
            "engine.engine_args": "{enforce_eager: true, dtype: bfloat16}",
            "engine.deterministic": True,
        },
        "deterministic_float32": {
            "engine.engine_args": "{enforce_eager: true, dtype: float32}",
            "engine.deterministic": True,
        },
    }
    found = {}
    for way, settings in ways.items():
        figures = run_stage(planned(folder / way, _REPEAT_DOCUMENTS, **settings), "rewrite")
        found[f"{way}_tokens_per_second"] = figures["tokens_per_second"]
    return found


def speculation(folder: Path) -> dict[str, Any]:
    """How many times as fast answers come with tokens that are guessed from their documents."""
    run = planned(folder, _SPECULATION_DOCUMENTS, **{"engine.speculation": "ngram"})
    for stage in STAGES[:-1]:
        run_stage(run, stage)
    return _helped("speculation", run.uri)


def _helped(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(_HELPER), *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


PARTS = {
    "raw": raw,
    "prefix": prefix,
    "loop": loop,
    "kills": kills,
    "deaths": deaths,
    "busy": busy,
    "repeat": repeat,
    "speculation": speculation,
}

if __name__ == "__main__":
    run_parts(PARTS, sys.argv[1:])
