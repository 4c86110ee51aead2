"""The gate: whether a version may have the alias that people rely on, and every reason."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import (
    Check,
    CheckOutcome,
    Comparison,
    Decision,
    Digest,
    GateScore,
    JudgedVersion,
    ModelVersion,
    Recipe,
    Snapshot,
    SoupRequest,
    tags,
)
from stockpot.errors import (
    BadRequest,
    BadSignature,
    Incompatible,
    NoRoomForWeights,
    OutOfDeviceMemory,
    RegistryConflict,
)
from stockpot.prose import one_line, size
from stockpot.workflow.gathering import recalled
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.promotion.comparing import NOBODY, Match
from stockpot.workflow.promotion.contents import (
    OF_THE_MACHINE,
    OF_THE_VERSION,
    Contents,
    check_bytes,
    contents_of,
    reason,
)
from stockpot.workflow.promotion.pace import pace
from stockpot.workflow.promotion.policies import Policy
from stockpot.workflow.promotion.served import ALLOWED, measured_as_served
from stockpot.workflow.promotion.signatures import check_signature
from stockpot.workflow.promotion.suite import Measured, Suite, known_of, request_for

if TYPE_CHECKING:
    from stockpot.ports import Bench, Store, Tracker, Verifier, Watcher

NOT_COMPARABLE = (
    "it is not comparable: what is measured by its pyfunc runs in a process of its own, whose time holds "
    "MLflow's work; leave max_latency out of the policy, or override"
)


@dataclass(frozen=True)
class Findings:
    """What came of measuring: nothing, where that was not possible."""

    checks: tuple[Check, ...]
    suite: Suite | None = None
    measured: tuple[Measured, ...] = ()
    """Of the version, and of the champion where there is one."""
    comparisons: tuple[Comparison, ...] = ()
    known: Snapshot | None = None
    """What is kept beside the version, where that is a soup of ours."""

    @property
    def files(self) -> Digest | None:
        """Of the version, where it was measured by its pyfunc."""
        return self.measured[0].files if self.measured else None

    @property
    def unit(self) -> str | None:
        """What scores are told in."""
        return self.suite.bench.unit if self.suite else None


@dataclass(frozen=True)
class Gate:
    """Judges versions. Whatever is wrong with one, or with a policy, is a check that failed; raises what is
    wrong with the machine, the store, or MLflow as a whole.
    """

    tracker: "Tracker"
    store: "Store"
    supply: Supply
    bench: "Callable[[SoupRequest], Bench]"
    """Makes the policy's task ready."""
    watch: "Watcher"
    verifier: "Verifier"

    def judge(
        self, version: ModelVersion, champion: ModelVersion | None, policy: Policy, override: str = ""
    ) -> Decision:
        """Compare a version with the one that has the alias. What is remembered is not measured again.

        `override`: why a person lets it pass whatever is found. Raises BadRequest where signatures cannot be
        verified with the policy's keys: nothing is judged then.
        """
        if policy.keys:
            self.verifier.require(policy.keys)
        mine = contents_of(version, self.tracker, self.supply)
        its = contents_of(champion, self.tracker, self.supply) if champion else None
        found = self._findings(mine, its, policy)
        checks = (
            check_bytes(mine, self.tracker, self.supply, found.files),
            check_signature(mine, policy.keys, self.tracker, self.supply, self.verifier),
            self._recall(mine, found.known),
            self._schema(mine, its),
            *found.checks,
        )
        decision = Decision(
            model=version.name,
            alias=policy.alias,
            version=_judged(mine, found, 0),
            champion=_judged(its, found, 1) if its else None,
            policy=policy.digest,
            suite=policy.splits,
            checks=(*checks, _sizes(mine, its, policy.max_size), self._pace(mine, its, policy, found)),
            comparisons={one.split: one for one in found.comparisons},
            unit=found.unit,
            program=metadata.version("stockpot"),
        )
        return replace(decision, override=override) if decision.failed else decision

    def _recall(self, mine: Contents, known: Snapshot | None) -> Check:
        """Nothing that it holds was recalled: by the store, by what lies beside it, and by its tag, which may
        be of a store that knows more.
        """
        now = self.supply.recalled()
        word = now.of(mine.version.run_id or "", mine.digest)
        for one in known.ingredients if known and word is None else ():
            word = word or now.of(one.run.run_id, one.checkpoint.digest)
        if word is not None:
            return Check("recall", CheckOutcome.FAILED, recalled.told(word))
        tag = mine.version.tags.get(tags.RECALLED, recalled.WITHDRAWN)
        if not tag.startswith(recalled.WITHDRAWN):
            return Check("recall", CheckOutcome.FAILED, f"its tag {tags.RECALLED} tells: {one_line(tag)}")
        return Check("recall", CheckOutcome.PASSED, "nothing that it is known to hold is recalled")

    def _schema(self, mine: Contents, its: Contents | None) -> Check:
        """What callers send, and what they get, is what the champion takes and gives."""
        if its is None:
            return Check("schema", CheckOutcome.NOT_APPLICABLE, NOBODY)
        uri = its.version.uri
        try:
            theirs, ours = self.tracker.schema(its.version), self.tracker.schema(mine.version)
        except OF_THE_MACHINE:
            raise
        except OF_THE_VERSION as error:
            return Check("schema", CheckOutcome.FAILED, f"a signature cannot be read: {reason(error)}")
        if theirs is None:
            return Check("schema", CheckOutcome.NOT_APPLICABLE, f"{uri} was logged without a signature")
        if ours is None:
            return Check("schema", CheckOutcome.FAILED, f"it was logged without a signature; {uri} has one")
        pairs = {"inputs": (ours.inputs, theirs.inputs), "outputs": (ours.outputs, theirs.outputs)}
        differing = [f"{name} {mine}, of {uri} {its}" for name, (mine, its) in pairs.items() if mine != its]
        if differing:
            return Check("schema", CheckOutcome.FAILED, f"others than the champion's: {'; '.join(differing)}")
        return Check("schema", CheckOutcome.PASSED, f"inputs and outputs are those of {uri}")

    def _findings(self, mine: Contents, its: Contents | None, policy: Policy) -> Findings:
        """The suite is opened, and both are measured and compared."""
        known = None
        try:
            known = known_of(mine, self.tracker)
            request = request_for(policy, mine.version.name, known or self._champions(its))
            suite = Suite.opened(policy, self.bench(request), known)
        except OF_THE_MACHINE:
            raise
        except OF_THE_VERSION as error:
            closed = Check("suite", CheckOutcome.FAILED, f"it cannot be used: {reason(error)}")
            unmeasured = Check("score", CheckOutcome.FAILED, "nothing was measured")
            return Findings((closed, unmeasured), known=known)
        told = ", ".join(f"{split} (n={e.protocol.n:,})" for split, e in suite.evaluators.items())
        chose = "which data chose it is not known" if known is None else "they chose nothing"
        opened = Check("suite", CheckOutcome.PASSED, f"its data are there; {chose}: {told}")
        while True:
            try:
                found = self._compared(suite, mine, its, request, policy)
            except NoRoomForWeights:
                raise
            except OutOfDeviceMemory:
                if suite.bench.batch_size == 1:
                    raise
                suite = suite.halved()
            else:
                return replace(found, checks=(opened, *found.checks), known=known)

    def _champions(self, its: Contents | None) -> Snapshot | None:
        """What is kept beside the champion. Damage there is no fault of who comes after it."""
        with suppress(BadRequest, RegistryConflict):
            return known_of(its, self.tracker)
        return None

    def _measured(self, held: Contents, suite: Suite, policy: Policy) -> Measured:
        """By its weights, else by its pyfunc where the policy allows that."""
        unfit = suite.unfit(held)
        if not unfit:
            return suite.measured(held, self.store, self.watch)
        if not policy.pyfunc:
            raise Incompatible(f"{unfit}; {ALLOWED}")

        def prove(folder: Path) -> None:
            if policy.keys:
                self.verifier.verify(folder, policy.keys)

        try:
            found = measured_as_served(
                held.version,
                suite.evaluators,
                suite.bench,
                self.tracker,
                self.supply,
                self.store,
                self.watch,
                prove,
            )
        except BadSignature as error:
            raise Incompatible(f"{unfit}; its pyfunc is not run: {reason(error)}") from error
        told = (
            GateScore(split, found.recipe, found.protocols[split], score.value)
            for split, score in found.scores.items()
        )
        return Measured(found.scores, tuple(told), found.files, unfit)

    def _compared(
        self, suite: Suite, mine: Contents, its: Contents | None, request: SoupRequest, policy: Policy
    ) -> Findings:
        measured = []
        for held in filter(None, (mine, its)):
            try:
                measured.append(self._measured(held, suite, policy))
            except OF_THE_MACHINE:
                raise
            except OF_THE_VERSION as error:
                whose = "it" if held is mine else f"the champion, {held.version.uri},"
                why = f"{whose} cannot be measured: {reason(error)}"
                return Findings((Check("score", CheckOutcome.FAILED, why),), suite, tuple(measured))
        match = Match(
            request=request,
            unit=suite.bench.unit,
            groups=suite.bench.groups,
            mine=measured[0].scores,
            its=measured[-1].scores,
            champion=its.version.uri if its else None,
            domains=suite.bench.domains if policy.domains else None,
        )
        checks = (*_by_pyfunc(zip(filter(None, (mine, its)), measured, strict=True)), *match.checks())
        return Findings(checks, suite, tuple(measured), tuple(match.comparisons.values()))

    def _pace(self, mine: Contents, its: Contents | None, policy: Policy, found: Findings) -> Check:
        """How long a batch takes the version, beside the champion."""
        limit = policy.max_latency
        if limit is None or its is None:
            return Check("latency", CheckOutcome.NOT_APPLICABLE, NOBODY if limit else "it has no limit")
        if any(one.files for one in found.measured):
            return Check("latency", CheckOutcome.FAILED, NOT_COMPARABLE)
        if (
            found.suite is None
            or len(found.measured) < 2
            or mine.checkpoint is None
            or its.checkpoint is None
        ):
            return Check("latency", CheckOutcome.FAILED, "it was not measured, as its scores were not")
        recipes = [Recipe.mean([held.digest]) for held in (mine.checkpoint, its.checkpoint)]
        self.watch.say(f"timing {mine.version.uri} and {its.version.uri}, in turn")
        ratio, rounds = pace(found.suite.bench, recipes[0], recipes[1], policy.split)
        told = (
            f"{ratio:.2f} x that of {its.version.uri}, by the medians of {rounds} batches each in turn; "
            f"at most {limit:g}"
        )
        return Check("latency", CheckOutcome.PASSED if ratio <= limit else CheckOutcome.FAILED, told)


