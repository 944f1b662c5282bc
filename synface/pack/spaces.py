"""Where points move and where they start: all of R^d, the gallery's leading directions, or whitened coordinates."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synface.core.errors import InputError
from synface.pack import bounds, codes, energy, gallery, problem, solver, starts
from synface.pack.config import PackConfig
from synface.pack.problem import Problem


@dataclass(frozen=True)
class Space:
    """Where points move: R^d, or coordinates y of x = B y in directions B [d, e] of the gallery.

    With `scale_e` the coordinates are whitened, y = diag(scale)^-1 B^T x up to length: then cosines in the space are
    not those of R^d, and points that fill it evenly vary, in R^d, as the gallery's rows do.
    """

    dim: int
    basis_de: Tensor | None = None
    scale_e: Tensor | None = None

    def inside(self, x_nd: Tensor) -> Tensor:
        """Coordinates. Without whitening norms fall by what lies outside, so that inner products with the space stay
        exact; whitened ones have unit norm.
        """
        if self.basis_de is None:
            return x_nd
        y_ne = x_nd @ self.basis_de
        return y_ne if self.scale_e is None else unit(y_ne / self.scale_e)

    def lifted(self, y_ne: Tensor) -> Tensor:
        """Points of R^d, unit norm."""
        if self.basis_de is None:
            return y_ne
        return y_ne @ self.basis_de.T if self.scale_e is None else unit((y_ne * self.scale_e) @ self.basis_de.T)


def space_of(config: PackConfig, dim: int, faces_md: Tensor | None) -> Space:
    """The space that the configuration asks for.

    Raises:
        InputError: the share of `subspace` leaves one direction.
    """
    whitened = config.whiten == "space"
    if faces_md is None or (config.share is None and not whitened):
        return Space(dim)
    basis_de, spread_e = gallery.principal_directions(faces_md, config.share or 1.0)
    if basis_de.shape[1] < 2:
        raise InputError(
            f"subspace = {config.share}: one direction of the gallery holds that share; ask for a larger one, or `all`"
        )
    return Space(basis_de.shape[1], basis_de, spread_e if whitened else None)


def unit(x_nd: Tensor) -> Tensor:
    """Rows of unit norm."""
    return x_nd / x_nd.norm(dim=1, keepdim=True).clamp_(min=1e-12)


@dataclass(frozen=True)
class Start:
    """Points to start from, of what kind, and their name for the numbers; whether they are the rows of a code."""

    x_nd: Tensor
    kind: solver.Start
    name: str
    code: bool = False


def start_points(config: PackConfig, given: Problem, space: Space, faces_me: Tensor | None) -> Start:
    """The points a solve starts from, in the space's coordinates; `faces_me` are the gallery's."""
    n = config.num_identities - (0 if given.keep is None else given.keep.num_rows)
    if given.start is not None:
        return _start(config, space, problem.rows(given.start), "table", faces_me)
    if given.gallery is not None and config.initial in ("auto", "gallery"):
        rows = starts.gallery_start(problem.rows(given.gallery), n, config.seed)
        return _start(config, space, rows, "gallery", faces_me)
    code = codes.best_code(n, space.dim)
    plain = given.gallery is None and given.keep is None
    if code and (config.initial == "code" or (config.initial == "auto" and plain and starts.code_pays(code, n))):
        turn = codes.rotation(space.dim, config.seed)
        rows = codes.points(code, codes.subset_index(code, n, config.seed), turn)
        return Start(tensor(config, rows), "packed", code.name, code=True)
    random = starts.random_start(n, space.dim, config.seed)
    return Start(tensor(config, random), "isotropic", "random")


def _start(config: PackConfig, space: Space, x_nd: np.ndarray, name: str, faces_me: Tensor | None) -> Start:
    y_ne = unit(space.inside(tensor(config, x_nd)))
    if config.whiten == "start" and faces_me is not None:
        y_ne = gallery.whitened(y_ne, faces_me)
    largest = energy.max_cosine(y_ne, config.numerics.tile)
    if largest < 0.5 * bounds.iid_max_cosine(len(y_ne), space.dim):
        return Start(y_ne, "packed", name)
    if largest > 1.0 - starts.JITTER:  # rows that (nearly) coincide feel equal forces
        y_ne = tensor(config, starts.jittered(y_ne.numpy(), config.seed))
    return Start(y_ne, solver.kind_of_start(y_ne), name)


def tensor(config: PackConfig, x_nd: np.ndarray) -> Tensor:
    """The rows in the configured dtype."""
    return torch.from_numpy(x_nd).to(getattr(torch, config.numerics.dtype))
