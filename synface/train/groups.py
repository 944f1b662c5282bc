"""Training on one of several parts of every identity's images, by their similarity to the identity's centre.

CemiFace's motivating experiment (Sun et al., NeurIPS 2024, Tables 1 and 9) splits CASIA-WebFace into five groups of
equal size by cosine to the subject's centre. There the centre is a row of a trained classifier; here it is the mean
direction of the identity's embeddings (`synface embed --similarities true`).
"""

from dataclasses import replace

import numpy as np

from synface.core import ranks
from synface.core.errors import InputError
from synface.store import artifact, tables
from synface.train.config import SimilarityGroup
from synface.train.data import Catalog


def read(asked: SimilarityGroup, images: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(label, cosine to the identity's centre, whether it belongs to the group) of every image, [n] each.

    Args:
        asked: which group of which table.
        images: the images table that is trained on.

    Raises:
        InputError: no similarities there, or those of other images; a group without images.
    """
    identity, similarity_n, digest = tables.read_similarities(asked.identities)
    if digest != artifact.content_digest(images):
        raise InputError(
            f"similarity_group.identities {asked.identities}: its similarities are those of other images than "
            f"{images}; embed these with --similarities true"
        )
    label_n = np.unique(identity, return_inverse=True)[1]
    kept_n = ranks.rank_groups(similarity_n, label_n, asked.groups) == asked.group
    if not kept_n.any():
        raise InputError(
            f"similarity_group.group {asked.group} of {asked.groups} is empty: no identity has that many images"
        )
    return label_n, similarity_n, kept_n


def select(catalog: Catalog, kept_n: np.ndarray) -> Catalog:
    """The catalogue with only some of its images; classes are those that have any.

    Raises:
        InputError: fewer than two classes are left.
    """
    used, labels = np.unique(catalog.labels[kept_n], return_inverse=True)
    if len(used) < 2:
        raise InputError(f"similarity_group: {len(used)} identity is left; training needs at least two")
    label_n = np.full(len(catalog.labels), -1)
    label_n[kept_n] = labels
    return replace(catalog, labels=label_n, classes=tuple(catalog.classes[i] for i in used), kept=kept_n)
