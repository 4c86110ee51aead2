"""How it stands with the requests: what runs where, what waits, what failed and why, what was registered."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import Digest, FailedAsk, Job, JobRecord, JobState
from stockpot.shelves import files_of as outputs_of
from stockpot.shelves import folder_at
from stockpot.soup.checkpoint_cache import files_of
from stockpot.workflow.check import command_of
from stockpot.workflow.leases import holder

if TYPE_CHECKING:
    from stockpot.ports import Store

NEWEST = 10
"""Jobs that are done or were stopped, of which people are told where they do not ask for all."""
TOLD = {JobState.DONE: NEWEST, JobState.STOPPED: NEWEST, JobState.REPLACED: 0}
"""How many of a state; all of the others."""
ORDER = [
    *(JobState.RUNNING, JobState.WAITING, JobState.FAILED),
    *(JobState.STOPPED, JobState.DONE, JobState.REPLACED),
]


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job. Times are seconds since the epoch."""

    name: Digest
    state: JobState
    model: str
    sweep: str
    """The sweep's parent run, or its experiment; empty where another program asked for it."""
    since: float
    """When it came to this state."""
    where: str = ""
    """Who works on it."""
    evaluations: int | None = None
    """Committed since it runs, under its protocols, by whomever."""
    versions: tuple[str, ...] = ()
    """URIs, where it is done."""
    fault: str = ""
    """Why it failed."""
    attempts: int = 0
    """Those that failed or were lost."""
    next: str = ""
    """The command to go on with."""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything at one moment."""

    at: float
    counts: Mapping[str, int]
    """Jobs by their state."""
    jobs: tuple[JobStatus, ...]
    """Those that run, wait or failed, and the newest that were stopped or are done: the last word first in
    each state. Those that were replaced where people ask for all.
    """
    asks: tuple[FailedAsk, ...]
    """What people asked for in MLflow, was tried and has no answer yet, the newest failure first."""
    evaluations: int
    """In the store."""
    last_sign_of_life: float | None
    """The newest of all times that the store knows; None where it knows none."""
    oldest_running: float
    """Seconds since the oldest of the jobs that run was taken; 0 where none runs."""
    cache_files: int
    cache_bytes: int
    outputs_bytes: int | None
    """None where they lie at an address."""


def status(store: "Store", cache: Path, outputs: str, *, all_jobs: bool = False) -> Status:
    """Look at the store, at the cache and at the folder of outputs. Raises StoreError."""
    now = time.time()
    records = store.job_records()
    evaluations, last = store.evaluated()
    shown = [
        record
        for state in ORDER
        for record in _newest(
            [record for record in records if record.state is state], state, all_jobs=all_jobs
        )
    ]
    files, held = files_of(cache).held()
    folder = folder_at(outputs)
    leases = [record.lease.since for record in records if record.lease is not None]
    asks = store.failed_asks()[::-1]
    signs = [*map(_last_word, records), *(ask.failed_at for ask in asks), *([] if last is None else [last])]
    return Status(
        at=now,
        counts={**dict.fromkeys(map(str, ORDER), 0), **Counter(str(record.state) for record in records)},
        jobs=tuple(_job(record, store) for record in shown),
        asks=asks,
        evaluations=evaluations,
        last_sign_of_life=max(signs, default=None),
        oldest_running=max([0.0, *(now - since for since in leases)]),
        cache_files=files,
        cache_bytes=held,
        outputs_bytes=None if folder is None else outputs_of(folder).held()[1],
    )


def _newest(records: list[JobRecord], state: JobState, *, all_jobs: bool) -> list[JobRecord]:
    newest = sorted(records, key=_last_word, reverse=True)
    return newest if all_jobs else newest[: TOLD.get(state)]


def _last_word(record: JobRecord) -> float:
    held = record.lease.since if record.lease is not None else None
    times = (record.asked_at, record.answered_at, record.failed_at, held)
    return max([record.created_at, *(at for at in times if at is not None)])


def _job(record: JobRecord, store: "Store") -> JobStatus:
    request, state = record.request, record.state
    since: Mapping[JobState, float | None] = {
        JobState.RUNNING: record.lease.since if record.lease else None,
        JobState.WAITING: record.asked_at,
        JobState.FAILED: record.failed_at,
        JobState.DONE: record.answered_at,
    }
    evaluations = None
    if record.lease is not None and (opening := store.opening(record.name)) is not None:
        protocols = [protocol.digest for protocol in opening.protocols]
        evaluations, _ = store.evaluated(protocols, since=record.lease.since)
    versions: tuple[str, ...] = ()
    if state is JobState.DONE and request is not None:
        answer = store.answer(Job(record.name, request))
        versions = tuple(soup.uri for soup in answer.outcome.registered) if answer is not None else ()
    done = {JobState.RUNNING, JobState.DONE, JobState.REPLACED}
    again = "" if request is None or state in done else command_of(request)
    return JobStatus(
        name=record.name,
        state=state,
        model=record.model,
        sweep="" if request is None else request.sweep or request.experiment or "",
        since=since.get(state) or record.created_at,
        where=holder(record.lease) if record.lease else "",
        evaluations=evaluations,
        versions=versions,
        fault=record.fault or "",
        attempts=record.attempts,
        next=again,
    )


def metrics_of(found: Status) -> str:
    """The same for OpenMetrics, to be scraped or written to a file for a node exporter."""
    jobs = [f'stockpot_jobs{{state="{state}"}} {number}' for state, number in found.counts.items()]
    numbers: dict[str, tuple[str, float | None]] = {
        "stockpot_failed_asks": ("Asked for in MLflow, tried, and not answered.", len(found.asks)),
        "stockpot_evaluations": ("Evaluations in the store.", found.evaluations),
        "stockpot_cache_bytes": ("Weights in this machine's cache.", found.cache_bytes),
        "stockpot_outputs_bytes": ("Outputs in this machine's folder.", found.outputs_bytes),
        "stockpot_oldest_running_seconds": (
            "Since the oldest job that runs was taken.",
            found.oldest_running,
        ),
        "stockpot_last_sign_of_life_timestamp_seconds": (
            "When the store last heard of anybody.",
            found.last_sign_of_life,
        ),
    }
    lines = ["# HELP stockpot_jobs Jobs by their state.", "# TYPE stockpot_jobs gauge", *jobs]
    for name, (told, value) in numbers.items():
        if value is not None:
            lines += [f"# HELP {name} {told}", f"# TYPE {name} gauge"]
            lines += [f"# UNIT {name} {unit}" for unit in ("bytes", "seconds") if name.endswith(f"_{unit}")]
            lines.append(f"{name} {value}")
    return "\n".join([*lines, "# EOF", ""])
