"""The runs worth a look, told from what they logged: chosen while the sweep is listed."""

import math
import re
from bisect import insort
from collections import Counter, defaultdict
from difflib import get_close_matches
from shlex import quote

from stockpot.entities import UNFINISHED, Direction, Exclusion, ExclusionReason, Run, SoupRequest, tags
from stockpot.errors import BadRequest
from stockpot.prose import counted
from stockpot.workflow.gathering.recalled import Recalled, told, way_back

ANY_BASE = "--any-base averages them all the same"
NEAREST = 5
"""Metrics that are named where the wanted one was not logged; runs, where they are not finished."""
SMALLER_IS_BETTER = frozenset(
    {
        *(
            "losses",
            "errors",
            "err",
            "perplexity",
            "ppl",
            "entropy",
            "crossentropy",
            "nll",
            "ce",
            "bpc",
            "bpb",
        ),
        *("mse", "rmse", "mae", "mape", "rmsle", "wer", "cer", "eer", "ter", "fid", "brier", "ece", "kl"),
        *("divergence", "deviance", "distance", "regret", "cost"),
    }
)
"""Words in the names of metrics of which less is better, besides those that end in loss or error."""


class Shortlist:
    """Finished runs from the starting point that most record; with `top`, the best by a logged metric.

    Runs are added in any order, and chosen by start time then run id. Of a run that is not chosen only the
    exclusion is kept; with `top`, no more than that many runs are kept for each starting point, however many
    are added.
    """

    def __init__(self, request: SoupRequest, recalled: Recalled | None = None) -> None:
        self.exclusions: list[Exclusion] = []
        self.order: dict[str, tuple[int, str]] = {}
        """What every added run's place in the sweep is told by, start time then run id, by its id."""
        self.below: Counter[str] = Counter()
        """How many of the added runs are right below a run, by its id."""
        self._request = request
        self._recalled = recalled or Recalled()
        self._top = request.top if request.by else None
        self._finished = 0
        self._unfinished: list[Run] = []
        self._measured: Counter[str] = Counter()
        """Finished runs that logged a number, by the metric's name."""
        self._bases: Counter[str] = Counter()
        self._kept: dict[str | None, list[tuple[tuple[bool, float], tuple[int, str], Run]]] = defaultdict(
            list
        )
        self._dropped: list[tuple[str | None, Exclusion]] = []

    def add(self, run: Run) -> None:
        """Keep the run, as long as it is among the best of its starting point."""
        place = self.order[run.run_id] = run.started, run.run_id
        self.below[run.tags.get(tags.PARENT, "")] += 1
        if run.status != "FINISHED":
            detail = f"its status is {run.status}"
            self.exclusions.append(Exclusion(run.run_id, run.name, ExclusionReason.NOT_FINISHED, detail))
            if run.status in UNFINISHED:
                self._unfinished.append(run)
            return
        if (word := self._recalled.of(run.run_id)) is not None:
            recalled = Exclusion(run.run_id, run.name, ExclusionReason.RECALLED, told(word), way_back(word))
            self.exclusions.append(recalled)
            return
        self._finished += 1
        self._measured.update(name for name in run.metrics if has_metric(run, name))
        base = None if self._request.any_base else run.tags.get(tags.BASE)
        if base:
            self._bases[base] += 1
        kept = self._kept[base]
        if self._top is None:
            kept.append(((False, 0.0), place, run))
        elif not has_metric(run, self._request.by):
            self._dropped.append((base, self._not_in_top(run)))
        else:
            insort(kept, (rank_by_metric(run, self._request), place, run))
            if len(kept) > self._top:
                self._dropped.append((base, self._not_in_top(kept.pop()[-1])))

    @property
    def unfinished(self) -> list[Run]:
        """Runs of the sweep that still run.

        Runs that hold others together are not meant: scripts that make a parent often forget to end it.
        """
        return [run for run in self._unfinished if not self.below[run.run_id]]

    def require_finished(self) -> None:
        """Raise BadRequest where a run of the sweep still runs, unless `partial`."""
        unfinished = self.unfinished
        if self._request.partial or not unfinished:
            return
        faults = [f"{run.name} ({run.run_id}): {run.status}" for run in unfinished[:NEAREST]]
        if len(unfinished) > NEAREST:
            faults.append(f"and {len(unfinished) - NEAREST} more")
        raise BadRequest(
            f"not finished: {len(unfinished)} of the sweep's {counted(len(self.order), 'run')}",
            faults=faults,
            mend="wait until all have ended, or average the finished ones with --partial. A run whose "
            "process died never finishes by itself: end it with "
            "mlflow.MlflowClient().set_terminated(RUN_ID, 'KILLED')",
        )

    def notes(self, parent: Run | None = None) -> tuple[str, ...]:
        """What was taken for granted, for people to contradict. `parent`: of the sweep, where it has one."""
        notes = []
        if parent is not None and parent.status in UNFINISHED:
            notes.append(
                f"the sweep's parent run, {parent.name} ({parent.run_id}), is {parent.status}: more runs may "
                "come; what has ended by now is averaged"
            )
        by = self._request.by
        if by and not self._request.direction:
            taken = f"the largest {by} is taken for the best"
            if _sounds_like_a_loss(by):
                taken += ", but its name sounds as if smaller were better: then add --direction min"
            else:
                taken += ": where smaller is better, add --direction min"
            notes.append(taken)
        return tuple(notes)

    def require_metric(self) -> None:
        """Raise BadRequest where runs are wanted by a metric that no two of them logged: perhaps a slip."""
        wanted = self._request.by
        if not wanted or self._finished < 2 or self._measured[wanted] > 1:
            return
        names = sorted(self._measured.keys() - {wanted})
        nearest = get_close_matches(wanted, names, n=NEAREST, cutoff=0.0)
        faults = [f"{name} was logged by {self._measured[name]}" for name in nearest]
        if len(names) > len(nearest):
            faults.append(f"and {counted(len(names) - len(nearest), 'more metric')}")
        close = get_close_matches(wanted, names, n=1)
        by = f"--by {quote(close[0])}" if close else "--by with a metric that they logged" if names else ""
        count = self._measured[wanted] or "none"
        raise BadRequest(
            f"{count} of the sweep's {self._finished} finished runs logged a number as {wanted!r}",
            faults=faults or ["they logged no metrics"],
            mend=f"{by}{', or ' if by else ''}leave out --top and --by: then all runs are evaluated",
        )

    def chosen(self) -> list[Run]:
        """The runs that are left, in the sweep's order, when all were added; the others are excluded."""
        usual = self._bases.most_common(1)[0][0] if len(self._bases) > 1 else None
        odd = {base for base in self._kept if usual is not None and base not in (None, usual)}
        fitting = [entry for base, kept in self._kept.items() if base not in odd for entry in kept]
        self.exclusions += [exclusion for base, exclusion in self._dropped if base not in odd]
        strangers = [(base, run.run_id, run.name) for base in odd for *_, run in self._kept[base]]
        strangers += [(base, e.run_id, e.run_name) for base, e in self._dropped if base in odd]
        for base, run_id, name in strangers:
            detail = f"tag {tags.BASE} is {base}, most of the sweep has {usual}"
            self.exclusions.append(Exclusion(run_id, name, ExclusionReason.DIFFERENT_BASE, detail, ANY_BASE))
        fitting.sort()
        self.exclusions += [self._not_in_top(run) for *_, run in fitting[self._top :] if self._top]
        return [run for *_, run in sorted(fitting[: self._top], key=lambda entry: entry[1])]

    def _not_in_top(self, run: Run) -> Exclusion:
        name = self._request.by or ""
        value = f"{run.metrics[name]:.6g}" if name in run.metrics else "not logged"
        detail = f"{name} is {value}, not among the best {self._top}"
        return Exclusion(run.run_id, run.name, ExclusionReason.NOT_IN_TOP, detail)


def has_metric(run: Run, name: str | None) -> bool:
    """Whether the run logged a number under this name: NaN is none."""
    value = run.metrics.get(name) if name else None
    return value is not None and not math.isnan(value)


def rank_by_metric(run: Run, request: SoupRequest) -> tuple[bool, float]:
    """Sorts the best run first, by the metric that the request names; those without it last."""
    if request.by is None or not has_metric(run, request.by):
        return (True, 0.0)
    value = run.metrics[request.by]
    return (False, value if request.direction is Direction.MIN else -value)


def _sounds_like_a_loss(name: str) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return any(word in SMALLER_IS_BETTER or word.endswith(("loss", "error")) for word in words)
