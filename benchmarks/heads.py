"""Speed of the head renderer on one core: images per second, and the time of an identity change.

    python benchmarks/heads.py            # one JSON line

Processor time of the one thread (so that other processes count less), warm kernels, 16 pictures per identity,
everyday mix of the heads-real domain.
"""

import argparse
import time

from common import write_result
from synface.models.heads import HeadRenderer, sample_identity, sample_variation
from synface.models.heads.assets import load_assets, morph
from synface.models.heads.hair import build_hair
from synface.models.heads.identity import morph_weights
from synface.models.heads.skin import bake_skin


def images_per_second(size: int, identities: int, pictures: int, shadows: bool = True) -> float:
    renderer = HeadRenderer(size, shadows=shadows)
    start = time.thread_time()
    for seed in range(identities):
        identity = sample_identity("heads-real", 10_000 + seed)
        for sample in range(pictures):
            renderer.render(identity, sample_variation("heads-real", seed, sample))
    return identities * pictures / (time.thread_time() - start)


def identity_milliseconds(identities: int) -> float:
    assets = load_assets()
    start = time.thread_time()
    for seed in range(identities):
        identity = sample_identity("heads-real", 20_000 + seed)
        build_hair(identity, morph(assets, assets.base, morph_weights(identity)))
        bake_skin(identity, 384)
    return 1000 * (time.thread_time() - start) / identities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--identities", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=16)
    args = parser.parse_args()
    start = time.thread_time()
    images_per_second(112, 2, 8)
    first = time.thread_time() - start
    result = {
        "first_16_images_s": round(first, 2),
        "images_per_s_112": round(images_per_second(112, args.identities, args.pictures), 1),
        "images_per_s_112_no_shadows": round(images_per_second(112, args.identities, args.pictures, False), 1),
        "images_per_s_64": round(images_per_second(64, args.identities, args.pictures), 1),
        "identity_ms": round(identity_milliseconds(16), 1),
    }
    write_result("heads", result)


if __name__ == "__main__":
    main()
