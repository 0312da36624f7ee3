"""What printing, copying and scanning do to a passage's picture, as augmentation of a base's training.

`noisy` is a function of its seed. A page that lies askew moves each row up or down along its length; the
other faults are of the whole picture.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from data_prep.config import ReadingConfig
from data_prep.samples import Sample
from data_prep.shards import ShardSource


@dataclass(frozen=True, kw_only=True)
class ScanNoise:
    """The most of each fault; each picture gets a share of it."""

    degrees: float = 1.0
    """That the page lies askew."""
    blur: float = 0.8
    """Standard deviation in pixels."""
    jpeg_loss: int = 70
    """Of 100 points of quality."""
    lost_contrast: float = 0.5
    shade: float = 50.0
    """Greys between the lightest and the darkest edge of the paper."""
    grain: float = 12.0
    """Standard deviation in greys."""


MILD = ScanNoise(degrees=0.3, blur=0.4, jpeg_loss=40, lost_contrast=0.25, shade=20.0, grain=5.0)
"""What a good scanner leaves."""


class NoisyScans:
    """A source of which a share of the pictures are scanned; a sample's noise is always the same."""

    def __init__(
        self, source: ShardSource, *, share: float, noise: ScanNoise, reading: ReadingConfig, seed: int
    ) -> None:
        self._source, self._share, self._noise = source, share, noise
        self._reading, self._seed = reading, seed
        self.shard_sizes = source.shard_sizes

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Sample:
        sample = self._source[position]
        random = np.random.default_rng((self._seed, position))
        if random.random() >= self._share:
            return sample
        picture, png = noisy(np.asarray(sample.image()), self._noise, self._reading, random), io.BytesIO()
        Image.fromarray(picture).save(png, "PNG", compress_level=0)
        return replace(sample, png=png.getvalue())

    def length(self, position: int) -> int:
        return self._source.length(position)

    def texts(self) -> Iterator[str]:
        return self._source.texts()


def noisy(
    picture: np.ndarray, most: ScanNoise, reading: ReadingConfig, random: np.random.Generator
) -> np.ndarray:
    """Return a picture (height, width) uint8 of rows as a scan shows it, of the same size."""
    rows = np.split(picture, len(picture) // reading.pixel_multiple)
    # Rows are drawn `row_stretch` times wider than they were printed.
    slope = np.tan(np.radians(random.uniform(-most.degrees, most.degrees))) / reading.row_stretch
    image = Image.fromarray(np.vstack([_askew(row, slope) for row in rows]))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, most.blur)))
    greys = np.asarray(image, np.float32)
    contrast = 1 - random.uniform(0, most.lost_contrast)
    darkest = random.uniform(0, 255 * (1 - contrast))
    height, width = picture.shape
    across, down = random.uniform(-0.5, 0.5, 2) * most.shade
    shade = across * np.linspace(-1, 1, width, dtype=np.float32) + down * np.linspace(-1, 1, height)[:, None]
    grain = random.normal(0, random.uniform(0, most.grain), picture.shape)
    greys = np.clip(greys * contrast + darkest + shade + grain, 0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(greys).save(content, "JPEG", quality=100 - int(random.integers(0, most.jpeg_loss + 1)))
    return np.array(Image.open(content))


def _askew(row: np.ndarray, slope: float) -> np.ndarray:
    """Return a row whose left end sinks by as much as its right end rises; paper comes in at the edges."""
    width = row.shape[1]
    matrix = (1, 0, 0, slope, 1, -slope * width / 2)
    image = Image.fromarray(row)
    return np.asarray(
        image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=int(row.max())
        )
    )
