"""Classification of images that lie in folders, or in parquet files as the datasets library writes them."""

import hashlib
import io
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stockpot.tasks.huggingface.base import (
    LABELS,
    Batch,
    Example,
    FolderTask,
    class_faults,
    right,
    without_faults,
)
from stockpot.tasks.huggingface.data import SUFFIXES, refuse
from stockpot.tasks.huggingface.labels import Classes

IMAGE = ("image", "img", "pixel_values")
LABEL = ("label", "labels", "fine_label")
"""Usual names of columns with images, and with their classes."""
KINDS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""What torchvision's ImageFolder takes for an image, and ``.gif``."""


@dataclass(frozen=True)
class Images(Sequence[Example]):
    """A split's images, in the order of the data: a map-style dataset, which reads one when it is asked."""

    processor: Any
    images: Sequence[Path | bytes]
    labels: Sequence[int]
    places: Sequence[str]
    origins: Sequence[Hashable] | None = None
    domains: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        from PIL import Image

        image = self.images[index]
        try:
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
                pixels = self.processor(images=[opened.convert("RGB")], return_tensors="pt")["pixel_values"]
        except (OSError, ValueError, SyntaxError) as error:  # pillow's, for files that are no images
            raise ValueError(f"{self.places[index]}: no image that can be read: {error}") from error
        return {"pixel_values": pixels[0], LABELS: torch.tensor(self.labels[index])}

    @property
    def digest(self) -> str:
        """Of the images' files, their order, their classes, and what the processor does to them."""
        content = hashlib.sha256(self.processor.to_json_string().encode())
        for image, label in zip(self.images, self.labels, strict=True):
            whole = image if isinstance(image, bytes) else image.read_bytes()
            content.update(hashlib.sha256(whole).digest() + str(label).encode())
        return content.hexdigest()


class ImageClassification(FolderTask):
    """Accuracy of a model that chooses a class for an image: an example scores 1 where the largest output is
    its class's.

    A split is a folder with a subfolder for each class, ``validation/cat/1.png``, as torchvision's and
    datasets' ImageFolder have it, or parquet files. Labels are numbers of classes (not as folders' names),
    or their names in the model's ``label2id`` or in `labels`. Images of parquet files stay in memory as they
    are there; those of folders are read when they are needed.
    """

    kind = "AutoModelForImageClassification"
    needs = ("vision", "transformers", "PIL")
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __init__(
        self,
        *,
        data: str,
        model: str,
        image: str = "",
        label: str = "",
        labels: str = "",
        group: str = "",
        batch_size: str = "64",
        dtype: str = "",
    ) -> None:
        """`data`: a folder or a file (`stockpot.tasks.huggingface.data.Splits`); `model`: a folder with
        ``config.json`` and an image processor; `image`, `label`, `group`: columns of parquet files; `labels`:
        names of the model's classes, in its order, where its configuration has others.
        """
        self._image, self._label, self._labels = image, label, labels
        super().__init__(data, model, batch_size=batch_size, group=group, dtype=dtype)
        self._processor = self._folder.image_processor()

    def collate(self, examples: list[Example]) -> Batch:
        """``pixel_values``, ``[examples, channels, height, width]``, in the model's dtype, and the labels."""
        batch = super().collate(examples)
        return {**batch, "pixel_values": batch["pixel_values"].to(self._folder.dtype)}

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:
        """1 where the largest output is the class's, else 0; NaN where an output is NaN."""
        return right(outputs, batch[LABELS])

    def _model_faults(self, config: Any) -> list[str]:
        self._classes = Classes(config, self._labels)
        self._folder.tell(self._classes.told)
        return class_faults(config) + self._classes.faults

    def _open(self, split: str) -> Images:
        places = self._data.place(split)
        [place] = places[:1]
        faults: list[str] = []
        if place.is_dir() and not any(file.suffix in SUFFIXES for file in place.iterdir()):
            images = list(_images_in(place))
            stands = [str(file.relative_to(place.parent)) for file in images]
            named = [file.relative_to(place).parts[0] for file in images]
            if self._group:
                faults.append("group names a column, and folders of images have none")
            labels = self._classes.numbers(named, stands, faults, "the folder")
            return self._checked(split, Images(self._processor, images, labels, stands), faults)
        table = self._data.table(split)
        image = without_faults(lambda: table.chosen("image", self._image, IMAGE), faults, "")
        label = without_faults(lambda: table.chosen("label", self._label, LABEL), faults, "")
        origins = without_faults(lambda: self._origins(table), faults, None)
        stands = list(table.places())
        found = [_bytes_of(value) for value in table.column(image)] if image else []
        faults += [
            f"{stand}: {image} holds no bytes of an image"
            for stand, value in zip(stands, found, strict=bool(image))
            if not value
        ]
        labels = self._classes.numbers(table.column(label), stands, faults, label) if label else []
        return self._checked(
            split, Images(self._processor, found, labels, stands, origins, table.domains()), faults
        )

    def _checked(self, split: str, images: Images, faults: Sequence[str]) -> Images:
        if faults:
            refuse(f"split {split!r} of {self._data.path} cannot be used", faults, self._classes.mend)
        return images


def _images_in(folder: Path) -> Iterable[Path]:
    """The images of each class, class by class in the order of their names."""
    for kind in sorted(place for place in folder.iterdir() if place.is_dir()):
        yield from sorted(file for file in kind.rglob("*") if file.suffix.lower() in KINDS and file.is_file())


def _bytes_of(value: Any) -> bytes:
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else b""
