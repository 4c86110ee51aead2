"""The classes of a model, and labels of a data set as numbers of classes."""

from collections.abc import Iterable
from typing import Any

from stockpot.tasks.huggingface.data import shown


class Classes:
    """The classes that a model's configuration names, or `names`, in their order and separated by commas.

    `faults`: what is wrong with them; `told`: what a configuration says of `names`, empty without any.
    """

    def __init__(self, config: Any, names: str = "") -> None:
        known = {int(number): str(name) for number, name in config.id2label.items()}
        self.names = [known.get(number, f"LABEL_{number}") for number in range(config.num_labels)]
        self.faults: list[str] = []
        self.told: dict[str, dict[Any, Any]] = {}
        if names:
            given = [name.strip() for name in names.split(",")]
            if len(given) != len(self.names):
                self.faults = [f"labels names {len(given)} classes, the model has {len(self.names)}"]
            else:
                self.names = given
                self.told["id2label"] = dict(enumerate(given))
                self.told["label2id"] = {name: number for number, name in enumerate(given)}
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def number(self, label: Any) -> int | None:
        """The class that a label of the data stands for: its number, or its name. None for neither."""
        if isinstance(label, int):
            return int(label) if 0 <= label < len(self.names) else None
        return self._numbers.get(label) if isinstance(label, str) else None

    def numbers(
        self, labels: Iterable[Any], places: Iterable[str], faults: list[str], column: str
    ) -> list[int]:
        """The class of each label; a label that is none becomes a fault with its place, and class -1."""
        found = []
        for label, place in zip(labels, places, strict=True):
            number = self.number(label)
            if number is None:
                what = f"{label!r} is none of the model's classes" if label is not None else "is missing"
                faults.append(f"{place}: {column} {what}")
            found.append(-1 if number is None else number)
        return found

    @property
    def mend(self) -> str:
        """What to do about labels that are no classes."""
        known = shown(f"{name} ({number})" for number, name in enumerate(self.names))
        return (
            f"the model's classes are {known}; mend these rows, or name the classes in the model's order: "
            "--task-arg labels=FIRST,SECOND"
        )
