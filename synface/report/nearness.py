"""How many images of a table lie nearer to another identity's inquiry than to their own."""

import numpy as np

from synface.core.errors import SynfaceError
from synface.models.embedding import Embedder
from synface.report.grid import read_grid
from synface.report.space import embedded
from synface.store import artifact, schemas, tables

#: a table's identities and images of each that are measured
IDENTITIES, IMAGES = 125, 8


def nearer_to_another(images: str, identities: str, network: Embedder) -> float | None:
    """Share of the table's first images whose nearest inquiry, by cosine, is another identity's.

    Args:
        images: an images table.
        identities: the identities table that it was generated from, one inquiry an identity.
        network: a recognizer.

    Returns:
        None where the identities do not stand there any more, are not those, are another recognizer's, or none of them
        is in the images.
    """
    try:
        if artifact.content_digest(identities) != artifact.require(images, "images").inputs.get("identities"):
            return None
        inquiries = tables.read_identities(identities)
    except SynfaceError:
        return None
    if schemas.metadata_of(inquiries.schema).get("embedder_sha256") != network.sha256:
        return None
    row = {name: i for i, name in enumerate(inquiries["identity_id"].to_pylist())}
    # mixtures of two people (`generate --contexts.mixup`) have no inquiry of their own
    drawn = [(row[name], encoded) for name, encoded in read_grid(images, IDENTITIES, IMAGES).rows if name in row]
    if not drawn:
        return None
    own_n = np.array([own for own, encoded in drawn for _ in encoded])
    x_nd = embedded(network, [data for _, encoded in drawn for data in encoded], images)
    return float(((x_nd @ schemas.embeddings(inquiries).T).argmax(1) != own_n).mean())
