"""A store that forgets: the same promises without a file, for tests and for trying things out."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from threading import Lock

from stockpot.documents import to_document
from stockpot.entities import (
    Answer,
    Bound,
    Candidate,
    CheckpointPlace,
    Composition,
    Digest,
    EvaluationProtocol,
    Evidence,
    FiledReport,
    IngestedSource,
    Job,
    JobRecord,
    KnownSweep,
    Lease,
    Opening,
    Pruned,
    Recipe,
    Registration,
    RegistrationState,
    Score,
    Selection,
    SoupOutcome,
    SoupReport,
    TrailKind,
    Watermark,
    digest_of_document,
)
from stockpot.ports import Store
from stockpot.store.claims import require_claim, require_lease, require_number, require_rule
from stockpot.store.descent import version_of
from stockpot.store.memory_lineage import MemoryLineage
from stockpot.store.memory_trails import MemoryTrails
from stockpot.store.places import place_of
from stockpot.store.pruning import in_use, judged_in, told, told_of
from stockpot.store.reports import dataset_of, question_of


class MemoryStore(MemoryLineage, MemoryTrails, Store):
    """A store in this process's memory."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self._ingested: dict[str, IngestedSource] = {}
        self._recipes: dict[Digest, Composition] = {}
        self._scores: dict[tuple[Digest, Digest], Score] = {}
        self._bounds: dict[tuple[Digest, Digest, bool], Bound] = {}
        self._withdrawn: set[Digest] = set()
        self._selections: dict[Digest, Selection] = {}
        self._overlays: dict[Digest, bytes] = {}
        self._reports: dict[Digest, FiledReport] = {}
        self._jobs: dict[Digest, Job] = {}
        self._records: dict[Digest, JobRecord] = {}
        self._marks: dict[str, Watermark] = {}
        self._sweeps: dict[tuple[str, str], KnownSweep] = {}
        self._askers: dict[Digest, str] = {}
        """The rules that asked for jobs last."""
        self._openings: dict[Digest, Opening] = {}
        self._answers: dict[Digest, Answer] = {}
        self._places: dict[Digest, set[CheckpointPlace]] = {}
        self._leases: dict[str, Lease] = {}
        self._since: dict[object, float] = {}
        """When a score, a bound, an overlay or a job was written first; a bound last."""
        self._registrations: dict[tuple[str, Digest], Registration] = {}

    def close(self) -> None:
        pass

    def ingested(self, uri: str) -> IngestedSource | None:
        with self._lock:
            return self._ingested.get(uri)

    def remember_ingested(self, ingested: IngestedSource) -> None:
        with self._lock:
            self._ingested[ingested.uri] = ingested

    def score(self, recipe: Digest, protocol: Digest) -> Score | None:
        with self._lock:
            return self._scores.get((recipe, protocol))

    def scored(self, recipes: Sequence[Digest], protocol: Digest) -> frozenset[Digest]:
        with self._lock:
            return frozenset(recipe for recipe in recipes if (recipe, protocol) in self._scores)

    def commit_score(
        self, recipe: Composition, protocol: EvaluationProtocol, score: Score, *, lease: Lease | None = None
    ) -> Score:
        with self._lock:
            self._recipes[recipe.digest] = recipe
            self._give_up(lease)
            self._since.setdefault((recipe.digest, protocol.digest), time.time())
            return self._scores.setdefault((recipe.digest, protocol.digest), score)

    def evaluated(
        self, protocols: Collection[Digest] | None = None, *, since: float = 0.0
    ) -> tuple[int, float | None]:
        with self._lock:
            wanted = [key for key in self._scores if protocols is None or key[1] in protocols]
            times = [at for key in wanted if (at := self._since[key]) >= since]
        return len(times), max(times, default=None)

    def bound(self, recipe: Digest, protocol: Digest) -> Bound | None:
        with self._lock:
            return self._bound(recipe, protocol)

    def commit_bound(
        self, recipe: Composition, protocol: EvaluationProtocol, bound: Bound, *, lease: Lease | None = None
    ) -> Bound:
        require_number(recipe, bound)
        key = (recipe.digest, protocol.digest, bound.mixed)
        with self._lock:
            self._recipes[recipe.digest] = recipe
            self._give_up(lease)
            if key not in self._bounds or bound.upper < self._bounds[key].upper:
                self._since[key] = time.time()
            self._bounds[key] = min(self._bounds.get(key, bound), bound, key=lambda known: known.upper)
            return self._bound(recipe.digest, protocol.digest) or bound

    def withdraw_mixed_bounds(self, protocol: EvaluationProtocol) -> None:
        with self._lock:
            self._withdrawn.add(protocol.digest)

    def mixed_bounds_withdrawn(self, protocol: Digest) -> bool:
        with self._lock:
            return protocol in self._withdrawn

    def _bound(self, recipe: Digest, protocol: Digest) -> Bound | None:
        kinds = [False] if protocol in self._withdrawn else [False, True]
        known = [self._bounds[key] for mixed in kinds if (key := (recipe, protocol, mixed)) in self._bounds]
        return min(known, key=lambda bound: bound.upper, default=None)

    def commit_selection(self, selection: Selection, protocol: EvaluationProtocol) -> None:
        name = digest_of_document([to_document(selection), protocol.digest])
        with self._lock:
            self._recipes[selection.recipe.digest] = selection.recipe
            self._selections.setdefault(name, selection)

    def selections(self, recipe: Digest) -> tuple[Selection, ...]:
        with self._lock:
            return tuple(found for found in self._selections.values() if found.recipe.digest == recipe)

    def commit_report(self, report: SoupReport) -> None:
        name = digest_of_document(to_document(report))
        with self._lock:
            self._recipes.update({row.recipe.digest: row.recipe for row in report.rows})
            self._reports.setdefault(name, FiledReport(report, time.time()))

    def reports(self, recipe: Digest) -> tuple[FiledReport, ...]:
        with self._lock:
            filed = tuple(self._reports.values())
        return tuple(one for one in filed if recipe in {row.recipe.digest for row in one.report.rows})

    def requests_on(self, dataset: Digest) -> int:
        with self._lock:
            reports = [filed.report for filed in self._reports.values()]
        return len({question_of(report) for report in reports if dataset_of(report) == dataset})

    def resolve_overlay(self, recipe: Recipe, overlay: bytes) -> bytes:
        require_rule(recipe)
        with self._lock:
            self._recipes[recipe.digest] = recipe
            self._since.setdefault(recipe.digest, time.time())
            return self._overlays.setdefault(recipe.digest, overlay)

    def overlay(self, recipe: Digest) -> bytes | None:
        with self._lock:
            return self._overlays.get(recipe)

    def recipe(self, digest: Digest) -> Composition | None:
        with self._lock:
            return self._recipes.get(digest)

    def take_lease(self, name: str, *, owner: str, seconds: float) -> Lease:
        with self._lock:
            now = time.time()
            held = self._leases.get(name)
            if held is None or held.owner == owner or not held.is_held(now):
                since = held.since if held and held.owner == owner else now
                held = self._leases[name] = Lease(name, owner, since, now + seconds)
            return held

    def renew_lease(self, name: str, *, owner: str, seconds: float) -> bool:
        with self._lock:
            held = self._leases.get(name)
            if held is None or held.owner != owner:
                return False
            self._leases[name] = replace(held, until=time.time() + seconds)
            return True

    def release_lease(self, name: str, *, owner: str) -> None:
        with self._lock:
            self._release(name, owner)

    def _give_up(self, lease: Lease | None) -> None:
        if lease is not None:
            self._release(lease.name, lease.owner)

    def _release(self, name: str, owner: str) -> None:
        held = self._leases.get(name)
        if held and held.owner == owner:
            del self._leases[name]

    def holder(self, name: str) -> Lease | None:
        with self._lock:
            return self._holder(name)

    def _holder(self, name: str) -> Lease | None:
        held = self._leases.get(name)
        return held if held is not None and held.is_held(time.time()) else None

    def begin_job(self, job: Job) -> None:
        with self._lock:
            self._begin(job)

    def _begin(self, job: Job) -> JobRecord:
        self._jobs.setdefault(job.name, job)
        begun = JobRecord(job.name, job.request.model, job.request, time.time())
        return self._records.setdefault(job.name, begun)

    def commit_candidates(self, job: Job, candidates: Sequence[Candidate]) -> None:
        sweep = job.request.sweep or job.request.experiment
        with self._lock:
            for candidate in candidates:
                self._keep_place(candidate.checkpoint.digest, place_of(candidate), sweep)

    def open_job(self, job: Job, opening: Opening, *, owner: str) -> None:
        with self._lock:
            require_lease(job, self._leases.get(job.lease), owner)
            self._openings[job.name] = opening

    def opening(self, job: Digest) -> Opening | None:
        with self._lock:
            return self._openings.get(job)

    def jobs_at_work(self) -> tuple[Job, ...]:
        with self._lock:
            held = [(self._holder(job.lease), job) for job in self._jobs.values()]
        at_work = sorted((lease.since, job.lease, job) for lease, job in held if lease is not None)
        return tuple(job for *_, job in at_work)

    def finish_job(self, job: Job, outcome: SoupOutcome, evidence: Evidence, *, owner: str) -> None:
        with self._lock:
            require_lease(job, self._leases.get(job.lease), owner)
            self._answers[job.name] = Answer(outcome, time.time(), evidence)
            record = self._records[job.name]
            self._records[job.name] = replace(record, answered_at=time.time(), failed_at=None, fault=None)

    def fail_job(self, job: Job, fault: str, *, owner: str) -> None:
        with self._lock:
            held = require_lease(job, self._leases.get(job.lease), owner)
            record = self._records[job.name]
            told = record.failed_at is not None and record.failed_at >= held.since
            self._records[job.name] = replace(
                record, failed_at=time.time(), fault=fault, attempts=record.attempts + (not told)
            )

    def confirm_job(self, job: Job) -> None:
        with self._lock:
            record, known = self._records[job.name], self._answers.get(job.name)
            if known is None or record.answered_at is None:
                return
            if record.failed_at is not None or (record.asked_at or 0.0) > record.answered_at:
                now = time.time()
                self._answers[job.name] = replace(known, at=now)
                self._records[job.name] = replace(record, answered_at=now, failed_at=None, fault=None)

    def ask_job(
        self, job: Job, rule: str, *, predecessor: Digest | None = None, lost: float | None = None
    ) -> None:
        with self._lock:
            record = self._begin(job)
            self._askers[job.name] = rule
            self._records[job.name] = replace(
                record,
                asked_at=time.time(),
                predecessor=record.predecessor or predecessor,
                attempts=record.attempts + (lost is not None and record.asked_at == lost),
            )

    def asked_within(self, seconds: float, rules: Collection[str]) -> int:
        with self._lock:
            after = time.time() - seconds
            asked = [name for name, rule in self._askers.items() if rule in rules]
            return sum((self._records[name].asked_at or 0.0) > after for name in asked)

    def job_records(
        self, names: Collection[Digest] | None = None, *, sweeps: Collection[str] | None = None
    ) -> tuple[JobRecord, ...]:
        with self._lock:
            found = [
                replace(
                    record,
                    lease=self._holder(f"{Job.LEASES}{record.name}"),
                    replaced=self._is_replaced(record),
                )
                for record in self._records.values()
                if (names is None and sweeps is None)
                or record.name in (names or ())
                or (record.request is not None and record.request.sweep in (sweeps or ()))
            ]
        return tuple(sorted(found, key=lambda record: (record.created_at, record.name)))

    def _is_replaced(self, record: JobRecord) -> bool:
        about = [row for row in self._sweeps.values() if record.request and row.sweep == record.request.sweep]
        asker = self._askers.get(record.name)
        moved_on = any(row.rule == asker and row.job not in {None, record.name} for row in about)
        return moved_on and all(row.job != record.name for row in about)

    def clock(self) -> float:
        return time.time()

    def watermarks(self, names: Collection[str]) -> Mapping[str, Watermark]:
        with self._lock:
            return {name: self._marks[name] for name in names if name in self._marks}

    def known_sweeps(self, sweeps: Collection[str], rules: Collection[str]) -> tuple[KnownSweep, ...]:
        with self._lock:
            keys = [(sweep, rule) for sweep in sweeps for rule in rules]
            return tuple(self._sweeps[key] for key in keys if key in self._sweeps)

    def sweeps_due(self, rules: Collection[str]) -> tuple[KnownSweep, ...]:
        with self._lock:
            due = [(row.look_at, key, row) for key, row in self._sweeps.items() if row.look_at is not None]
        now = time.time()
        return tuple(
            row for at, _, row in sorted(due, key=lambda one: one[:2]) if at <= now and row.rule in rules
        )

    def keep_scan(self, sweeps: Collection[KnownSweep], marks: Mapping[str, Watermark]) -> None:
        with self._lock:
            self._sweeps.update({(known.sweep, known.rule): known for known in sweeps})
            self._marks.update(marks)

    def answer(self, job: Job) -> Answer | None:
        with self._lock:
            return self._answers.get(job.name)

    def places(self, checkpoint: Digest) -> tuple[CheckpointPlace, ...]:
        with self._lock:
            return tuple(
                sorted(self._places.get(checkpoint, ()), key=lambda found: (found.run_id, found.path))
            )

    def registrations_with(self, run_id: str) -> tuple[Registration, ...]:
        with self._lock:
            held = {
                checkpoint
                for checkpoint, places in self._places.items()
                if run_id in {place.run_id for place in places}
            }
            rows = sorted(self._registrations.items())
            return tuple(row for (_, recipe), row in rows if held & set(self._recipes[recipe].checkpoints))

    def begin_registration(self, model: str, recipe: Recipe) -> Registration:
        row = Registration(model, recipe.digest, RegistrationState.REGISTERING, updated_at=time.time())
        with self._lock:
            self._recipes[recipe.digest] = recipe
            return self._registrations.setdefault((model, recipe.digest), row)

    def advance_registration(self, registration: Registration, *, owner: str) -> None:
        key = (registration.model, registration.recipe)
        with self._lock:
            committed, lease = self._registrations.get(key), self._leases.get(registration.lease)
            require_claim(registration, committed, lease, owner)
            self._registrations[key] = replace(registration, updated_at=time.time())
            if (version := version_of(registration)) is not None:
                self._keep_version(version)

    def registration(self, model: str, recipe: Digest) -> Registration | None:
        with self._lock:
            return self._registrations.get((model, recipe))

    def registrations(self, model: str | None = None) -> tuple[Registration, ...]:
        with self._lock:
            return tuple(row for key, row in sorted(self._registrations.items()) if model in {None, key[0]})

    def prune(self, seconds: float, *, really: bool) -> tuple[Pruned, ...]:
        with self._lock:
            before = time.time() - seconds
            jobs = self._jobs.values()
            young = [job.name for job in jobs if self._last_word(job) >= before]
            held = [job.name for job in jobs if self._holder(job.lease) is not None]
            use = in_use(map(self._openings.get, young), [self._openings.get(name) for name in held])
            if use.unknown:
                return ()
            rest_on = {r for filed in self._reports.values() for r in told_of(filed.report)}
            rest_on |= {recipe for _, recipe in self._registrations}
            rest_on |= {*judged_in(self._facts(TrailKind.DECISION))}
            old = {key for key, since in self._since.items() if since < before}
            scores = [key for key in self._scores if key in old and key[1] not in use.protocols]
            bounds = [key for key in self._bounds if key in old and key[1] not in use.protocols]
            bounds = [key for key in bounds if key[0] not in rest_on]
            go = [key for key in scores if key[0] not in rest_on]
            lose = [key for key in scores if key[0] in rest_on and self._scores[key].gaps is not None]
            measured = {
                key[0] for key in ({*self._scores} - {*go}) | {key[:2] for key in {*self._bounds} - {*bounds}}
            }
            spared = rest_on | measured
            overlays = [r for r in self._overlays if r in old and r not in spared and not use.at_work]
            found = {
                "evaluations": [8 * len(self._scores[key].examples) for key in go],
                "bounds": [8] * len({key[:2] for key in bounds}),
                "gaps": [4 * len(self._scores[key].gaps or ()) for key in lose],
                "overlays": [len(self._overlays[recipe]) for recipe in overlays],
            }
            if really:
                self._scores = {key: score for key, score in self._scores.items() if key not in go}
                self._scores |= {key: replace(self._scores[key], gaps=None) for key in lose}
                self._bounds = {key: bound for key, bound in self._bounds.items() if key not in bounds}
                self._overlays = {r: content for r, content in self._overlays.items() if r not in overlays}
                self._since = {k: at for k, at in self._since.items() if k not in {*go, *bounds, *overlays}}
            return told(found)

    def _last_word(self, job: Job) -> float:
        found = self._records[job.name]
        later = (found.asked_at, found.answered_at, found.failed_at)
        return max(found.created_at, *(at or 0.0 for at in later))
