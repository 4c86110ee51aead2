"""Which task fits a sweep, by what its runs logged beside their weights: a configuration by transformers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stockpot.entities import CONFIG, MODULES, Candidate, TensorSpec, WeightsSource
from stockpot.errors import BadCheckpoint
from stockpot.workflow.gathering.adapted_heads import outputs_in, own_outputs
from stockpot.workflow.gathering.adapters import task_of
from stockpot.workflow.gathering.odd_numberings import LOOKED_AT
from stockpot.workflow.gathering.places import Places, files_beside, read_small

if TYPE_CHECKING:
    from stockpot.ports import Tracker

ANY_TASK = "MODULE:CLASS"
"""Stands for a task that people write."""
REGRESSION = "regression"
TEXTS = "text-classification"
IMAGES = "image-classification"
SENTENCES = "sentence-similarity"
BY_ARCHITECTURE = (
    ("ForSequenceClassification", TEXTS),
    ("ForTokenClassification", "token-classification"),
    ("ForCausalLM", "causal-lm"),
    ("LMHeadModel", "causal-lm"),
    ("ForImageClassification", IMAGES),
)
"""Ends of names of transformers' architectures, and the tasks without code that are for these."""
BY_ADAPTER = {"SEQ_CLS": TEXTS, "TOKEN_CLS": "token-classification", "CAUSAL_LM": "causal-lm"}
"""PEFT's words for tasks: an adapter may have another head than its base."""
VOCABULARIES = frozenset(
    {
        *("tokenizer.json", "vocab.json", "vocab.txt"),
        *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model"),
    }
)
PROCESSORS = frozenset({"preprocessor_config.json", "processor_config.json"})
REFUSED = (
    ("auto_map", "brings code of its own, which is never run"),
    ("quantization_config", "is of quantised weights, which have no average"),
)
"""Entries of a configuration, and why no task is for its model."""
HALF = {"float16": "F16", "bfloat16": "BF16"}
OWN = (
    "say how a model is scored: --task arrays --task-arg data=FILE.npz --task-arg model=MODULE:FACTORY "
    f"classifies arrays by the network that your code makes; --task {ANY_TASK}, or MODULE:FUNCTION, is your "
    "own, which stockpot task new PATH begins. stockpot task list names all that are installed"
)


@dataclass(frozen=True)
class Proposal:
    """A task for a sweep, with arguments: what people have to fill in is in capitals."""

    task: str = ANY_TASK
    args: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = (OWN,)


def propose(candidates: Sequence[Candidate], tracker: "Tracker") -> Proposal:
    """The task that the first configuration found beside the candidates' weights is for.

    Downloads no more than that. Where there is none among the first twenty, the others have none either.
    """
    places = Places(tracker)
    for candidate in candidates[:LOOKED_AT]:
        try:
            files = files_beside(candidate.source, places)
            text = read_small(files[CONFIG], places) if files else None
        except BadCheckpoint:  # it says something about weights, but is none
            continue
        if text is not None:
            adapted = task_of(candidate.source, places) if candidate.source.base else ""
            outputs = own_outputs(candidate.source, places)
            return _proposal(text, files, candidate.checkpoint.tensors, adapted, outputs)
    return Proposal()


def _proposal(
    text: bytes,
    files: Mapping[str, WeightsSource],
    tensors: Sequence[TensorSpec],
    adapted: str,
    outputs: int | None,
) -> Proposal:
    where = files[CONFIG].path
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        return _none(f"{where} cannot be read")
    return _for(config, files, tensors, adapted, outputs)


def _for(
    config: Mapping[str, Any],
    files: Mapping[str, WeightsSource],
    tensors: Sequence[TensorSpec],
    adapted: str,
    outputs: int | None,
) -> Proposal:
    """`adapted`: the task of adapters, as PEFT calls it; `outputs`: of the head that they brought."""
    where = files[CONFIG].path
    for key, why in REFUSED:
        if config.get(key):
            return _none(f"{where} {why}")
    if MODULES in files:
        told = f"{MODULES} beside {where} tells that sentence-transformers made it: {SENTENCES} is for it"
        data = "parquet or JSON lines with sentence1, sentence2 and score: validation and test"
        return Proposal(SENTENCES, {"data": "FOLDER"}, (f"{told}. FOLDER holds {data}",))
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    by_name = next((task for end, task in BY_ARCHITECTURE if name.endswith(end)), "")
    task = BY_ADAPTER.get(adapted, by_name)
    if task != by_name:
        name = f"{name or 'no architecture'}, its adapters {adapted}"
    if not task:
        return _none(f"{where} names {f'the architecture {name}' if name else 'no architecture'}")
    if config.get("problem_type") == "multi_label_classification":
        return _none(f"{where} is of a model that answers with several classes at once")
    if task == TEXTS and (outputs or outputs_in(config)) == 1:
        task = REGRESSION
    args = {"data": "FOLDER"}
    data = "images in folders of classes" if task == IMAGES else "parquet or JSON lines"
    notes = [f"{where} names {name}: {task} is for it. FOLDER holds {data}: validation and test"]
    needed, what = (PROCESSORS, "image processor") if task == IMAGES else (VOCABULARIES, "tokenizer")
    if not needed & files.keys():
        args["model"] = "MODEL_FOLDER"
        notes.append(f"no {what} lies beside {where}: MODEL_FOLDER has it and {CONFIG}, by save_pretrained")
    wanted = HALF.get(str(config.get("dtype") or config.get("torch_dtype")))
    if wanted and {spec.dtype for spec in tensors} & {"F32", "F16", "BF16"} - {wanted}:
        args["dtype"] = "float32"  # takes those of either half as well
    return Proposal(task, args, tuple(notes))


def _none(why: str) -> Proposal:
    return Proposal(notes=(f"{why}: none of the tasks without code is for it", OWN))
