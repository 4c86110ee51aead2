"""The options of `stockpot soup`, in the panels that its help shows them in.

A new option is a name here, a parameter of the command, and a line where the command makes its request.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from stockpot.entities import Accept, Adapter, Direction, Dtype, Objective, Register
from stockpot.errors import BadRequest
from stockpot.tasks.identity import TASKS, installed


def _task_help() -> str:
    """With what is installed."""
    return f"module:Class, module:function, or a task's name: {', '.join(installed(TASKS))}."


def _in(panel: str, help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel)


_SWEEP = "The sweep and its runs"
Sweep = Annotated[str | None, _in(_SWEEP, "Run id of the sweep's parent run.")]
Experiment = Annotated[str | None, _in(_SWEEP, "Experiment that is the sweep.")]
Filter = Annotated[str | None, _in(_SWEEP, "MLflow filter over the runs.", "--filter")]
Weights = Annotated[str | None, _in(_SWEEP, "Of several checkpoints: best, last, or a glob.")]
CheckpointMetric = Annotated[str | None, _in(_SWEEP, "Or the one with the best value of this metric.")]
CastTo = Annotated[Dtype | None, _in(_SWEEP, "Cast runs of other precisions to this one.", "--dtype")]
Top = Annotated[int | None, _in(_SWEEP, "Keep the best K >= 2 runs by a logged metric.")]
By = Annotated[str | None, _in(_SWEEP, "That metric.")]
BetterWhen = Annotated[Direction | None, _in(_SWEEP, "Better when larger (the default) or smaller.")]
Partial = Annotated[bool, _in(_SWEEP, "Average what is finished though other runs are not.", "--partial")]
AnyBase = Annotated[bool, _in(_SWEEP, "Allow different starting points.", "--any-base")]
Base = Annotated[
    str | None, _in(_SWEEP, "Where it started: a version, a run's id, or a file or folder of weights.")
]

_TASK = "The task and its splits"
Task = Annotated[str, _in(_TASK, _task_help())]
TaskArg = Annotated[list[str] | None, _in(_TASK, "key=value for the task; repeatable.")]
SelectOn = Annotated[str, _in(_TASK, "Held-out split that selection looks at.")]
ReportOn = Annotated[str, _in(_TASK, "Untouched split of the primary comparison.")]
StatisticsOn = Annotated[
    str | None, _in(_TASK, "Split for BatchNorm's statistics of soups; train where nothing is said.")
]
Shift = Annotated[list[str] | None, _in(_TASK, "Split under distribution shift; repeatable.")]

_SEARCH = "The search"
Method = Annotated[
    list[str] | None,
    _in(_SEARCH, "greedy, uniform, grouped (by domain), model-stock (with --base), ...; repeatable."),
]
Keep = Annotated[Accept, _in(_SEARCH, "When greedy keeps an ingredient.")]
MaxSeconds = Annotated[
    float | None, _in(_SEARCH, "Stop after this long; a repeated request goes on from there.")
]
Points = Annotated[
    str, _in(_SEARCH, "For the figure: candidates measured on report and shifts; a number, or all.")
]
VerifyExact = Annotated[
    bool, _in(_SEARCH, "Run the plain search as well, and compare everything.", "--verify-exact")
]

_DOMAINS = "Several domains"
DomainFrom = Annotated[
    str | None,
    _in(
        _DOMAINS,
        "Runs tell their domain in params.NAME, tags.NAME, inputs; else the tag stockpot.domain.",
    ),
]
Mix = Annotated[
    str | None, _in(_DOMAINS, "Weights of the mixture, such as python=2,man=1; equal ones by default.")
]
SelectBy = Annotated[
    Objective | None,
    _in(_DOMAINS, "Select by the mean over domains (the default), or the worst one.", "--objective"),
]

Target = Annotated[
    str | None,
    _in(_DOMAINS, "Also average the specialists for this split's text, each by its domain's likelihood."),
]
CompareAll = Annotated[
    bool,
    _in(
        _DOMAINS,
        "Also tell which domain's runs cost which, what each one's own choice gives; with --base, TIES and "
        "extrapolation.",
        "--compare-all",
    ),
]

_REGISTER = "What is registered"
Model = Annotated[str, _in(_REGISTER, "Registered model that the soups become versions of.")]
Margin = Annotated[
    str,
    _in(
        _REGISTER,
        "What the interval's lower end must exceed for the alias challenger: points (of unbounded scores, "
        "percent of the best single's), or such percent as -1%.",
    ),
]
Which = Annotated[
    Register,
    _in(_REGISTER, "Which soups, compared with the best single on the report split.", "--register"),
]
KeepAdapter = Annotated[
    Adapter | None,
    _in(_REGISTER, "Of LoRA adapters: merge, or keep the soup as an adapter too.", "--adapter"),
]
OrBestSingle = Annotated[
    bool, _in(_REGISTER, "Register the best single where no soup ends in a version.", "--or-best-single")
]
Again = Annotated[bool, _in(_REGISTER, "Register soups anew whose versions a person deleted.", "--again")]

_RUN = "How it runs"
NoWait = Annotated[
    bool, _in(_RUN, "Leave with exit code 9 where another process works on this request.", "--no-wait")
]
DryRun = Annotated[bool, _in(_RUN, "List what would be done; evaluate nothing.", "--dry-run")]
Flow = Annotated[
    bool | None,
    _in(
        _RUN,
        "Run as a Prefect flow or plainly. By default a flow where Prefect is configured.",
        "--flow/--no-flow",
    ),
]
Submit = Annotated[
    bool, _in(_RUN, "Hand it to the Prefect deployment soup-sweep/soup, and follow that.", "--submit")
]
SubmitTo = Annotated[str | None, _in(_RUN, "Or to the deployment of this name.", "--submit-to")]
AskFor = Annotated[int | None, _in(_RUN, "Helpers that the submitted run asks Prefect for.", "--helpers")]

HelpedModel = Annotated[
    str | None, typer.Option("--model", help="Help only with requests for this registered model.")
]
HelpedJob = Annotated[str | None, typer.Option("--job", help="Help only with this request.", hidden=True)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Tell what happens, and no progress.")]
WaitForWork = Annotated[float, typer.Option("--wait", help="Wait so many seconds for a first request.")]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
"""Of every command."""


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """The task's arguments, of texts that read key=value. Raises BadRequest."""
    mend = "--task-arg data=file.npz"
    wrong = [text for text in texts if text.find("=") < 1]
    if wrong:
        raise BadRequest(f"--task-arg takes key=value, got {', '.join(wrong)}", mend=mend)
    split = [text.split("=", 1) for text in texts]
    named = Counter(key for key, _ in split)
    if len(named) < len(split):
        twice = ", ".join(key for key, times in named.items() if times > 1)
        raise BadRequest(f"--task-arg gives more than one value to {twice}", mend=mend)
    return dict(split)


def weights(text: str | None) -> dict[str, float] | None:
    """A mixture's weights, of a text that reads python=2,man=1. Raises BadRequest."""
    if text is None:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        label, equals, number = (piece.strip() for piece in part.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            equals = ""
        if not (label and equals) or label in found:
            raise BadRequest(
                f"--mix takes each domain once, with a number: got {text!r}", mend="--mix python=2,man=1"
            )
        found[label] = weight
    return found
