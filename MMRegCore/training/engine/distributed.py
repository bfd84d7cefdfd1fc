"""The processes of a training: one, or several that ``torchrun`` started and that average their gradients."""

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
class ProcessContext:
    """One of the processes of a training."""

    device: torch.device
    # Which of how many processes; the main one writes.
    rank: int = 0
    world_size: int = 1
    mixed: bool = False  # whether `autocast` computes in bfloat16 where that is safe

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    @property
    def fork_devices(self) -> list[torch.device]:
        """For `torch.random.fork_rng`: the GPU whose random stream is forked beside that of the CPU."""
        return [self.device] if self.device.type == "cuda" else []

    def autocast(self) -> torch.autocast:
        """Context for a forward pass; bfloat16 has float32's range, so that no loss needs scaling."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed)

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes; call it between backward and the optimiser.

        A recipe may take several backward passes a step (bilevel): a wrapper of the network could not know which
        gradients are meant.
        """
        self.average([p.grad for p in parameters if p.grad is not None])

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their means over the processes."""
        if self.world_size == 1 or not tensors:
            return
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(joined)
        parts = (joined / self.world_size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all stop at the same step."""
        if self.world_size == 1:
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
def process_context(
    device: str = "auto", precision: Literal["auto", "float32", "mixed"] = "auto"
) -> Iterator[ProcessContext]:
    """The context of this process: one of those that ``torchrun`` started, else alone.

    ``device`` is as of `resolve_device`; under torchrun 'auto' and 'cuda' give each process its own GPU.  Raises
    `DeviceError` when the device is not there, or a process has none for itself.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        alone = resolve_device(device)
        yield ProcessContext(alone, mixed=is_mixed(alone, precision))
        return
    own = _own_device(device)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield ProcessContext(own, dist.get_rank(), world_size, is_mixed(own, precision))
    finally:
        dist.destroy_process_group()


def _own_device(device: str) -> torch.device:
    resolved, local = resolve_device(device), int(os.environ.get("LOCAL_RANK", "0"))
    if resolved.type != "cuda":
        return resolved
    if local >= torch.cuda.device_count():
        raise DeviceError(f"expected a GPU for each process of this machine; got {torch.cuda.device_count()}")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
