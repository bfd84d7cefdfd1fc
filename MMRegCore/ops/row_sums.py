"""Weighted sums of rows, forward and back: what patches of samples and smooth deformations at points are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from MMRegCore.ops.gradient import with_gradient


@dataclass(frozen=True, eq=False)
class RowSums:
    """A sparse matrix that is applied to the rows of a matrix; differentiable in these.

    A sum is made in the order of its terms by one thread, so that its bytes do not depend on the number of threads.

    Attributes
    ----------
    forward, backward : _Bags
        The matrix and its transpose: the latter is the gradient.
    """

    forward: _Bags
    backward: _Bags

    @classmethod
    def of(
        cls, row: torch.Tensor, column: torch.Tensor, weight: torch.Tensor | None, shape: tuple[int, int]
    ) -> RowSums:
        """Of the matrix of that shape whose entries lie at (row, column), each (n,) and at most once.

        Parameters
        ----------
        row, column : Tensor, (n,), int64
        weight : Tensor, (n,), optional
            The entries; ones when None.
        shape : tuple of int
            Rows and columns.
        """
        return cls(_Bags.of(row, column, weight, shape[0]), _Bags.of(column, row, weight, shape[1]))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """(rows, C) of (columns, C)."""
        return with_gradient(lambda x: (self.forward(x), lambda gradient: (self.backward(gradient),)), values)


@dataclass(frozen=True, eq=False)
class _Bags:
    """For every row the columns it sums: a list of all, where each row's begins, and their weights."""

    column: torch.Tensor
    begin: torch.Tensor
    weight: torch.Tensor | None

    @classmethod
    def of(cls, row: torch.Tensor, column: torch.Tensor, weight: torch.Tensor | None, rows: int) -> _Bags:
        order = torch.argsort(row, stable=True)
        counts = torch.bincount(row, minlength=rows)
        return cls(column[order].int(), (counts.cumsum(0) - counts).int(), None if weight is None else weight[order])

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        if len(self.column) == 0:
            return values.new_zeros(len(self.begin), values.shape[1])
        weight = None if self.weight is None else self.weight.to(values.dtype)
        return F.embedding_bag(self.column, values.contiguous(), self.begin, mode="sum", per_sample_weights=weight)
