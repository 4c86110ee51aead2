"""What a score was measured under, in lines for people."""

from collections.abc import Iterator, Mapping, Sequence

from stockpot.entities import Digest, EvaluationProtocol, short


def protocol_lines(protocol: EvaluationProtocol, given: Mapping[str, str]) -> Iterator[str]:
    """One line per kind of thing that a score depends on besides the weights; nothing for what is empty.

    `given`: the task's arguments as people gave them, with paths where the question has digests.
    """
    question, conditions = protocol.question, protocol.conditions
    args = question.task_args
    yield f"task        {question.task} {question.task_version}"
    tf32 = "on" if conditions.tf32 else "off"
    parts = {
        "arguments": _joined([(name, _told(value, given.get(name))) for name, value in args], "="),
        "modules": _joined(question.modules, " "),
        "imports": _joined(question.distributions, " "),
        "device": f"{conditions.device}, torch {conditions.torch_version}",
        "below torch": _joined(conditions.software, " "),
        "numbers": f"{conditions.dtype}, TF32 {tf32}, batches of {conditions.batch_size}",
    }
    for name, told in parts.items():
        if told:
            yield f"{name:<11} {told}"


def _joined(pairs: Sequence[tuple[str, str]], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in pairs)


def _told(value: str, given: str | None) -> str:
    return value if given in {None, value} else f"{given} ({short(Digest(value))})"
