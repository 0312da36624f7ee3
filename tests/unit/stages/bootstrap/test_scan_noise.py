"""Scan noise: a function of its seed that leaves a picture readable."""

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from data_prep.config import ReadingConfig
from stages.bootstrap.scan_noise import MILD, NoisyScans, ScanNoise, noisy

CONFIG = ReadingConfig()
NONE = ScanNoise(degrees=0, blur=0, jpeg_loss=0, lost_contrast=0, shade=0, grain=0)


def picture(rows: int = 2) -> np.ndarray:
    """Rows of bars, like letters."""
    random = np.random.default_rng(3)
    bars = np.where(random.random((rows, 160)) < 0.4, 20, 255).astype(np.uint8)
    whole = np.full((rows * 16, 640), 255, np.uint8)
    for row in range(rows):
        whole[row * 16 + 3 : row * 16 + 13] = np.repeat(bars[row], 4)
    return whole


def scanned(noise: ScanNoise, seed: int = 1) -> np.ndarray:
    return noisy(picture(), noise, CONFIG, np.random.default_rng(seed))


def test_equal_seeds_give_equal_scans_of_the_same_size_and_others_differ():
    assert scanned(MILD).shape == picture().shape
    assert np.array_equal(scanned(MILD), scanned(MILD))
    assert not np.array_equal(scanned(MILD), scanned(MILD, seed=2))


def test_no_noise_changes_next_to_nothing_and_more_changes_more():
    def change(noise: ScanNoise) -> float:
        clean = picture().astype(float)
        return float(np.mean([abs(scanned(noise, seed) - clean).mean() for seed in range(20)]))

    assert change(NONE) < 3  # JPEG of the best quality
    assert change(NONE) < change(MILD) < change(ScanNoise())


def test_a_page_askew_moves_the_ends_of_each_row_apart_and_no_row_into_another():
    askew = scanned(replace(NONE, degrees=3.0), seed=4)
    first, second = np.split(askew, 2)
    for row in (first, second):
        middles = [
            np.average(np.arange(16), weights=255.0 - part.mean(axis=1) + 1e-3)
            for part in (row[:, :160], row[:, -160:])
        ]
        assert abs(middles[0] - middles[1]) > 1
    changed = picture()
    changed[16:] = 255
    other = noisy(changed, replace(NONE, degrees=3.0), CONFIG, np.random.default_rng(4))
    assert abs(other[:8].astype(int) - askew[:8]).max() <= 40  # JPEG looks at blocks


@dataclass(frozen=True)
class Shown:
    """A sample, as far as it is looked at."""

    png: bytes

    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.png))


def png_of(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


PNG = png_of(picture())


class Pictures:
    """A source of a hundred equal pictures."""

    shard_sizes = np.array([100])

    def __len__(self) -> int:
        return 100

    def __getitem__(self, position: int) -> Shown:
        return Shown(png=PNG)


def test_a_share_of_a_source_is_scanned_and_always_the_same():
    def pictures(seed: int) -> list[bytes]:
        scans = NoisyScans(Pictures(), share=0.3, noise=MILD, reading=CONFIG, seed=seed)
        return [scans[position].png for position in range(100)]

    first = pictures(1)
    assert 15 < sum(png != PNG for png in first) < 45
    assert first == pictures(1) != pictures(2)
    assert len({png for png in first if png != PNG}) == sum(png != PNG for png in first)
