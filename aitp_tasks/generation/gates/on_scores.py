"""Why a question is not answered, by the scores that it got."""

from collections.abc import Mapping
from typing import Any

from aitp_tasks.config import Gates


def closed(scores: Mapping[str, Any], gates: Gates) -> str | None:
    """The first gate that a question does not pass."""
    if scores["quality"] < gates.min_quality:
        return "quality"
    if scores["difficulty"] < gates.min_difficulty:
        return "difficulty"
    if scores["additional_information"] and not gates.allow_additional_information:
        return "additional_information"
    return None
