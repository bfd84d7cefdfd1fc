"""An accelerator that is not there: tensors that say that they are on ``cuda:0``, and are computed on the CPU.

To PyTorch's own code they are on the device 'meta', which autograd can do without an accelerator; `device` says
``cuda:0`` to whoever asks in Python.  What a GPU would refuse is refused (tensors of two devices in one operation,
random numbers of the CPU's stream, conversion to numpy), and what would make the program wait for it is counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from MMRegCore.ops.constants import constant

CUDA, _INNER, _CPU = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
_aten = torch.ops.aten
# The host waits for these: they give it a number, or a tensor whose size depends on the values; PyTorch's exponential
# of matrices looks at their norms.
_WAITING = {
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.unique_dim.default,
    _aten.unique_consecutive.default,
    _aten.bincount.default,
    _aten._linalg_check_errors.default,
    _aten.linalg_matrix_exp.default,
}
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
# These exist on the CPU only.
_ABSENT = {_aten.histogram.bin_ct, _aten.histogram.bins_tensor, _aten._histogramdd_from_bin_cts.default}


class OnDevice(torch.Tensor):
    """A tensor of the accelerator; ``held`` has its values."""

    held: torch.Tensor
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def to(self, *args, **options):
        return super().to(*map(_inner, args), **{name: _inner(value) for name, value in options.items()})

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy; Tensor.cpu() copies it to the host first")

    def new_tensor(self, *args, **options):
        return torch.tensor(*args, **{"dtype": self.dtype, "device": CUDA, **options})

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=_INNER
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"expected the emulated accelerator to be switched on; got {func} without it")

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)

    def __repr__(self, **_):
        return f"OnDevice({self.held!r})"


class Traffic:
    """Between host and accelerator: copies, and times that the host waits, by the function that asked."""

    def __init__(self) -> None:
        self.to_host: Counter[str] = Counter()
        self.to_device: Counter[str] = Counter()

    def total(self, *places: str) -> int:
        """How often the host waited, in the named functions (in all without a name)."""
        return sum(n for place, n in self.to_host.items() if not places or place in places)


class _Arithmetic(TorchDispatchMode):
    """Every operation of PyTorch that has to do with the accelerator."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is _aten._to_copy.default:
            return self._converted(*args, **kwargs)
        tensors = list(_tensors((*args, *kwargs.values())))
        on_device = [isinstance(tensor, OnDevice) for tensor in tensors]
        if not any(on_device) and not _is_inner(kwargs.get("device")):
            return func(*args, **kwargs)
        if func is _aten.copy_.default:
            self._count(to_host=isinstance(args[1], OnDevice), copied=len(set(on_device)) == 2)
            return _run(func, args, kwargs)
        if func in _INDEXING and isinstance(args[0], OnDevice):  # it takes indices from the host
            self._count(to_host=False, copied=not all(isinstance(index, OnDevice) for index in _tensors(args[1])))
            tensors = list(_tensors((args[0], *args[2:])))
        _refuse(func, kwargs, tensors)
        self._count(to_host=True, copied=_waits(func, args, kwargs))
        return _run(func, args, kwargs)

    def _converted(self, tensor, device=None, **options):
        here = isinstance(tensor, OnDevice)
        there = here if device is None else _is_inner(device)
        self._count(to_host=here, copied=here != there)
        values = _aten._to_copy.default(tensor.held if here else tensor, **options)
        return OnDevice(values) if there else values

    def _count(self, *, to_host: bool, copied: bool) -> None:
        if copied:
            (self.traffic.to_host if to_host else self.traffic.to_device)[_asker()] += 1


def _is_inner(device: object) -> bool:
    return isinstance(device, torch.device | str) and str(device) in ("meta", "cuda", "cuda:0")


def _run(func, args, kwargs):
    """Compute on the CPU; what is written to is given back itself, all else as tensors of the accelerator."""
    out = func(*map(_outside, args), **{name: _outside(value) for name, value in kwargs.items()})
    if not func._schema.is_mutable:
        return _inside(out)
    given = {**dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)), **kwargs}
    written = [given[a.name] for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
    return written[0] if len(written) == 1 else tuple(written)


def _outside(value):
    """The same on the CPU."""
    if isinstance(value, OnDevice):
        return value.held
    if isinstance(value, list | tuple):
        return type(value)(map(_outside, value))
    return _CPU if _is_inner(value) else value


def _inside(value):
    """The same on the accelerator."""
    if isinstance(value, list | tuple):
        return type(value)(map(_inside, value))
    return OnDevice(value) if isinstance(value, torch.Tensor) else value


def _inner(value):
    return _INNER if _is_inner(value) else value


def _tensors(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _refuse(func, kwargs, tensors) -> None:
    """What a GPU would refuse; it takes single numbers from the host."""
    if any(tensor.ndim and not isinstance(tensor, OnDevice) for tensor in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func}")
    if func in _ABSENT:
        raise NotImplementedError(f"{func} does not exist on CUDA")
    if isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu': {func}")


def _waits(func, args, kwargs) -> bool:
    if func in _INDEXING:
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        # One value at a mask is filled in, without a list of the places.
        filled = func is not _aten.index.Tensor and args[2].numel() == 1
        return bool(masks) and not filled
    if func is _aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    return func in _WAITING


def _asker() -> str:
    """The function of MMRegCore that is at work, 'file.function'."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "MMRegCore" in path.parts:
            return f"{path.stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "test"


def _by_way_of_the_cpu(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(*args, device=None, **options):
        return make(*args, **options).to(_INNER) if _is_inner(device) else make(*args, device=device, **options)

    return made


@contextmanager
def emulated_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    """An accelerator ``cuda:0`` within the block; gives what is counted."""
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "is_bf16_supported": lambda *_: True,
        "mem_get_info": lambda *_: (8 * 2**30, 16 * 2**30),
        "max_memory_allocated": lambda *_: 2**30,
        "get_device_name": lambda *_: "emulated",
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "manual_seed_all": lambda *_: None,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: None,
        "_lazy_init": lambda: None,
    }
    traffic = Traffic()
    with monkeypatch.context() as patch, _Arithmetic(traffic):
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, answer)
        # What they make goes past the operations above.
        for name in ("tensor", "as_tensor"):
            patch.setattr(torch, name, _by_way_of_the_cpu(getattr(torch, name)))
        constant.cache_clear()  # what was made on a device that is gone
        yield traffic
