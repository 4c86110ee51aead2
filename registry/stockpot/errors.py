"""Every error that Stockpot raises on purpose.

StockpotError
├── BadRequest            the request contradicts itself, or names what does not exist
│   ├── UnknownSweep      no such run or experiment
│   ├── UnknownPlugin     no such task or selection method
│   ├── BadModelName      MLflow refuses the registered model's name
│   └── CannotHelp        this process would not give another one's scores
├── NothingToSoup         the sweep has fewer than two usable candidates
├── BadCheckpoint         weights that are damaged, hostile or not averageable
│   ├── NotArrived        weights that the artifact store did not hand out whole
│   ├── Pickled           weights that only running a pickle would give
│   ├── NotFinite         NaN or infinity in the weights
│   ├── Incompatible      weights that cannot be averaged with, or loaded into, others
│   ├── NoBase            an adapter whose base is not here, or of no use
│   ├── OtherLibrary      a model of a library whose models have no torch weights
│   ├── NotCached         the cache does not hold them, or let them go meanwhile
│   └── Altered           a file of the cache that is not what was written
├── BadTask               a user's task breaks its contract
│   ├── UnknownSplit      its data have no such split
│   └── OutOfDeviceMemory its batches do not fit the device
│       └── NoRoomForWeights  nor does what does not shrink with them
├── DeviceLost            the device that evaluates cannot be used any more
├── NotExact              the fast search is not the plain one: Stockpot's own fault
├── StoreError            Stockpot's own database
│   ├── SchemaMismatch    the database is older or newer than this program
│   └── RewrittenHistory  a model's trail is not what was written
├── Busy                  another process works on this very request
├── Unexpected            what nobody foresaw, told without secrets
├── GateFailed            a version that does not show what the gate asks
├── PrefectUnreachable    Prefect does not answer, or fails under the flow
└── TrackingError         MLflow
    ├── Unreachable       no answer
    ├── NotPermitted      refused
    └── RegistryConflict  what is registered is not what was built
        └── BadSignature  nor signed by whom it should be

Each message says what is wrong, where, and the command that mends it. `faults` holds the parts of a
message that reports several things at once. Foreign exceptions are mapped in one place per adapter.
"""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stockpot.prose import visible
from stockpot.secrets import without_secrets

TRACEBACK = "STOCKPOT_TRACEBACK"
"""A variable: when it is set, the command shows the traceback of what stopped it."""


class StockpotError(Exception):
    """What is wrong, where, and how to mend it."""

    exit_code = 1

    def __init__(self, what: str, *, mend: str = "", faults: Sequence[str] = ()) -> None:
        self.what = visible(without_secrets(what))
        self.mend = visible(without_secrets(mend, parts=False))
        self.faults = tuple(visible(without_secrets(fault)) for fault in faults)
        mending = [f"To mend it: {self.mend}"] if mend else []
        super().__init__("\n".join([self.what, *(f"  - {fault}" for fault in self.faults), *mending]))


class BadRequest(StockpotError):
    """The request contradicts itself, or names what does not exist."""

    exit_code = 3


class UnknownSweep(BadRequest):
    """No such run or experiment."""


class UnknownPlugin(BadRequest):
    """No such task or selection method."""


class BadModelName(BadRequest):
    """MLflow refuses the registered model's name."""


class CannotHelp(BadRequest):
    """This process cannot take part in another one's request."""


class NothingToSoup(StockpotError):
    """The sweep has fewer than two usable candidates."""

    exit_code = 4


class BadCheckpoint(StockpotError):
    """Weights that are damaged, hostile or not averageable."""

    exit_code = 5


class AmbiguousWeights(BadCheckpoint):
    """Several checkpoints of one run, where one is wanted."""


class NotArrived(BadCheckpoint):
    """Weights that the artifact store did not hand out whole. Another try may succeed."""


class Pickled(BadCheckpoint):
    """Weights that only running a pickle would give, which is never done."""


class NotFinite(BadCheckpoint):
    """NaN or infinity in the weights."""


class Incompatible(BadCheckpoint):
    """Weights that cannot be averaged with others, or loaded into the task's model."""


class NoBase(BadCheckpoint):
    """An adapter whose base is not on this machine, or cannot be used."""


class OtherLibrary(BadCheckpoint):
    """A model of a library whose models have no torch weights: scikit-learn, XGBoost."""


class NotCached(BadCheckpoint):
    """Weights that the cache does not hold, or let go meanwhile."""


class Altered(BadCheckpoint):
    """A file of the cache whose bytes are not those that were written."""


class BadTask(StockpotError):
    """A user's task breaks its contract."""

    exit_code = 6


class UnknownSplit(BadTask):
    """The task's data have no split of this name."""


class OutOfDeviceMemory(BadTask):
    """The task's batches do not fit the device."""


class NoRoomForWeights(OutOfDeviceMemory):
    """The task's model, or the sum of weights beside it, does not fit: smaller batches do not help."""


class DeviceLost(StockpotError):
    """The device that evaluates cannot be used any more; what it scored before is committed."""

    def __init__(
        self,
        what: str,
        *,
        mend: str = "what was scored is committed: the same command again goes on from there",
        faults: Sequence[str] = (),
    ) -> None:
        super().__init__(what, mend=mend, faults=faults)


class NotExact(StockpotError):
    """The fast search is not the plain one, although all scores agree: Stockpot's own fault."""


class StoreError(StockpotError):
    """Stockpot's own database fails."""

    exit_code = 7


class SchemaMismatch(StoreError):
    """The database is older or newer than this program."""


class RewrittenHistory(StoreError):
    """A model's trail is not what was written."""


class Busy(StockpotError):
    """Another process works on this very request, and this one may not wait."""

    exit_code = 9


class PrefectUnreachable(StockpotError):
    """Prefect does not answer, or fails under the flow."""

    exit_code = 10


class GateFailed(StockpotError):
    """A version does not show what the gate asks of it."""

    exit_code = 11


class Unexpected(StockpotError):
    """What nobody foresaw: a fault of Stockpot's own, or of what it uses."""

    @classmethod
    def of(cls, error: BaseException) -> "Unexpected":
        """The same, told without secrets."""
        return cls(
            f"{type(error).__name__}: {error}",
            mend=f"nobody foresaw this: report it with its traceback, which the same command shows behind "
            f"{TRACEBACK}=1, without passwords",
        )


class TrackingError(StockpotError):
    """MLflow fails."""

    exit_code = 8


class Unreachable(TrackingError):
    """MLflow does not answer."""


class NotPermitted(TrackingError):
    """MLflow refuses."""


class RegistryConflict(TrackingError):
    """What is registered is not what was built."""


class BadSignature(RegistryConflict):
    """A version that is not signed, or not by whom it should be, or that was altered since."""


@contextmanager
def telling_no_secrets(*but: type[Exception]) -> Iterator[None]:
    """For whoever logs tracebacks: an error comes out without its causes where one of them tells a secret.
    One that is not ours and tells it itself comes out as Unexpected. Those of the types `but` pass.
    """
    try:
        yield
    except but:
        raise
    except Exception as error:
        chain = "".join(
            traceback.format_exception(error, limit=0)
        )  # messages alone: files and lines tell none
        if without_secrets(chain) == chain:
            raise
        raise (error if isinstance(error, StockpotError) else Unexpected.of(error)) from None
