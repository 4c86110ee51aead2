"""Words for people."""


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: 1 run, 2 runs, 3,000 passes."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
