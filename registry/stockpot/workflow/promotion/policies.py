"""What a version must show before an alias moves to it: one TOML file, a table for each registered model."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from stockpot.documents import to_document
from stockpot.entities import Digest, SoupRequest, digest_of_document
from stockpot.entities.fitting import fit_fields
from stockpot.errors import BadRequest, StockpotError
from stockpot.prose import listed, near
from stockpot.workflow.publishing.alias import is_earned

EXAMPLE = """\
[model.birds]                   # the registered model; quote other names: [model."my birds"]
task = "arrays"                 # what both versions are measured by, as a request has it
task_args = { data = "/data/birds.npz", model = "birds.net:make" }
split = "test"                  # the primary comparison: no data that chose the version
shifts = ["fog", "night"]       # where it may not be shown to be worse; may be left out
margin = -0.5                   # what the interval's lower end must exceed: points, or "-1%"
alias = "champion"              # the alias that moves through the gate alone
candidate = "candidate"         # the alias by which a person asks for it in MLflow
max_latency = 1.2               # at most so many times the champion's; no limit where it is left out
max_size = 1.5                  # bytes of weights, in the same manner
# signed_by = "/etc/stockpot/public.pem"   # whose signature it must have: a public key, or a list of them
domains = false                 # true: on no domain of the split may it be shown to be worse
pyfunc = false                  # true: other models are measured by their pyfunc, which runs their code
confirm = ""                    # "prefect": the deployment `gate` has a person confirm it in Prefect's UI
"""
CHAMPION = "champion"
"""The alias that people rely on, where a policy names no other."""
ALIAS = re.compile(r"[\w-]{1,255}", re.ASCII)
RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)
"""MLflow's own, which it lets nobody give."""
MOST_OF_A_KEY = 1 << 16
"""Bytes that are looked at."""
PLACEHOLDER = "0" * 32
"""A sweep, where a request is to say how to measure alone."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the gate asks of a version of one registered model. Raises BadRequest, with all faults."""

    task: str
    task_args: Mapping[str, str] = field(default_factory=dict)
    split: str = "test"
    """Of the primary comparison."""
    shifts: tuple[str, ...] = ()
    margin: float | str = -0.5
    """As in a `SoupRequest`; a percentage is one of the champion's score."""
    alias: str = CHAMPION
    """The alias that is guarded: who has it is the champion."""
    candidate: str = "candidate"
    """The alias by which a person asks the gate, in MLflow."""
    domains: bool | None = None
    """Whether it may be shown to be worse on no domain of the primary split, as the task tells them."""
    max_latency: float | None = None
    """Times the champion's."""
    max_size: float | None = None
    """Times the champion's."""
    signed_by: tuple[str, ...] = ()
    """Files of public keys, in PEM: it is signed with one of them. Two live while one is replaced."""
    pyfunc: bool = False
    """Whether a version whose weights cannot be read, or do not fit the task's model, is measured as MLflow
    serves it. That runs the code that it brings, of whoever may register versions, as the worker's user."""
    confirm: str = ""
    """``prefect``: what was asked for in MLflow waits for a person's word in Prefect's UI, pass or fail."""

    def __post_init__(self) -> None:
        if faults := fit_fields(self) or self._faults():
            raise BadRequest("; ".join(faults), faults=faults)
        object.__setattr__(self, "domains", self.domains or None)  # policies without it keep their names

    def _faults(self) -> list[str]:
        faults = [
            f"{name} must be letters, digits, - or _, and none of MLflow's own, got {alias!r}"
            for name, alias in (("alias", self.alias), ("candidate", self.candidate))
            if not ALIAS.fullmatch(alias) or RESERVED.fullmatch(alias)
        ]
        if self.confirm not in {"", "prefect"}:
            faults.append(f'confirm must be "prefect" or be left out, got {self.confirm!r}')
        if self.alias == self.candidate:
            faults.append(f"alias and candidate must differ, got {self.alias!r} twice: whoever asks moves it")
        if is_earned(self.alias):
            faults.append(
                f"alias must be another than {self.alias}, which new soups get without the gate; "
                f"candidate = {self.alias!r} has the gate judge each of them"
            )
        faults += [
            f"{name} must be a positive number, got {limit!r}"
            for name, limit in (("max_latency", self.max_latency), ("max_size", self.max_size))
            if limit is not None and not (limit > 0 and math.isfinite(limit))
        ]
        faults += [
            f"signed_by must name files by their whole path, got {file!r}: workers read it"
            for file in self.signed_by
            if not Path(file).is_absolute()
        ]
        if len(set(self.splits)) < len(self.splits):
            return [*faults, f"split and shifts must be different splits, got {', '.join(self.splits)}"]
        try:
            self.request("MODEL")
        except StockpotError as error:
            faults.append(error.what)
        return faults

    @property
    def splits(self) -> tuple[str, ...]:
        """The suite, the primary split first."""
        return (self.split, *self.shifts)

    @property
    def digest(self) -> Digest:
        """Names what is asked; part of each decision."""
        return digest_of_document(to_document(self))

    @property
    def keys(self) -> tuple[Path, ...]:
        """The public keys; none where no signature is asked for."""
        return tuple(map(Path, self.signed_by))

    def request(self, model: str) -> SoupRequest:
        """How to measure, in the words of a request: its sweep is none."""
        return SoupRequest(
            model=model,
            task=self.task,
            task_args=self.task_args,
            sweep=PLACEHOLDER,
            select_on=next(name for name in ("validation", "held-out", "-") if name not in self.splits),
            report_on=self.split,
            shifts=self.shifts,
            statistics_on=next(name for name in ("train", "statistics", "-") if name not in self.splits),
            margin=self.margin,
        )


