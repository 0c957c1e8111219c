"""What figures of earlier releases were told with still holds where nothing was set."""

from aitp_tasks.config import Finetune, Lora
from aitp_tasks.forecast import same

#: All that decided how long a step takes in the first release.
FIRST = {"processes", "zero_stage", "batch_size", "gradient_accumulation", "max_length"}


def test_settings_that_came_later_decide_nothing_until_they_are_set() -> None:
    assert same.of_a_step(Finetune(model="/tmp")).keys() == FIRST


def test_and_then_they_do() -> None:
    packed = Finetune(model="/tmp", packing=True, lora=Lora(), gradient_checkpointing=True)
    assert same.of_a_step(packed).keys() == FIRST | {"packing", "lora", "gradient_checkpointing"}
    assert "group_by_length" in same.of_a_step(Finetune(model="/tmp", group_by_length=True))
    assert "eval_steps" in same.of_a_step(Finetune(model="/tmp", eval_steps=5))
    assert same.of_a_step(Finetune(model="/tmp", eval_steps=5, patience=1, keep_best=True)) == same.of_a_step(
        Finetune(model="/tmp", eval_steps=5)
    )
