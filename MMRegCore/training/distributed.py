"""Where a training runs: one process, or several that ``torchrun`` started and that average their gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist

from MMRegCore.errors import DeviceError
from MMRegCore.runtime import is_mixed, resolve_device


@dataclass(frozen=True)
class Place:
    """One of the processes of a training.

    Attributes
    ----------
    device : torch.device
    rank, count : int
        Which of how many processes; the first one writes.
    mixed : bool
        Whether `autocast` computes in bfloat16 where that is safe.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    mixed: bool = False

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """Context for a forward pass; bfloat16 has float32's range, so that no loss needs scaling."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed)

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes; call it between backward and the optimiser.

        Recipes that take several backward passes a step (bilevel) say themselves which gradients are meant; a wrapper
        of the network could not know.
        """
        self.average([p.grad for p in parameters if p.grad is not None])

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their means over the processes."""
        if self.count == 1 or not tensors:
            return
        together = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(together)
        parts = (together / self.count).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def anyone(self, flag: bool) -> bool:
        """Whether the flag is up in any process, so that all stop at the same step."""
        if self.count == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(flags)
        return bool(flags.item() > 0)

    def generator(self, seed: int, step: int) -> torch.Generator:
        """The random stream of one step in this process, on the CPU; it also sets torch's global stream.

        A step's stream depends on nothing that came before it, which is what makes resuming exact.
        """
        state = int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1, np.uint64)[0])
        torch.manual_seed(state)
        return torch.Generator().manual_seed(state)


@contextmanager
def place_of_training(device: str = "auto", precision: Literal["auto", "float32", "mixed"] = "auto") -> Iterator[Place]:
    """The place of this process: as ``torchrun`` says, else alone.

    Parameters
    ----------
    device : str
        As `resolve_device`; under torchrun 'auto' and 'cuda' give each process its own GPU.
    precision : {'auto', 'float32', 'mixed'}

    Raises
    ------
    DeviceError
        When the device is not there, or a process has none for itself.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        where = resolve_device(device)
        yield Place(where, mixed=is_mixed(where, precision))
        return
    where = _own_device(device)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Place(where, dist.get_rank(), count, is_mixed(where, precision))
    finally:
        dist.destroy_process_group()


def _own_device(device: str) -> torch.device:
    where, local = resolve_device(device), int(os.environ.get("LOCAL_RANK", "0"))
    if where.type != "cuda":
        return where
    if local >= torch.cuda.device_count():
        raise DeviceError(f"expected a GPU for each process of this machine; got {torch.cuda.device_count()}")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