@dataclass(frozen=True)
class Policies:
    """All policies of a file, by the registered model's name."""

    file: Path
    models: Mapping[str, Policy]

    def of(self, model: str) -> Policy:
        """The model's. Raises BadRequest where there is none."""
        if model not in self.models:
            there = f"there are {listed(sorted(self.models))}{near(model, self.models)}"
            raise BadRequest(
                f"{self.file} has no policy for the model {model!r}: {there}",
                mend=f"write a table for it. For example:\n\n{EXAMPLE}",
            )
        return self.models[model]


def read_policies(file: Path) -> Policies:
    """Read a file of policies. Raises BadRequest, naming all faults of all tables at once."""
    mend = f"write it, or name another one: --policies FILE, or STOCKPOT_POLICIES. For example:\n\n{EXAMPLE}"
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRequest(f"the policies {file} cannot be read: {error.strerror}", mend=mend) from error
    except (ValueError, RecursionError) as error:  # no TOML, or no text
        raise BadRequest(f"the policies {file} are no TOML: {error}", mend="mend that line") from error
    found, faults = _policies(document)
    if faults:
        raise BadRequest(
            f"the policies {file} cannot be used",
            faults=faults,
            mend=f"mend the file. For example:\n\n{EXAMPLE}",
        )
    return Policies(file, found)


def _policies(document: Mapping[str, Any]) -> tuple[dict[str, Policy], list[str]]:
    faults = [f"{name} is unknown{near(name, {'model'})}" for name in document if name != "model"]
    tables = document.get("model", {})
    if not isinstance(tables, dict) or not tables:
        return {}, [*faults, "there is no policy: write a table [model.NAME] for each registered model"]
    found = {}
    for model, table in tables.items():
        where = f"model {model!r}: "
        if not isinstance(table, dict):
            faults.append(f"{where}a policy is a table: [model.{model}]")
            continue
        wrong = _wrong_names(table)
        if table.get("signed_by") == []:
            wrong.append("signed_by names no key: name one, or leave it out where none is needed")
        faults += [f"{where}{fault}" for fault in wrong]
        if not wrong:
            try:
                found[model] = Policy(**table)
            except BadRequest as error:
                faults += [f"{where}{fault}" for fault in error.faults]
            else:
                faults += [
                    f"{where}signed_by: {fault}" for fault in map(_key_fault, found[model].keys) if fault
                ]
    return found, faults


def _key_fault(file: Path) -> str:
    """Why this is no public key; empty where it may be one."""
    try:
        if not file.is_file():
            return f"{file} is no regular file" if file.exists() else f"{file} is not there"
        with file.open("rb") as opened:
            content = opened.read(MOST_OF_A_KEY)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    if b"PRIVATE KEY-----" in content:
        return f"{file} is a private key: openssl ec -in {file} -pubout -out public.pem makes its public one"
    return "" if b"-----BEGIN PUBLIC KEY-----" in content else f"{file} holds no public key in PEM"


def _wrong_names(table: Mapping[str, Any]) -> list[str]:
    known = {one.name: one for one in fields(Policy)}
    unknown = [f"{name} is unknown{near(name, known)}" for name in table if name not in known]
    needed = [name for name, one in known.items() if one.default is one.default_factory is MISSING]
    return unknown + [f"{name} is missing" for name in needed if name not in table]
