"""What Stockpot remembers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from stockpot.entities import (
    Answer,
    Bound,
    Candidate,
    CheckpointPlace,
    Composition,
    Digest,
    EvaluationProtocol,
    Evidence,
    FailedAsk,
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
    Score,
    Selection,
    SoupOutcome,
    SoupReport,
    TrailDraft,
    TrailEntry,
    TrailOf,
    Watch,
    Watermark,
)
from stockpot.ports.lineage import Descent


class Store(Descent, Protocol):
    """Stockpot's own memory. Every method but `prune` is one atomic transaction, durable when it returns,
    and safe to call from several threads and processes at once. Methods raise StoreError, and nothing else.
    """

    def close(self) -> None:
        """Give back what the database lends, connections; the next call asks for it again."""
        ...

    def ingested(self, uri: str) -> IngestedSource | None:
        """What reading this weights file found, if it was read before."""
        ...

    def remember_ingested(self, ingested: IngestedSource) -> None:
        """Remember what reading a file found; a newer reading of the same URI replaces an older one."""
        ...

    def score(self, recipe: Digest, protocol: Digest) -> Score | None:
        """The committed evaluation of this recipe under this protocol, if there is one."""
        ...

    def commit_score(
        self, recipe: Composition, protocol: EvaluationProtocol, score: Score, *, lease: Lease | None = None
    ) -> Score:
        """Commit an evaluation. The first one wins: returns the committed one, whoever committed it.

        Scores and metrics come back bit-identical, NaN and signed zeros included. `lease`, under which it was
        measured, is given up with that.
        """
        ...

    def scored(self, recipes: Sequence[Digest], protocol: Digest) -> frozenset[Digest]:
        """Which of these recipes have a committed evaluation under this protocol; no score is read."""
        ...

    def evaluated(
        self, protocols: Collection[Digest] | None = None, *, since: float = 0.0
    ) -> tuple[int, float | None]:
        """How many evaluations were committed since then under these protocols, or under any, and when the
        last one was; times are seconds since the epoch.
        """
        ...

    def bound(self, recipe: Digest, protocol: Digest) -> Bound | None:
        """The least upper bound known of this recipe's score under this protocol, if there is one that was
        not withdrawn. A committed score makes it superfluous, not wrong.
        """
        ...

    def commit_bound(
        self, recipe: Composition, protocol: EvaluationProtocol, bound: Bound, *, lease: Lease | None = None
    ) -> Bound:
        """Commit what an evaluation that stopped early has shown. Returns the least bound known, whoever
        committed it, that was not withdrawn, and this one if there is none. Raises StoreError for NaN,
        which bounds nothing. Gives up the lease, as `commit_score` does.
        """
        ...

    def withdraw_mixed_bounds(self, protocol: EvaluationProtocol) -> None:
        """Withdraw every mixed bound under this protocol, whoever committed it or will: examples were found
        whose outputs depend on their batch. Other bounds and scores stay.
        """
        ...

    def mixed_bounds_withdrawn(self, protocol: Digest) -> bool:
        """Whether mixed bounds under this protocol were withdrawn."""
        ...

    def commit_selection(self, selection: Selection, protocol: EvaluationProtocol) -> None:
        """Keep the record of a search. Committing an identical one again changes nothing."""
        ...

    def selections(self, recipe: Digest) -> tuple[Selection, ...]:
        """The searches that ended in this recipe, oldest first."""
        ...

    def commit_report(self, report: SoupReport) -> None:
        """Keep what was measured for a request. Committing an identical one again changes nothing."""
        ...

    def reports(self, recipe: Digest) -> tuple[FiledReport, ...]:
        """The reports with a row of this recipe, oldest first, whatever their request, task or model."""
        ...

    def requests_on(self, dataset: Digest) -> int:
        """How many different requests have a report whose report split is this dataset.

        The same request counts once for each set of candidates that it found.
        """
        ...

    def resolve_overlay(self, recipe: Recipe, overlay: bytes) -> bytes:
        """Commit which statistics the recipe's rule has led to, as a file. The first ones win: returns the
        committed ones, whoever committed them. Raises StoreError for a recipe without a rule.
        """
        ...

    def overlay(self, recipe: Digest) -> bytes | None:
        """The committed statistics of this recipe, if there are any."""
        ...

    def recipe(self, digest: Digest) -> Composition | None:
        """The recipe or ensemble of this name, if an evaluation, bound, selection or registration brought it
        in.
        """
        ...

    def take_lease(self, name: str, *, owner: str, seconds: float) -> Lease:
        """Try to become the owner of this lease for so many seconds, by the store's own clock.

        Succeeds when nobody owns it, when `owner` already does, or when it is held no more
        (`Lease.is_held`). Returns the lease as it is afterwards: the try succeeded exactly when its
        ``owner`` is `owner`.
        """
        ...

    def renew_lease(self, name: str, *, owner: str, seconds: float) -> bool:
        """Own it for so many seconds from now on. False where `owner` does not own it any more, even if
        whoever took it over has given it back since.
        """
        ...

    def release_lease(self, name: str, *, owner: str) -> None:
        """Give it up; nothing happens if `owner` does not own it."""
        ...

    def holder(self, name: str) -> Lease | None:
        """Who holds this lease now; None where nobody does, or it has run out. Nobody waits for this look."""
        ...

    def begin_job(self, job: Job) -> None:
        """Know this job. Beginning it again changes nothing."""
        ...

    def commit_candidates(self, job: Job, candidates: Sequence[Candidate]) -> None:
        """Keep where this job, which was begun, found each checkpoint; what it told before stays as it is."""
        ...

    def open_job(self, job: Job, opening: Opening, *, owner: str) -> None:
        """Keep how this job, which was begun, was opened, in place of an earlier opening. Raises StoreError
        unless `owner` owns its lease.
        """
        ...

    def opening(self, job: Digest) -> Opening | None:
        """How this job was opened last. None where nobody opened it, or in another program's words."""
        ...

    def jobs_at_work(self) -> tuple[Job, ...]:
        """The jobs whose lease is held now, by the store's own clock, the oldest lease first; without those
        whose request is in another program's words.
        """
        ...

    def finish_job(self, job: Job, outcome: SoupOutcome, evidence: Evidence, *, owner: str) -> None:
        """Keep a job's answer in place of an earlier one, and of a fault. Raises StoreError unless `owner`
        owns its lease.
        """
        ...

    def fail_job(self, job: Job, fault: str, *, owner: str) -> None:
        """Keep that an attempt failed, and why: one line without secrets. It counts once, however often it is
        told under one lease. Raises StoreError unless `owner` owns the job's lease.
        """
        ...

    def confirm_job(self, job: Job) -> None:
        """Keep that a job's answer still holds, where a later attempt failed or a trigger asked for it since:
        it is answered now. Changes nothing else, and nothing where there is no answer.
        """
        ...

    def ask_job(
        self, job: Job, rule: str, *, predecessor: Digest | None = None, lost: float | None = None
    ) -> None:
        """Begin this job, and keep that this rule asks for it now. `predecessor`: the job of the same request
        about an earlier state of the sweep; the first one that is told stays. `lost`: the ``asked_at`` of an
        asking that nobody followed, which counts as an attempt.
        """
        ...

    def asked_within(self, seconds: float, rules: Collection[str]) -> int:
        """How many jobs these rules asked for in the last so many seconds, by the store's own clock."""
        ...

    def job_records(
        self, names: Collection[Digest] | None = None, *, sweeps: Collection[str] | None = None
    ) -> tuple[JobRecord, ...]:
        """What is known of jobs, the oldest first: of these names, or about these sweeps (ids of parent
        runs); of all where neither is given.
        """
        ...

    def clock(self) -> float:
        """What time it is, by the store's own clock, in seconds since the epoch."""
        ...

    def watermarks(self, names: Collection[str]) -> Mapping[str, Watermark]:
        """How far scans have looked, by these names; without those that none was kept of."""
        ...

    def known_sweeps(self, sweeps: Collection[str], rules: Collection[str]) -> tuple[KnownSweep, ...]:
        """What scans by these rules have kept of these sweeps (ids of parent runs), in no order."""
        ...

    def sweeps_due(self, rules: Collection[str]) -> tuple[KnownSweep, ...]:
        """What is to be looked at for these rules by now, by the store's own clock, the longest due first."""
        ...

    def keep_scan(self, sweeps: Collection[KnownSweep], marks: Mapping[str, Watermark]) -> None:
        """Keep what a scan has seen, in place of what was kept of these sweeps, for the same rules, and of
        these names before.
        """
        ...

    def answer(self, job: Job) -> Answer | None:
        """What this job ended in last. None where it has no answer, or one in an older program's words."""
        ...

    def places(self, checkpoint: Digest) -> tuple[CheckpointPlace, ...]:
        """Where this checkpoint was found, by run id and path."""
        ...

    def registrations_with(self, run_id: str) -> tuple[Registration, ...]:
        """The registrations of all recipes that hold a checkpoint of this run, by model and recipe."""
        ...

    def begin_registration(self, model: str, recipe: Recipe) -> Registration:
        """The row for this soup; it is created if there is none."""
        ...

    def advance_registration(self, registration: Registration, *, owner: str) -> None:
        """Write the row's state and ids. Raises StoreError unless `owner` owns ``registration.lease`` and
        the row was begun, or when a REGISTERED row would become anything else.
        """
        ...

    def registration(self, model: str, recipe: Digest) -> Registration | None:
        """The row for this soup, if there is one."""
        ...

    def registrations(self, model: str | None = None) -> tuple[Registration, ...]:
        """All rows of a registered model, or of all, by model and recipe digest."""
        ...

    def append_trail(
        self, of: TrailOf, drafts: Sequence[TrailDraft], *, after: Digest | None
    ) -> tuple[TrailEntry, ...] | None:
        """Append to this model's trail, all or nothing, if its newest entry is still `after` (None: it has no
        entry). Returns the entries, whose time is the store's.

        None where another entry is the newest one by now: look again at what is known, and decide again. What
        was appended after `after` with the same content is taken for this call's own, as whoever lost the
        answer to a commit finds it.
        """
        ...

    def trail(self, of: TrailOf) -> tuple[TrailEntry, ...]:
        """The entries of this model's trail, oldest first."""
        ...

    def watches(self, models: Collection[str] | None = None) -> tuple[Watch, ...]:
        """What is known by the trails of the models of these names, or of all, by name and birth."""
        ...

    def keep_look(self, at: float, trails: Collection[TrailOf]) -> None:
        """Keep that somebody looked at these models then, unless somebody looked later. Nothing is kept of
        one without a trail.
        """
        ...

    def keep_ask(self, ask: FailedAsk) -> None:
        """Keep an ask that was tried, in place of what was kept under its name before."""
        ...

    def failed_asks(self) -> tuple[FailedAsk, ...]:
        """Those that are kept, the one that was tried last coming last."""
        ...

    def drop_asks(self, names: Collection[Digest]) -> None:
        """Forget those of these names: they were answered, or nobody asks any more."""
        ...

    def prune(self, seconds: float, *, really: bool) -> tuple[Pruned, ...]:
        """Remove what is older than so many seconds, by the store's own clock, and can be done without; or
        tell alone what would go. Evaluations and bounds that nothing rests on, gaps of the others, overlays.

        An evaluation or a bound stays where its recipe has a registration, a decision of the gate rests on
        it, or a report tells of it: as a row, a candidate, an ensemble, a point of the curve or a step of a
        search. Nothing goes under a protocol of a job that was begun, asked for, answered or failed since, or
        that somebody works on. An overlay stays with any evaluation or bound of its recipe, and as long as
        somebody works on anything.

        Returns nothing, and does nothing, where somebody works on a job that is not open yet: its protocols
        are unknown. Many short transactions: of what is interrupted, a part is done.
        """
        ...
