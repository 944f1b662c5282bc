"""A few pictures of heads-v1 as they were when it was pinned; run as a script it draws them anew."""

from pathlib import Path

import numpy as np
from PIL import Image

from synface.evaluate import heads_benchmark as hb
from synface.models import heads

GOLDEN = Path(__file__).parent / "golden" / "heads-v1.png"
PEOPLE, SIZE = (0, 1, 100, 199), 64


def strip() -> np.ndarray:
    """Identities in rows, stresses in columns, uint8 [4 * size, 4 * size, 3]."""
    renderer, rows = heads.HeadRenderer(SIZE), []
    for i in PEOPLE:
        seed = hb.pinned("heads-v1")["identities"][i]
        identity = heads.sample_identity(hb.DOMAIN, seed)
        keys = hb.picture_key("heads-v1", seed, 0)
        variations = [heads.sample_variation(hb.DOMAIN, *keys, stress=s) for s in hb.STRESSES]
        rows.append(np.concatenate([renderer.render(identity, v).image for v in variations], 1))
    return np.concatenate(rows, 0)


def test_pictures_are_those_of_the_pinned_benchmark():
    now, then = strip().astype(int), np.asarray(Image.open(GOLDEN).convert("RGB")).astype(int)
    assert now.shape == then.shape
    gap = np.abs(now - then)
    # other machines round differently here and there; another renderer moves whole faces
    assert gap.mean() < 0.5, "the renderer draws other pictures: raise RENDERER_VERSION and pin heads-v2"
    assert (gap > 24).mean() < 0.005


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    Image.fromarray(strip()).save(GOLDEN)
