"""An image is stored as it is."""

import io
import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw

from data_prep.parts import png_of
from tests.unit.data_prep.making import WORDS


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_a_png_is_whole_and_has_the_pixels_of_the_image(pixels):
    png = png_of(pixels)
    Image.open(io.BytesIO(png)).verify()
    stored = Image.open(io.BytesIO(png))
    assert (stored.format, stored.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(stored), pixels)


def test_a_png_of_print_is_hardly_larger_than_pillows():
    for lines in (1, 30):
        image = Image.new("L", (400, 16 * lines + 8), 255)
        for number in range(lines):
            text = " ".join(random.Random(number).sample(WORDS, 6))
            ImageDraw.Draw(image).text((4, 16 * number), text, fill=0)
        image.save(buffer := io.BytesIO(), format="PNG")
        assert len(png_of(np.asarray(image))) < 1.3 * len(buffer.getvalue())
