"""Every setting of a run, once: the CLI, the DAG's trigger form and the plan read it here.

One module a section, named as the section is; ``run`` puts them together. A
configuration file is YAML with the same shape as ``RunConfig``, or what differs from
another file that it ``extends``; paths in it that start with ``./`` or ``../`` are
relative to the file. Light on purpose: the
Airflow environment imports this package, so it needs pydantic and YAML and
nothing more, and nothing here reads a model or a template.
"""

from aitp_tasks.config.approval import Approval
from aitp_tasks.config.assemble import Assemble, Marks, OrderKey, PersonalKind
from aitp_tasks.config.contamination import Contamination, EvaluationSet, SftHits
from aitp_tasks.config.density import BandwidthRule, Density, Refit
from aitp_tasks.config.devices import Devices, Require
from aitp_tasks.config.difference import Allocation, Criterion, Difference, Quality, Sampling
from aitp_tasks.config.encoder import Encoder, LongTexts
from aitp_tasks.config.endpoint import Endpoint
from aitp_tasks.config.engine import Engine
from aitp_tasks.config.evaluate import Evaluate, Promote
from aitp_tasks.config.examples import Columns, Examples, Formatting, Mapping, Preference, Tags
from aitp_tasks.config.finetune import Finetune, LongExamples, Offload, Tracker
from aitp_tasks.config.gates import Gates, Verdict
from aitp_tasks.config.lora import Lora
from aitp_tasks.config.maintenance import Maintenance
from aitp_tasks.config.messages import Event, Messages
from aitp_tasks.config.model import Model
from aitp_tasks.config.plan import Plan, UnknownFiles
from aitp_tasks.config.prompts import Prompts
from aitp_tasks.config.run import RunConfig, SftText
from aitp_tasks.config.schedule import Dumps, Schedule
from aitp_tasks.config.section import Section
from aitp_tasks.config.workers import Place, Workers

__all__ = [
    "Allocation",
    "Approval",
    "Assemble",
    "BandwidthRule",
    "Columns",
    "Contamination",
    "Criterion",
    "Density",
    "Devices",
    "Difference",
    "Dumps",
    "Encoder",
    "Endpoint",
    "Engine",
    "Evaluate",
    "EvaluationSet",
    "Event",
    "Examples",
    "Finetune",
    "Formatting",
    "Gates",
    "LongExamples",
    "LongTexts",
    "Lora",
    "Maintenance",
    "Mapping",
    "Marks",
    "Messages",
    "Model",
    "Offload",
    "OrderKey",
    "PersonalKind",
    "Place",
    "Plan",
    "Preference",
    "Promote",
    "Prompts",
    "Quality",
    "Refit",
    "Require",
    "RunConfig",
    "Sampling",
    "Schedule",
    "Section",
    "SftHits",
    "SftText",
    "Tags",
    "Tracker",
    "UnknownFiles",
    "Verdict",
    "Workers",
]
