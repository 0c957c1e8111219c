"""Whether a judge and the base model's likelihood tell faithful answers from others, and whether they agree.

On the demo's documents and its small model, which writes, judges and ranks. ``sampled``:
questions of the rewrite prompt with four answers each, as ``answers_per_question: 4`` has them;
how the judge's verdicts go with the log-probabilities (Spearman, and AUC of verdicts from ``partly``
on), and how often the likeliest of a question's answers is supported, beside all of them.
``planted``: answers of which the right verdict is known, since they are sentences of the
document (supported), of another one (not in the document), with a number changed
(contradicted), or with another document's sentence behind them (partly); found by the judge
where its verdict is worse than supported, by the rank where the unspoilt sentence is likelier.
``cases``: those that somebody has written by hand, in ten languages, of which a verdict is right or not.
Intervals are 95%, by bootstrap over documents. The last line of output is one JSON object.

    make bench-faithfulness
"""

import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from measure import processor
from numpy.typing import NDArray

from aitp_tasks.config import RunConfig, Verdict
from aitp_tasks.generation import judging, prompt_files, ranking
from aitp_tasks.generation.generator import Generator, Session
from aitp_tasks.generation.requests import Asking, Readings, Rejected, Request
from aitp_tasks.machine import models
from aitp_tasks.records import digest, generated
from aitp_tasks.stages import answer, rewrite
from aitp_tasks.storage import open_storage

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
DATA = REPOSITORY / ".aitp/data/corpus"
_DOCUMENTS, _ANSWERS = 24, 4
#: Of a document: all of it is seen by who answers and by who judges.
_CHARACTERS = 1500
_RESAMPLES = 2000
_SENTENCE = re.compile(r"[^.!?\n]{30,240}[.!?](?=\s|$)")
_NUMBER = re.compile(r"\b\d{1,4}\b")
ORDER = {verdict: place for place, verdict in enumerate(Verdict)}


@dataclass
class Judged:
    """An answer, what is right of it, and what was found."""

    document: str
    question: str
    answer: str
    kind: str = "sampled"
    right: frozenset[Verdict] = frozenset()
    #: The planted answer that this one spoils.
    unspoilt: "Judged | None" = None
    verdict: Verdict | None = None
    likelihood: float | None = None


def main() -> None:
    """Generate, judge, rank, and print the figures."""
    with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
        ask = _Asker(Path(folder))
        with ask.session:
            questions = ask.questions(documents())
            sampled = ask.answers(questions)
            planted, cases = plant(questions), by_hand()
            every = [*sampled, *planted, *cases]
            ask.judge(every)
        found, _ = ranking.log_probabilities(
            ask.config.finetune,
            models.identity(ask.config.finetune),
            [(one.question, one.answer) for one in every],
        )
    for one, value in zip(every, found, strict=True):
        one.likelihood = value
    figures = {
        "sampled": of_sampled(sampled),
        "planted": of_planted(planted),
        "cases": of_cases(cases),
        "processor": processor(),
    }
    for name in ("sampled", "planted", "cases"):
        print(name, json.dumps(figures[name]), flush=True)
    print(json.dumps(figures))


class _Asker:
    """Asks the small model, as the stages do, and keeps what it says in a folder."""

    def __init__(self, folder: Path) -> None:
        overrides = [f"root=file://{folder}", "prompts.second_attempt=true", "gates.min_question_words=1"]
        self.config = RunConfig.load(REPOSITORY / "configs/demo.yaml", overrides)
        self._storage = open_storage(self.config.root)
        self._identity = models.identity(self.config.engine)
        self.session = Session(self.config.engine, self._identity)
        plain = self.config.prompts.model_copy(update={"sampling": {}})
        self._prompts = prompt_files.load_folder(plain, judged=True)
        short = {"max_tokens": 128, "repetition_penalty": 1.1}
        for name, more in (("rewrite", {"max_tokens": 256}), ("answer", {"temperature": 0.8})):
            sampling = self._prompts[name].sampling | short | more
            self._prompts[name] = self._prompts[name].model_copy(update={"sampling": sampling})

    def _ask(self, asking: Asking, requests: list[Request]) -> Readings:
        prompt = self._prompts[asking.name]
        generator = Generator(asking, prompt, self._storage, self.config, self._identity, self.session)
        found = generator.readings(requests)
        print(asking.name, json.dumps(generator.figures()), flush=True)
        return found

    def questions(self, texts: Iterable[str]) -> list[tuple[str, str]]:
        """Documents, each with the first question that the model asks of it."""
        by_id = {digest.of_text(text): text for text in texts}
        # Seeds, so that the engine is started for them.
        requests = [Request(key, {"text": text}, seeded=True) for key, text in by_id.items()]
        found = self._ask(rewrite.STAGE, requests)
        return [
            (by_id[key], _rows(reading)[0]["question"]) for key, reading in found.items() if _rows(reading)
        ]

    def answers(self, questions: Sequence[tuple[str, str]]) -> list[Judged]:
        """Several to each question, whatever the gates say of them, equal ones once."""
        requests = {
            f"{rewrite.question_id(digest.of_text(text), question)}-{number}": (text, question)
            for text, question in questions
            for number in range(_ANSWERS)
        }
        asked = [
            Request(key, {"text": text, "question": question}, seeded=True)
            for key, (text, question) in requests.items()
        ]
        found = self._ask(answer.STAGE, asked)
        texts = {
            (*requests[key], _rows(reading)[0]["answer"]): None
            for key, reading in found.items()
            if _rows(reading)
        }
        return [Judged(*text) for text in texts]

    def judge(self, every: Sequence[Judged]) -> None:
        """Write down the verdict of each that has one."""
        requests: dict[str, Request] = {}
        for one in every:
            values = {"text": one.document, "question": one.question, "answer": one.answer}
            key = "-".join(digest.of_text(value)[:16] for value in values.values())
            requests[key] = Request(key, values)
        found = self._ask(judging.ASKING, list(requests.values()))
        said = {
            tuple(requests[key].arguments.values()): reading[0][generated.VERDICT]
            for key, reading in found.items()
            if isinstance(reading, list)
        }
        for one in every:
            one.verdict = said.get((one.document, one.question, one.answer))


