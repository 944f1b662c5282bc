"""Does a posed generator turn the head as asked? Asked angles against those that a linear map reads from the pictures.

    python benchmarks/pose.py --weights runs/posed --images runs/cemiface_tiny/images --work runs/pose

The map goes from the generator's own latents to the angles: ridge regression on rendered pictures whose pose is
known, its penalty chosen on others, its error stated beside every result, because no answer can be better than the
ruler. Then people of the validation split are drawn with poses from a range, and once without one.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

import stages
from common import write_result
from synface.models.denoisers import generator as generators
from synface.models.denoisers.generator import Generator
from synface.ops.runs import say
from synface.store import images, tables
from synface.train.diffusion import RidgeSums
from synface.train.prepared import encode

PENALTIES = (10.0, 100.0, 1000.0, 10000.0)
DOMAIN, FIRST = "heads-real", 120_000  # of the validation split's people
Map = tuple[np.ndarray, np.ndarray]


def read(module: Generator, uri: str, names: Sequence[str], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents float32 [n, k] and stated angles float32 [n, a] (degrees) of a table's first pictures."""
    assert module.autoencoder is not None
    latents, angles, count = [], [], 0
    for table in tables.iter_images(uri, ["image", "attributes"]):
        table = table.slice(0, limit - count)
        pixels = np.stack([images.decode(row["bytes"], uri) for row in table["image"].to_pylist()])
        latents.append(encode(module.autoencoder, pixels, "cpu").astype(np.float32).reshape(len(pixels), -1))
        column: Any = table["attributes"].combine_chunks()
        stated = [column.field(n).to_numpy(zero_copy_only=False) for n in names if n in column.type.names]
        angles.append(np.stack(stated, 1) if stated else np.zeros((len(pixels), 0)))
        count += len(pixels)
        if count >= limit:
            break
    return np.concatenate(latents), np.concatenate(angles).astype(np.float32)


def fitted(latent_nk: np.ndarray, angle_na: np.ndarray) -> tuple[Map, dict[str, Any]]:
    """The map, and its error on the last fifth, which chose the penalty."""
    cut = len(latent_nk) * 4 // 5
    sums = RidgeSums(latent_nk.shape[1], angle_na.shape[1])
    sums.add(latent_nk[:cut], angle_na[:cut])
    tried = {}
    for penalty in PENALTIES:
        found = sums.solve(penalty)
        tried[penalty] = np.abs(latent_nk[cut:] @ found[0] + found[1] - angle_na[cut:]).mean(0), found
    best = min(tried, key=lambda p: float(tried[p][0].sum()))
    error_a, found = tried[best]
    spread_a = np.abs(angle_na[cut:] - angle_na[:cut].mean(0)).mean(0)
    facts = {"penalty": best, "mean_error": error_a.tolist(), "mean_error_of_the_mean": spread_a.tolist()}
    return found, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True, help="rendered pictures that state their pose")
    parser.add_argument("--work", required=True, help="folder that keeps what was made")
    parser.add_argument("--scorer", default="heads-fr-tiny")
    parser.add_argument("--pictures", type=int, default=8000, help="that the map is fitted and tested on")
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--m", type=float, default=0.75)
    parser.add_argument("--degrees", default="-40,40")
    asked = parser.parse_args()
    module, stated = generators.from_pretrained(asked.weights)
    names = module.denoiser.config.pose
    ruler, facts = fitted(*read(module, asked.images, names, asked.pictures))
    say(
        f"pose: the map errs by {facts['mean_error']} degrees on average, their mean alone by "
        f"{facts['mean_error_of_the_mean']}"
    )
    pictures = stages.generate(
        f"{asked.work}/inquiry_images", generator="heads", domain=DOMAIN, heads={"split": "val"}, first_seed=FIRST,
        num_identities=asked.people, images_per_identity=2, image_size=stated.input_size,
    )  # fmt: skip
    people = stages.embed(f"{asked.work}/people", images=pictures, weights=asked.scorer)
    wanted = {name: {"range": stages.numbers(asked.degrees)} for name in names}
    lines: dict[str, Any] = {"map": facts}
    for name, pose in (("posed", wanted), ("any", None)):
        variation = {"m": asked.m} | ({} if pose is None else {"pose": pose})
        made = stages.draw(f"{asked.work}/{name}", asked.weights, people, asked.samples, variation)
        latent, angle = read(module, made, names, asked.people * asked.samples)
        seen = latent @ ruler[0] + ruler[1]
        lines[name] = {"spread_seen": dict(zip(names, seen.std(0).round(2).tolist(), strict=True))}
        for i, one in enumerate(names if angle.shape[1] else ()):
            slope = float(np.polyfit(angle[:, i], seen[:, i], 1)[0])
            lines[name][one] = {
                "correlation": round(float(np.corrcoef(angle[:, i], seen[:, i])[0, 1]), 3),
                "slope": round(slope, 3),
                "mean_error": round(float(np.abs(angle[:, i] - seen[:, i]).mean()), 2),
            }
        say(f"pose: {name}: {lines[name]}")
    write_result("pose", {**lines, "angles": list(names), "settings": vars(asked)})


if __name__ == "__main__":
    main()
