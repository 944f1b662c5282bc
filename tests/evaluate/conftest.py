"""A small recognizer with keyed random weights, and a verification pack."""

import pytest
import torch
from blobs import SIZE, blob, png

from synface.models import recognizers, weights
from synface.store.formats import verification_bin


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """Folder of an untrained recognizer for crops of 32 pixels."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = recognizers.build("tiny", 64, SIZE).eval()
    stated = weights.WeightsConfig("tiny", 64, SIZE, "CC0-1.0", "none: random weights")
    weights.save_pretrained(str(folder), module, stated)
    return str(folder)


@pytest.fixture(scope="session")
def blob_pack(tmp_path_factory):
    """A `.bin` of 60 pairs, half of them genuine."""
    encoded, same = [], []
    for i in range(60):
        genuine = i % 2 == 0
        encoded += [png(blob(i, 0)), png(blob(i if genuine else 1000 + i, 1))]
        same.append(genuine)
    path = tmp_path_factory.mktemp("packs") / "blobs.bin"
    verification_bin.write_pack(str(path), encoded, same)
    return str(path)
