"""What a score was measured under, in lines for people."""

from collections.abc import Iterator, Sequence

from stockpot.entities import EvaluationProtocol


def protocol_lines(protocol: EvaluationProtocol) -> Iterator[str]:
    """One line per kind of thing that a score depends on besides the weights; nothing for what is empty."""
    yield f"task        {protocol.task} {protocol.task_version}"
    tf32 = "on" if protocol.tf32 else "off"
    parts = {
        "arguments": _joined(protocol.task_args, "="),
        "modules": _joined(protocol.modules, " "),
        "imports": _joined(protocol.distributions, " "),
        "device": f"{protocol.device}, torch {protocol.torch_version}",
        "below torch": _joined(protocol.software, " "),
        "numbers": f"{protocol.dtype}, TF32 {tf32}, batches of {protocol.batch_size}",
    }
    for name, told in parts.items():
        if told:
            yield f"{name:<11} {told}"


def _joined(pairs: Sequence[tuple[str, str]], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in pairs)
