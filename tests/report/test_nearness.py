"""Images that lie nearer to another inquiry, counted by a recognizer."""

import io
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from report_runs import VERSIONS, face, make_images, make_recognizer

from synface.models.embedding import Embedder
from synface.report.nearness import nearer_to_another
from synface.settings import InputUri, StageConfig
from synface.store import artifact, schemas, tables

PEOPLE = 4


class Drawn(StageConfig):
    """Stands for `generate`: images of an identities table."""

    verb: ClassVar[str] = "drawn"
    identities: InputUri


@pytest.fixture(scope="module")
def network():
    return Embedder.from_pretrained("heads-fr-tiny", threads=1)


def write_inquiries(folder, network, sha=None, first=0):
    pictures = [np.asarray(Image.open(io.BytesIO(face(i, 99)))) for i in range(first, first + PEOPLE)]
    table = schemas.identities_table(
        [f"heads-real-{i}" for i in range(PEOPLE)],
        network.embed(np.stack(pictures)),
        ["heads-real"] * PEOPLE,
        list(range(PEOPLE)),
    )
    stated = {"embedder": "heads-fr-tiny", "embedder_sha256": sha or network.sha256}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **stated})
    place = folder / "inquiries.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(tables.parquet_bytes(table))
    return str(place)


def draw(folder, identities):
    """Three images of each of four people; the fourth one's are pictures of the first."""
    made = make_images(folder / "made", PEOPLE, 3, lambda i, k: face(0 if i == 3 else i, k))
    entries = artifact.require(made).files
    config = Drawn(output=str(folder / "drawn"), identities=identities)
    opened = artifact.open_output(config)
    files = [artifact.write_file(config.output, e.path, tables.read_listed(made, e), e.rows) for e in entries]
    artifact.commit(config, opened, "images", files, {}, VERSIONS)
    return config.output


def test_one_of_four_is_somebody_else(tmp_path, network):
    inquiries = write_inquiries(tmp_path, network)
    assert nearer_to_another(draw(tmp_path, inquiries), inquiries, network) == 0.25


def test_nothing_is_said_of_other_or_missing_inquiries(tmp_path, network):
    inquiries = write_inquiries(tmp_path, network)
    images = draw(tmp_path, inquiries)
    assert nearer_to_another(images, str(tmp_path / "gone.parquet"), network) is None
    assert nearer_to_another(images, write_inquiries(tmp_path / "b", network, first=1), network) is None
    foreign = write_inquiries(tmp_path / "c", network, sha="ab" * 32)
    assert nearer_to_another(draw(tmp_path / "c", foreign), foreign, network) is None
    assert nearer_to_another(images, make_recognizer(tmp_path / "recognizer"), network) is None
