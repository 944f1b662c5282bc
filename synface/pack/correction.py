"""Corrections of what a generator is asked, from what it realised: the maths of ``flows/closed_loop``.

A generator renders an asked embedding a_i, and a recognizer finds the mean direction r_i in its images. Packing moves
the a_i apart; what counts are the r_i. Ours: neither paper measures its identities again after rendering.
"""

import numpy as np

from synface.core import sphere


def follow(sent_nd: np.ndarray, realised_nd: np.ndarray, wanted_nd: np.ndarray, gain: float) -> np.ndarray:
    """``unit(a + gain (w - r))``: ask for more of what is missing. Unit rows float32 [n, d].

    A fixed point has r = w wherever the generator can render w.

    Args:
        sent_nd: what was asked, unit rows.
        realised_nd: what came, unit rows.
        wanted_nd: what should come, unit rows.
        gain: of the correction; 1 is Newton's step for a generator that moves as it is asked.
    """
    return sphere.normalize(sent_nd + gain * (wanted_nd - realised_nd))


def repulsion(x_nd: np.ndarray, sharpness: float, tile: int = 1024) -> np.ndarray:
    """Each row's direction away from its near neighbours, unit and tangent at the row, float32 [n, d].

    The negative Riemannian gradient of ``log sum_{j != i} exp(sharpness x_i . x_j)``, scaled to length one so that
    every row moves by the same angle, however crowded its surroundings. Zero for a row whose forces cancel.

    Args:
        x_nd: unit rows, two or more.
        sharpness: inverse temperature; the larger, the more the nearest neighbour alone counts.
        tile: rows at a time; memory O(tile n).
    """
    out = np.empty_like(x_nd, np.float32)
    for a in range(0, len(x_nd), tile):
        own = x_nd[a : a + tile]
        cos_an = own @ x_nd.T
        cos_an[np.arange(len(own)), np.arange(a, a + len(own))] = -np.inf
        weight_an = np.exp(sharpness * (cos_an - cos_an.max(1, keepdims=True)))
        weight_an /= weight_an.sum(1, keepdims=True)
        push_ad = -(weight_an @ x_nd)
        push_ad -= np.einsum("ad,ad->a", push_ad, own)[:, None] * own
        length_a = np.linalg.norm(push_ad, axis=1, keepdims=True)
        out[a : a + tile] = np.divide(push_ad, length_a, out=np.zeros_like(push_ad), where=length_a > 1e-6)
    return out


def spread(sent_nd: np.ndarray, realised_nd: np.ndarray, angle: float, sharpness: float) -> np.ndarray:
    """``unit(a + tan(angle) f(r))`` with f the `repulsion` of the realised rows. Unit rows float32 [n, d].

    No identity has a place of its own here: the asked embeddings go wherever the realised ones part.

    Args:
        sent_nd: what was asked, unit rows.
        realised_nd: what came, unit rows.
        angle: radians of a step.
        sharpness: of the repulsion.
    """
    return sphere.normalize(sent_nd + np.tan(angle) * repulsion(realised_nd, sharpness))
