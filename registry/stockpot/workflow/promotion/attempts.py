"""What was asked for in MLflow and could not be answered is tried again, after ever longer pauses."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from stockpot.entities import Ask, Digest, FailedAsk, TrailOf, digest_of_document
from stockpot.errors import Busy, StockpotError, StoreError, Unexpected, Unreachable
from stockpot.workflow.jobs import fault_line

if TYPE_CHECKING:
    from stockpot.ports import Store
    from stockpot.workflow.promotion.policies import Policy

NOBODYS = (Busy, StoreError, Unreachable)
"""Nothing was tried, or whoever tried could not know: the next look tries again."""
FORGOTTEN = 3 * 24 * 3600.0
"""Seconds: whoever looks tries at least once a day, so nobody looks any more, or the model is gone."""


class Attempts:
    """Those to answer what is asked for of one model. One process at a time answers for it."""

    def __init__(self, store: "Store", of: TrailOf, policy: "Policy") -> None:
        self._store = store
        self._of = of
        self._policy = policy.digest
        kept = store.failed_asks()
        self._kept = {row.name: row for row in kept if (row.model, row.born) == (of.model, of.born)}

    def waits(self, ask: Ask) -> FailedAsk | None:
        """What failed too short a time ago; None where it may be tried now. Another ask, and the same one
        under another policy, is tried at once.
        """
        known = self._kept.get(self._name(ask))
        return known if known is not None and known.waits(self._store.clock()) else None

    def failed(self, ask: Ask) -> FailedAsk | None:
        """What is kept of it."""
        return self._kept.get(self._name(ask))

    @contextmanager
    def one(self, ask: Ask) -> Iterator[None]:
        """An attempt. It is kept before it begins, since the machine may end it, too."""
        name = self._name(ask)
        before = self._kept.get(name)
        tried = 1 + (before.attempts if before else 0)
        row = FailedAsk(name, self._of.model, self._of.born, ask.uri, ask.why, "", tried, self._store.clock())
        self._keep(row)
        try:
            yield
        except NOBODYS:
            self._undo(row, before)
            raise
        except Exception as error:
            told = error if isinstance(error, StockpotError) else Unexpected.of(error)
            with suppress(StoreError):  # no database: it stays as one that was killed
                self._keep(replace(row, fault=fault_line(told), failed_at=self._store.clock()))
            raise
        except BaseException:  # whoever was told to end has not failed
            self._undo(row, before)
            raise
        self._drop([name])

    def forget_all_but(self, asks: Collection[Ask]) -> None:
        """What nobody asks for any more, and what nobody has looked at for long, of whichever model."""
        asked = {self._name(ask) for ask in asks}
        old = self._store.clock() - FORGOTTEN
        others = [row.name for row in self._store.failed_asks() if row.failed_at < old]
        self._drop([*(self._kept.keys() - asked), *others])

    def _name(self, ask: Ask) -> Digest:
        return digest_of_document([self._of.model, self._of.born, ask.name, ask.uri, self._policy])

    def _keep(self, row: FailedAsk) -> None:
        self._store.keep_ask(row)
        self._kept[row.name] = row

    def _drop(self, names: Collection[Digest]) -> None:
        if names:
            self._store.drop_asks(names)
        for name in names:
            self._kept.pop(name, None)

    def _undo(self, row: FailedAsk, before: FailedAsk | None) -> None:
        with suppress(StoreError):
            if before is None:
                self._drop([row.name])
            else:
                self._keep(before)
