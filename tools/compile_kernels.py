"""Compile the kernels of the head renderer and of the augmentation once, into numba's cache: `make` calls it.

Half a minute that would otherwise be paid by every process of the first run.
"""

import numpy as np

from synface.models import heads
from synface.train import augment
from synface.train.config import Augmentation

PEOPLE, PICTURES = 4, 12


def main() -> None:
    """Render and augment enough that every kernel is compiled."""
    renderer = heads.HeadRenderer(64)
    for domain in heads.DOMAINS:
        for person in range(PEOPLE):  # enough that glasses, blur, compression and every kind of hair occur
            identity = heads.sample_identity(domain, person)
            for stress in ("any", "quality"):
                for picture in range(PICTURES):
                    renderer.render(identity, heads.sample_variation(domain, person, picture, stress=stress))
    images = np.zeros((4, 64, 64, 3), np.uint8)
    strong = Augmentation(low_resolution=1.0, noise=0.1, erasing=1.0, hue=0.1)
    augment.apply(images, augment.draw(strong, 0, 0, np.arange(4), 64))


if __name__ == "__main__":
    main()
