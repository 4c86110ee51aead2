"""A watcher who keeps what it is told."""


class Listener:
    """Remembers stages and sentences, for tests."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.said: list[str] = []

    def start(self, stage: str, total: int) -> None:  # noqa: ARG002 - the port's
        """Remember the stage."""
        self.stages.append(stage)

    def advance(self, stage: str) -> None:
        """Remember nothing."""

    def say(self, message: str) -> None:
        """Remember the sentence."""
        self.said.append(message)
