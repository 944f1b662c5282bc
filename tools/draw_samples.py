"""Draw the sample sheets of README: `python tools/draw_samples.py [--images runs/quickstart/images]`.

`docs/images/cemiface_dial.png`: people of the validation split, whom neither generator nor recognizer was trained on;
the inquiry picture, then samples with one noise at m = -0.25, 0, 0.25, 0.5, 0.75, 1.
`docs/images/cemiface_identities.png`, of an images table: identities as rows, their samples as columns.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa

from synface.generate.generators.diffusion import resolve
from synface.generate.variation_config import SamplerOptions
from synface.models.denoisers import generator as generators
from synface.models.embedding import Embedder
from synface.models.heads import SPLITS, render_image
from synface.store import images, tables
from synface.train.looks import grid_png, look

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"


def dial_sheet(weights: str, rows: int, first: int) -> bytes:
    """Inquiries and their samples at rising m."""
    module, stated = generators.from_pretrained(weights)
    embedder = Embedder.from_pretrained(stated.details["embedder"], threads=2)
    seeds = [SPLITS["val"][0] + first + i for i in range(rows)]
    inquiries = np.stack([render_image("heads-real", seed, 0, module.image_size).image for seed in seeds])
    settings = resolve(SamplerOptions(), stated, 16)
    found = look(module.denoiser, module.autoencoder, embedder, embedder.embed(inquiries), 0, "cpu", settings)
    print(found.text())
    return grid_png(found.images, inquiries)


def table_sheet(uri: str, rows: int, columns: int) -> bytes:
    """The first samples of the first identities of an images table."""
    table = pa.concat_tables(tables.iter_images(uri, ["image", "label", "sample"]))
    label, sample = table["label"].to_numpy(), table["sample"].to_numpy()
    cells = table["image"].to_pylist()
    kept = np.unique(label)[:rows]
    at = [[int(np.flatnonzero((label == one) & (sample == k))[0]) for k in range(columns)] for one in kept]
    return grid_png(np.stack([np.stack([images.decode(cells[i]["bytes"]) for i in row]) for row in at]))


def main() -> None:
    """Draw what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="cemiface-tiny")
    parser.add_argument("--images", default="", help="an images table of generated identities")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="of the validation split's people")
    parser.add_argument("--folder", default=str(FOLDER))
    asked = parser.parse_args()
    (Path(asked.folder) / "cemiface_dial.png").write_bytes(dial_sheet(asked.weights, asked.rows, asked.first))
    if asked.images:
        sheet = table_sheet(asked.images, asked.rows, asked.columns)
        (Path(asked.folder) / "cemiface_identities.png").write_bytes(sheet)


if __name__ == "__main__":
    main()
