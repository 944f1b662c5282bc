"""Speed of the head renderer on one core: images per second, and the time of an identity change.

    python benchmarks/heads.py            # one JSON line

Processor time of the one thread (so that other processes count less), warm kernels, everyday mix of the heads-real
domain. `warm` is the renderer itself (people built); the other figures include a new person every 16 pictures.
"""

import argparse
import time

from common import write_result
from synface.models.heads import HeadRenderer, sample_identity, sample_variation
from synface.models.heads.assets import load_assets, morph
from synface.models.heads.hair import build_hair
from synface.models.heads.identity import morph_weights
from synface.models.heads.skin import bake_skin


def images_per_second(size: int, people: int, pictures: int, shadows: bool = True) -> float:
    """With everything that a new person costs, `pictures` of each."""
    renderer = HeadRenderer(size, shadows=shadows)
    start = time.thread_time()
    for seed in range(people):
        identity = sample_identity("heads-real", 10_000 + seed)
        for sample in range(pictures):
            renderer.render(identity, sample_variation("heads-real", seed, sample))
    return people * pictures / (time.thread_time() - start)


def warm_images_per_second(size: int, pictures: int, rounds: int, shadows: bool = True) -> float:
    """Of people whose meshes are built: the best of several rounds (a shared host only ever slows one down)."""
    renderer = HeadRenderer(size, shadows=shadows)
    people = [sample_identity("heads-real", 30_000 + seed) for seed in range(3)]
    best = 0.0
    for _ in range(rounds + 1):  # the first round builds the people
        start = time.thread_time()
        for seed, identity in enumerate(people):
            for sample in range(pictures):
                renderer.render(identity, sample_variation("heads-real", seed, sample))
        best = max(best, len(people) * pictures / (time.thread_time() - start))
    return best


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
    parser.add_argument("--rounds", type=int, default=5, help="of the warm figures; the best counts")
    args = parser.parse_args()
    start = time.thread_time()
    images_per_second(112, 2, 8)
    first = time.thread_time() - start
    result = {
        "first_16_images_s": round(first, 2),
        "warm_images_per_s_112": round(warm_images_per_second(112, args.pictures, args.rounds), 1),
        "warm_images_per_s_112_no_shadows": round(warm_images_per_second(112, args.pictures, args.rounds, False), 1),
        "warm_images_per_s_64": round(warm_images_per_second(64, args.pictures, args.rounds), 1),
        "images_per_s_112": round(images_per_second(112, args.identities, args.pictures), 1),
        "images_per_s_64": round(images_per_second(64, args.identities, args.pictures), 1),
        "identity_ms": round(identity_milliseconds(16), 1),
    }
    write_result("heads", result)


if __name__ == "__main__":
    main()
