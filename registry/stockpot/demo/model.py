"""The network of the demo's sweep."""

from torch import Tensor, nn


class DigitsNet(nn.Module):
    """A small convolutional network for 8x8 grey images: ``[n, 1, 8, 8]`` to ``[n, 10]``.

    GroupNorm in place of BatchNorm: it keeps no statistics that an average of weights would spoil.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
            nn.GroupNorm(4, 2 * width),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(2 * width * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, ``[n, 10]``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def make_digits_net() -> DigitsNet:
    """The architecture that the demo's task names: ``stockpot.demo.model:make_digits_net``."""
    return DigitsNet()
