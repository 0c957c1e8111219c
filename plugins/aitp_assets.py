"""What a run tells other DAGs: a new dataset version, a new checkpoint.

The assets follow from the run's configuration, so that their names are known only when
it runs; a DAG that is to follow is scheduled on the alias, or on the asset of one
dataset. Events carry the partition of the run, which is its dump.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Versions that became their dataset's latest, and what was trained on them.
DATASETS, CHECKPOINTS = AssetAlias("aitp_datasets"), AssetAlias("aitp_checkpoints")
_DATASET_FIGURES = ("pairs", "earlier_pairs", "sft_examples", "parts_given_up")
_CHECKPOINT_FIGURES = ("train_loss_first", "train_loss_last")


def tell_dataset(context: Context, result: Mapping[str, Any]) -> None:
    """Tell of the version that assemble has made, or promote has promoted, if it is now the latest."""
    # Which of the two it is that lets a version become the latest, assemble's result says.
    is_its_to_tell = result.get("promote", "always") == "always"
    if is_its_to_tell and result.get("is_latest") and not result.get("unchanged"):
        _tell(context, DATASETS, "dataset", result, _DATASET_FIGURES)


def tell_checkpoint(context: Context, result: Mapping[str, Any]) -> None:
    """Tell of the checkpoint that fine-tune has made."""
    if result.get("checkpoint") and not result.get("unchanged"):
        _tell(context, CHECKPOINTS, "checkpoint", result, _CHECKPOINT_FIGURES)


def report_of(run: str) -> str:
    """Where the report of a run lies as soon as the run has ended."""
    return f"{run}/report/report.html"


def _tell(
    context: Context, alias: AssetAlias, what: str, result: Mapping[str, Any], figures: tuple[str, ...]
) -> None:
    place, _, version = str(result[what]).rstrip("/").rpartition("/")
    asset = Asset(name=f"aitp {what} {place.rpartition('/')[2]}", uri=place, group="aitp")
    told = {"version": version, what: result[what], "run": result["run"], "report": report_of(result["run"])}
    context["outlet_events"][alias].add(asset, extra={**told, **{name: result[name] for name in figures}})
