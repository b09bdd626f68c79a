"""The space that the training rows span: what L2-regularised heads are solved in, whatever the number of features.

The gradient of a loss over the rows lies in their span, and L2 pulls everything else to zero (the representer theorem);
so min(n, D) coordinates are enough, and one decomposition serves every setting of the grid.

Legend: n rows, D features, r = rank <= min(n, D).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-14
"""Eigenvalues of the Gram matrix below this share of the largest are rounding of float64."""


@dataclass(frozen=True)
class RowSpace:
    """x = rows @ directions.T, directions orthonormal, and the columns of `rows` orthogonal to each other."""

    rows: Tensor
    """[n, r]"""
    squares: Tensor
    """[r] squared singular values: the squared lengths of the columns of `rows`."""
    directions: Tensor
    """[D, r]"""


def row_space(x: Tensor) -> RowSpace:
    """Decompose x [n, D] float64 by the eigenvectors of its smaller Gram matrix (several times faster than an SVD)."""
    num_rows, width = x.shape
    wide = width > num_rows
    squares, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = squares > SMALLEST * squares[-1].clamp(min=torch.finfo(x.dtype).tiny)
    squares, vectors = squares[kept], vectors[:, kept]
    if not wide:
        return RowSpace(x @ vectors, squares, vectors)
    roots = squares.sqrt()
    return RowSpace(vectors * roots, squares, x.T @ (vectors / roots))
