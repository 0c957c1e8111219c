"""The decision, by cases of somebody who has not read the code."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from aitp_tasks.config import Evaluate
from aitp_tasks.evaluation.intervals import Difference, between
from aitp_tasks.evaluation.promotion import decide
from aitp_tasks.records.held_out import DOCUMENTS, PAIRS, SFT
from tests.aitp_tasks.evaluation.promotion_cases import CASES, Case, Estimate


def _difference(estimate: Estimate | None) -> Difference:
    if estimate is None:
        return Difference(0, None, None, None, "there is no example")
    return Difference(100, *estimate)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_as_an_outsider_would_decide(case: Case) -> None:
    settings: dict[str, Any] = {"held_out": 0.1, "promote": case["mode"], "tolerance": case["tolerance"]}
    if case["answer"] == "refused":
        with pytest.raises(ValidationError) as refused:
            Evaluate.model_validate(settings)
        reason = str(refused.value)
    else:
        evaluate = Evaluate.model_validate(settings)
        differences = {
            name: _difference(estimate)
            for name, estimate in ((SFT, case["a"]), (PAIRS, case["b"]), (DOCUMENTS, case["c"]))
        }
        decision = decide(evaluate.promote, evaluate.tolerance, differences)
        assert decision.promoted is case["answer"], decision.sentence
        reason = decision.sentence
    for words in case["reason_names"]:
        assert any(word.lower() in reason.lower() for word in words), (words, reason)


def test_sets_that_are_not_there_have_no_examples() -> None:
    settings = Evaluate.model_validate({"held_out": 0.1, "promote": "when_better"})
    decision = decide(settings.promote, settings.tolerance, {})
    assert decision.sentence == (
        "not promoted, because nobody knows whether it is worse on SFT examples (there is no example)"
    )


def test_too_few_sft_examples_are_no_proof_and_no_fault() -> None:
    settings = Evaluate.model_validate({"held_out": 0.1, "promote": "when_better"})
    losses = np.ones(100)
    found = {PAIRS: between(losses - 0.1, losses), DOCUMENTS: between(losses, losses)}
    few = decide(settings.promote, settings.tolerance, found | {SFT: between(losses[:1], losses[:1])})
    assert not few.promoted
    assert "SFT examples (1 examples are fewer than 20" in few.why
    enough = decide(settings.promote, settings.tolerance, found | {SFT: between(losses, losses)})
    assert enough.promoted
    assert enough.why.startswith("it is better on held-out pairs (-0.1000, -0.1000 to -0.1000); documents (")


def test_deciding_by_what_is_held_out_needs_some() -> None:
    with pytest.raises(ValidationError, match="held_out=0 holds none out: set held_out"):
        Evaluate.model_validate({"promote": "when_better"})
