"""Which crop of an FFHQ-placed face a recognizer prefers: the fixed one, or one by landmarks (docs/arc2face.md).

    python benchmarks/crop.py                    # some minutes of one core
    python benchmarks/crop.py --people 20        # a try

The people and circumstances of heads-val are rendered as whole heads, without losses of a camera, and placed as
FFHQ's alignment places faces, by eyes and mouth, in 512 pixels, as Arc2Face and IDiff-Face draw them; then cut by
`store.images.face_crop` in both ways, by landmarks also with an error as a detector makes (normal, a share of the
distance of the eyes). Each way's crops are verified on the benchmark's own pairs. `rendered` is the crop that the
renderer itself makes, on which the recognizers were trained.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from common import write_result
from synface.core import crops, rng, scores
from synface.evaluate import heads_benchmark as benchmark
from synface.evaluate import verification
from synface.models import heads
from synface.models.embedding import Embedder
from synface.models.heads.degrade import Quality
from synface.ops.runs import say
from synface.store.images import face_crop

NAME = "heads-val"
#: side of a whole head's picture: its face is then as large as in a crop of half as many pixels
WHOLE = 512


def ffhq_frame(landmarks_52: np.ndarray) -> np.ndarray:
    """Picture to FFHQ's frame, [2, 3], pixels to pixels (Karras et al., arXiv 1812.04948, appendix C).

    The frame's x axis is the line of the eyes, averaged with the normal of the line from eyes to mouth; half its side
    the larger of 2 distances of the eyes and 1.8 of eyes and mouth; its centre a tenth of the way from eyes to mouth.
    """
    eyes, mouth = landmarks_52[:2].mean(0), landmarks_52[3:].mean(0)
    across, down = landmarks_52[1] - landmarks_52[0], mouth - eyes
    x = across + np.array([down[1], -down[0]])
    x *= max(2 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    corners = np.stack([centre - x - y, centre + x - y, centre + x + y])
    side = crops.FFHQ_SIZE - 0.5
    return crops.similarity_transform(corners, np.array([[-0.5, -0.5], [side, -0.5], [side, side]]))


def placed(picture: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The picture in FFHQ's frame, uint8 [512, 512, 3], bicubic."""
    back = crops.inverse(frame)
    # pillow counts from corners of pixels, landmarks from their centres
    shift = back[:, 2] + 0.5 - 0.5 * back[:, :2].sum(1)
    rows = np.column_stack([back[:, :2], shift]).ravel().tolist()
    size = (crops.FFHQ_SIZE, crops.FFHQ_SIZE)
    whole = Image.fromarray(picture).transform(size, Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)
    return np.asarray(whole)


def cut(stress: str, people: int, size: int, errors: list[float]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Way -> uint8 [people x 6, size, size, 3], and how far FFHQ's template is from the landmarks, pixels of 112."""
    direct, whole = heads.HeadRenderer(size), heads.HeadRenderer(WHOLE, full=True)
    ways: dict[str, list[np.ndarray]] = {"rendered": [], "fixed": []}
    ways.update({f"landmarks, error {e:g}": [] for e in errors})
    off, scale = [], crops.similarity_transform(crops.FFHQ_TEMPLATE, crops.template(crops.CROP_SIZE))
    for seed in benchmark.pinned(NAME)["identities"][:people]:
        person = heads.sample_identity(benchmark.DOMAIN, seed)
        for sample in range(benchmark.PICTURES):
            key = benchmark.picture_key(NAME, seed, sample)
            drawn = heads.sample_variation(benchmark.DOMAIN, *key, stress=stress)
            # blur and noise are relative to the picture, of which the face here is half
            variation = replace(drawn, quality=Quality())
            render = whole.render(person, variation)
            frame = ffhq_frame(render.landmarks.astype(np.float64))
            picture = placed(render.image, frame)
            marks = render.landmarks @ frame[:, :2].T + frame[:, 2]
            off.append(np.hypot(*((marks - crops.FFHQ_TEMPLATE) @ scale[:, :2].T).T))
            ways["rendered"].append(direct.render(person, variation).image)
            ways["fixed"].append(face_crop(picture, size))
            noise = rng.generator("crop", stress, seed, sample).standard_normal((5, 2))
            for error in errors:
                seen = marks + error * np.hypot(*(marks[1] - marks[0])) * noise
                ways[f"landmarks, error {error:g}"].append(face_crop(picture, size, seen))
    mean = np.mean(off, 0)
    return {k: np.stack(v) for k, v in ways.items()}, dict(
        zip(("eye_left", "eye_right", "nose", "mouth_left", "mouth_right"), mean.round(2).tolist(), strict=True)
    )


def pairs(stress: str, people: int) -> verification.Protocol:
    """The benchmark's pairs among the first people, by rows of `cut`."""
    found = benchmark.protocol_pairs(NAME, stress)
    first = benchmark.picture(stress, 0, 0)
    left, right = found.left_n - first, found.right_n - first
    keep = (left < people * benchmark.PICTURES) & (right < people * benchmark.PICTURES)
    return verification.Protocol(stress, left[keep], right[keep], found.same_n[keep], {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=benchmark.IDENTITIES, help="a multiple of 20")
    parser.add_argument("--recognizers", nargs="+", default=["heads-fr-tiny", "benchmarks/judge"])
    parser.add_argument("--errors", nargs="+", type=float, default=[0.0, 0.03, 0.06])
    parser.add_argument("--stresses", nargs="+", default=["frontal", "pose"])
    asked = parser.parse_args()
    loaded = {name: Embedder.from_pretrained(name) for name in asked.recognizers}
    (size,) = {one.size for one in loaded.values()}
    lines: dict[str, Any] = {}
    for stress in asked.stresses:
        images, off = cut(stress, asked.people, size, asked.errors)
        protocol = pairs(stress, asked.people)
        lines[stress] = {"template_off": off}
        for name, one in loaded.items():
            as_rendered = one.embed(images["rendered"])
            for way, crop in images.items():
                embedding = one.embed(crop, flip=True).astype(np.float64)
                embedding = scores.unit_rows(embedding)
                numbers = verification.measure(embedding, protocol, (0.01,), "strict").numbers
                lines[stress].setdefault(name, {})[way] = {
                    "accuracy": round(float(numbers["accuracy"]), 4),
                    "auc": round(float(numbers["auc"]), 4),
                    "cosine_to_rendered": round(float((one.embed(crop) * as_rendered).sum(1).mean()), 3),
                }
                say(f"crop: {stress}, {name}, {way}: {lines[stress][name][way]}")
    write_result("crop", {"results": lines, "settings": vars(asked)})


if __name__ == "__main__":
    main()