def _rows(reading: Any) -> list[dict[str, Any]]:
    return reading.rows if isinstance(reading, Rejected) else reading if isinstance(reading, list) else []


def documents() -> list[str]:
    """Beginnings of documents of both dumps that have sentences enough, in the order of their hashes."""
    texts = [
        row["text"][:_CHARACTERS]
        for path in sorted(DATA.glob("*/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    fit = {text for text in texts if len(_SENTENCE.findall(text)) >= 4}
    return sorted(fit, key=digest.of_text)[:_DOCUMENTS]


def plant(questions: Sequence[tuple[str, str]]) -> list[Judged]:
    """Answers to each question of which the right verdict is known."""
    found: list[Judged] = []
    for place, (text, question) in enumerate(questions):
        sentences = [one.strip() for one in _SENTENCE.findall(text)]
        other = [one.strip() for one in _SENTENCE.findall(questions[place - 1][0])]
        asked = set(question.lower().split())
        nearest = max(sentences, key=lambda one: len(asked & set(one.lower().split())))
        stranger = random.Random(place).choice(other)
        good = Judged(text, question, nearest, "unspoilt", frozenset({Verdict.SUPPORTED}))
        found.append(good)
        for kind, said, right in (
            ("another_document", stranger, Verdict.NOT_IN_DOCUMENT),
            ("sentence_added", f"{nearest} {stranger}", Verdict.PARTLY),
        ):
            found.append(Judged(text, question, said, kind, frozenset({right}), good))
        numbered = next((one for one in sentences if _NUMBER.search(one)), None)
        if numbered is not None:
            true = Judged(text, question, numbered, "unspoilt", frozenset({Verdict.SUPPORTED}))
            wrong = _NUMBER.sub(lambda match: str(int(match[0]) + 13), numbered, count=1)
            found += [
                true,
                Judged(text, question, wrong, "number_changed", frozenset({Verdict.CONTRADICTED}), true),
            ]
    return found


def by_hand() -> list[Judged]:
    """The tests' cases."""
    from tests.aitp_tasks.generation.faithfulness_cases import VERDICTS

    names = {"absent": Verdict.NOT_IN_DOCUMENT} | {verdict.value: verdict for verdict in Verdict}
    found = []
    for case in VERDICTS:
        right = case["verdict"] if isinstance(case["verdict"], list) else [case["verdict"]]
        kind = "hostile" if case.get("hostile") else "hard" if case.get("hard") else "plain"
        verdicts = frozenset(names[name] for name in right)
        found.append(Judged(case["document"], case["question"], case["answer"], kind, verdicts))
    # A gate refuses it before.
    return [one for one in found if one.answer]


def of_sampled(sampled: Sequence[Judged]) -> dict[str, Any]:
    """Verdicts, and how they go with the likelihoods."""
    used = [one for one in sampled if one.verdict is not None and one.likelihood is not None]
    by_question: dict[str, list[Judged]] = {}
    for one in used:
        by_question.setdefault(one.question, []).append(one)
    several = [some for some in by_question.values() if len(some) > 1]
    kept = [max(some, key=_likelihood) for some in several]
    return {
        "questions": len(by_question),
        "answers": len(sampled),
        "without_verdict": sum(one.verdict is None for one in sampled),
        "verdicts": _counted(sampled),
        "spearman": interval(used, spearman),
        "auc_from_partly_on": interval(used, lambda some: auc(some, _is_from_partly_on)),
        "supported_of_all": _share(one.verdict is Verdict.SUPPORTED for some in several for one in some),
        "supported_of_likeliest": _share(one.verdict is Verdict.SUPPORTED for one in kept),
    }


def of_planted(planted: Sequence[Judged]) -> dict[str, Any]:
    """What the judge and the rank find of each kind."""
    figures: dict[str, Any] = {"without_verdict": sum(one.verdict is None for one in planted)}
    good = [one for one in planted if one.kind == "unspoilt" and one.verdict is not None]
    figures["unspoilt"] = {
        "n": len(good),
        "verdicts": _counted(good),
        "judged_worse_than_supported": _share(one.verdict is not Verdict.SUPPORTED for one in good),
    }
    for kind in ("another_document", "number_changed", "sentence_added"):
        spoilt = [one for one in planted if one.kind == kind]
        judged = [one for one in spoilt if one.verdict is not None]
        pairs = [(one, one.unspoilt) for one in spoilt if one.unspoilt is not None]
        figures[kind] = {
            "n": len(spoilt),
            "verdicts": _counted(spoilt),
            "judge_finds": _share(one.verdict is not Verdict.SUPPORTED for one in judged),
            "judge_is_right": _share(one.verdict in one.right for one in judged),
            "rank_finds": _share(_likelihood(true) > _likelihood(wrong) for wrong, true in pairs),
            "judge_auc": interval([*good, *judged], lambda some: auc(some, _is_unspoilt, _height)),
            "rank_auc": interval([*good, *spoilt], lambda some: auc(some, _is_unspoilt)),
        }
    return figures


def of_cases(cases: Sequence[Judged]) -> dict[str, Any]:
    """How often the judge is right of what was written by hand."""
    figures: dict[str, Any] = {"verdicts": _counted(cases)}
    for kind in ("plain", "hard", "hostile"):
        some = [one for one in cases if one.kind == kind]
        figures[kind] = {
            "n": len(some),
            "right": sum(one.verdict in one.right for one in some),
            "told_supported_or_not": sum(
                one.verdict is not None
                and (one.verdict is Verdict.SUPPORTED) == (Verdict.SUPPORTED in one.right)
                for one in some
            ),
        }
    return figures


def _counted(some: Iterable[Judged]) -> dict[str, int]:
    return dict(Counter(str(one.verdict or "none") for one in some))


def _share(found: Iterable[bool]) -> float | None:
    values = list(found)
    return round(sum(values) / len(values), 3) if values else None


def _likelihood(one: Judged) -> float:
    return -np.inf if one.likelihood is None else one.likelihood


def _height(one: Judged) -> float:
    assert one.verdict is not None
    return float(ORDER[one.verdict])


def _is_from_partly_on(one: Judged) -> bool:
    return one.verdict in (Verdict.PARTLY, Verdict.SUPPORTED)


def _is_unspoilt(one: Judged) -> bool:
    return one.kind == "unspoilt"


def spearman(some: Sequence[Judged]) -> float:
    """Of verdicts, by their order, and likelihoods."""
    from scipy.stats import rankdata

    ranks = [rankdata([of(one) for one in some]) for of in (_height, _likelihood)]
    if any(np.ptp(each) == 0 for each in ranks):
        return np.nan
    return float(np.corrcoef(*ranks)[0, 1])


def auc(
    some: Sequence[Judged], positive: Callable[[Judged], bool], of: Callable[[Judged], float] = _likelihood
) -> float:
    """The probability that one that is positive has more than one that is not, equal ones counting half."""
    from scipy.stats import rankdata

    is_positive = np.array([positive(one) for one in some], bool)
    n, m = int(is_positive.sum()), int((~is_positive).sum())
    if not n or not m:
        return np.nan
    ranks: NDArray[np.float64] = rankdata([of(one) for one in some])
    return float((ranks[is_positive].sum() - n * (n + 1) / 2) / (n * m))


def interval(some: Sequence[Judged], figure: Callable[[Sequence[Judged]], float]) -> list[float | None]:
    """A figure with its 95% interval, documents drawn anew; None where it is not defined."""
    by_document: dict[str, list[Judged]] = {}
    for one in some:
        by_document.setdefault(one.document, []).append(one)
    names, drawn = list(by_document), np.random.default_rng(0)
    values = [figure(some)] if some else [np.nan]
    for _ in range(_RESAMPLES if some else 0):
        chosen = drawn.integers(len(names), size=len(names))
        values.append(figure([one for place in chosen for one in by_document[names[place]]]))
    low, high = np.nanquantile(values[1:], [0.025, 0.975]) if np.isfinite(values[1:]).any() else (np.nan,) * 2
    return [round(float(value), 3) if np.isfinite(value) else None for value in (values[0], low, high)]


if __name__ == "__main__":
    main()