def _judged(held: Contents, found: Findings, place: int) -> JudgedVersion:
    measured = found.measured[place] if place < len(found.measured) else None
    return JudgedVersion(
        held.version.uri,
        held.digest,
        None if held.checkpoint is None else held.checkpoint.size,
        measured.told if measured else (),
        held.version.created,
        measured.files if measured else None,
    )


def _by_pyfunc(measured: "Iterable[tuple[Contents, Measured]]") -> Iterator[Check]:
    """That a version was measured so is told with the verdict."""
    for held, found in measured:
        if found.files is not None:
            told = (
                f"{held.version.uri} is measured by its pyfunc, with the task's labels, since {found.why}; "
                f"its files are {found.files}"
            )
            yield Check("pyfunc", CheckOutcome.PASSED, told)


def _sizes(mine: Contents, its: Contents | None, limit: float | None) -> Check:
    """Of the weights."""
    if limit is None or its is None:
        return Check("size", CheckOutcome.NOT_APPLICABLE, NOBODY if limit else "it has no limit")
    if mine.checkpoint is None or its.checkpoint is None:
        return Check("size", CheckOutcome.FAILED, "weights that cannot be read have no known size")
    ratio = mine.checkpoint.size / its.checkpoint.size
    told = f"{size(mine.checkpoint.size)}, {ratio:.2f} x that of {its.version.uri}; at most {limit:g}"
    return Check("size", CheckOutcome.PASSED if ratio <= limit else CheckOutcome.FAILED, told)
