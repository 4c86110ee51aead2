"""Under which protocol a score was measured: what was asked, and how it was computed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from stockpot.entities.digest import Digest, digest_of_document

_WORDS = {
    "task_version": "version of the task",
    "task_args": "argument",
    "n": "number of examples",
    "modules": "module",
    "distributions": "package",
    "dtype": "type of numbers",
    "tf32": "TF32",
    "batch_size": "batch size",
    "torch_version": "torch",
}
"""What people call a field, or an entry of it, where its own name is not what they say."""


@dataclass(frozen=True)
class Question:
    """What is asked of weights: a task's measure of one split. It is the same one on every machine."""

    task: str
    task_version: str
    """The task's own ``version`` and a hash of the modules that it consists of."""
    task_args: tuple[tuple[str, str], ...]
    """Files and folders by what they hold (`stockpot.tasks.arguments`): where they lie is no part of it."""
    split: str
    dataset: Digest
    n: int
    """Number of examples in the split."""
    modules: tuple[tuple[str, str], ...] = ()
    """The user's own modules that the task consists of, each with a hash of its file."""
    distributions: tuple[tuple[str, str], ...] = ()
    """What is installed and imported by those, with its version."""
    aim: str | None = None
    """Of bounds on a number of several domains: how it is made of the scores, which have none themselves."""

    @cached_property
    def digest(self) -> Digest:
        """The name of all of it."""
        return digest_of_document(_document(self))


@dataclass(frozen=True)
class Conditions:
    """How scores are computed: what decides their rounding."""

    dtype: str
    tf32: bool
    batch_size: int
    device: str
    """Device model, for example "cpu x86_64 AVX512" or "NVIDIA H100 80GB HBM3"."""
    torch_version: str
    software: tuple[tuple[str, str], ...] = ()
    """Below torch on the device: versions of CUDA, cuDNN and the driver."""

    @cached_property
    def digest(self) -> Digest:
        """The name of all of it."""
        return digest_of_document(_document(self))


@dataclass(frozen=True)
class EvaluationProtocol:
    """Everything that a score depends on, apart from the weights: a question under conditions."""

    question: Question
    conditions: Conditions

    @cached_property
    def digest(self) -> Digest:
        """The name under which scores are remembered: of both parts' fields in one document, as it was
        before a protocol had parts.
        """
        return digest_of_document(_document(self.question) | _document(self.conditions))

    @property
    def task(self) -> str:
        """The question's."""
        return self.question.task

    @property
    def split(self) -> str:
        """The question's."""
        return self.question.split

    @property
    def dataset(self) -> Digest:
        """The question's."""
        return self.question.dataset

    @property
    def n(self) -> int:
        """The question's."""
        return self.question.n

    def aimed(self, aim: str) -> "EvaluationProtocol":
        """What bounds on a number are kept under that is made in this way."""
        return replace(self, question=replace(self.question, aim=aim))

    def differences(self, other: "EvaluationProtocol") -> tuple[str, ...]:
        """A clause for each thing that is not the same, such as "batch size: 256 here, 128 there".

        Here is this protocol; there is the other one. Of modules, packages and the like, those that differ.
        Empty where the digests are equal.
        """
        parts = ((self.question, other.question), (self.conditions, other.conditions))
        return tuple(clause for ours, theirs in parts for clause in _differences(ours, theirs))


def _document(part: Question | Conditions) -> dict[str, Any]:
    """What is empty has no part in it: protocols that were stored before those fields keep their names."""
    later = ("modules", "distributions", "software", "aim")
    return {name: value for name, value in asdict(part).items() if value or name not in later}


def _differences(ours: Question | Conditions, theirs: Question | Conditions) -> Iterator[str]:
    for field in fields(ours):
        name, here, there = field.name, getattr(ours, field.name), getattr(theirs, field.name)
        what = _WORDS.get(name, name)
        if not isinstance(here, tuple):
            entries = [(what, here, there)]
        else:
            here, there = dict(here), dict(there)
            keys = sorted({*here, *there})
            entries = [(f"{what} {key}", here.get(key, "none"), there.get(key, "none")) for key in keys]
        yield from (f"{entry}: {here} here, {there} there" for entry, here, there in entries if here != there)
