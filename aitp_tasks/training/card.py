"""The card of a checkpoint: a README that says what was trained, on what, and how."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aitp_tasks.config import RunConfig

_NAME = "README.md"
_ADAPTER = (
    "- trained with LoRA: the weights are the base's own and, in the targeted layers, the adapter's product, "
    "added in float32 and rounded once; `adapter/` holds the adapter alone, for peft or for vLLM's `--lora` "
    "over the base",
)
_QUANTISED = (
    "- the adapter was trained beside the base's weights in 4 bits, and merged into the base's own: over "
    "these the model answers a little otherwise than it did while it was trained",
)


def write(folder: Path, config: RunConfig, identity: str, version: str, figures: Mapping[str, Any]) -> None:
    """Write the card.

    Args:
        folder: the checkpoint's.
        config: of the run that has trained it.
        identity: of the base model, by content.
        version: of the dataset.
        figures: of the run's ``finetune`` manifest.
    """
    settings = config.finetune
    places = {"model", "revision", "chat_template", "deepspeed", "hostfile"}
    lines = [
        f"# {config.assemble.dataset} {version}",
        "",
        f"`{settings.label}`, fine-tuned on version `{version}` of the dataset `{config.assemble.dataset}`: "
        f"the SFT set `{config.sft}` and pairs written from documents of a pre-training corpus, last of the "
        f"dump `{config.dump}`.",
        "",
        f"- base model: `{settings.label}`, identity `{identity}`",
        f"- trained on {figures['examples']} examples, {figures['tokens']} tokens, of which "
        f"{figures['trained_tokens']} are learnt: what the assistant says, and nothing else",
        f"- {figures['cut']} of them end at `max_length`, {figures['split']} go on with a conversation that "
        "was split",
        f"- {figures['steps']} steps; mean loss of the first quarter {figures['train_loss_first']:.4f}, of "
        f"the last {figures['train_loss_last']:.4f} nats per token; each step's in `log_history.json`",
        *_validated(figures),
        "- the same files as the base, with other weights in the same dtypes; its chat template unless "
        "another was trained with, and the end of a turn in `generation_config.json` beside what the base "
        "stops at",
        *(_ADAPTER if settings.lora else ()),
        *(_QUANTISED if settings.lora and settings.lora.quantised else ()),
        "",
        "| Setting | |",
        "|---|---|",
        *(f"| `{name}` | {value} |" for name, value in settings.model_dump(exclude=places).items()),
        "",
        "The base model's licence holds for this one too, and those of the SFT set, of the corpus and of the "
        "model that wrote the pairs may limit what it may be used for. Nobody has looked at that here.",
        "",
    ]
    (folder / _NAME).write_text("\n".join(lines), encoding="utf-8")


def _validated(figures: Mapping[str, Any]) -> list[str]:
    """What was found on examples that were held out for choosing, and what was chosen by it."""
    if "best_step" not in figures:
        return []
    return [
        f"- loss on {figures['validation']['examples']} examples that were held out for choosing: "
        f"{figures['eval_loss_first']:.4f} at the first validation, {figures['eval_loss_best']:.4f} at the "
        f"best, of step {figures['best_step']}, {figures['eval_loss_last']:.4f} at the last; the rate was to "
        f"run over {figures['planned_steps']} steps. Examples for the proof are others"
    ]
