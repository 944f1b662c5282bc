"""Smooth pictures of 'people' that cost nothing to make."""

import io

import numpy as np
from PIL import Image

from synface.core.rng import generator

SIZE = 32


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def blob(person, sample, size=SIZE):
    """A smooth picture of a 'person': the same low-frequency pattern with a little noise."""
    base = generator("blob", person).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(base).resize((size, size), Image.Resampling.BICUBIC), np.int16)
    noise = generator("noise", person, sample).integers(-40, 41, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)
