"""Devices, memory, and what happens where either is missing."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from known_motion import texture
from MMRegCore import pipeline, runtime
from MMRegCore.config import DEFAULT_PRESET, load_preset, with_changes
from MMRegCore.errors import DeviceError
from MMRegCore.geometry import Grid
from MMRegCore.methods import find_method
from MMRegCore.monitor import Monitor
from MMRegCore.optimisation import dense_search
from MMRegCore.runtime import (
    GIB,
    available_memory_bytes,
    is_mixed,
    memory_budget_bytes,
    peak_memory_bytes,
    resolve_device,
)
from MMRegCore.volume import Volume

CPU = torch.device("cpu")


class TestDevice:
    def test_cpu_is_always_there(self):
        assert resolve_device("cpu") == CPU

    def test_auto_takes_what_is_there(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert resolve_device("auto") == CPU
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert resolve_device("auto") == torch.device("cuda", 0)
        assert resolve_device("cuda") == torch.device("cuda", 0)
        assert resolve_device("cuda:1") == torch.device("cuda", 1)
        with pytest.raises(DeviceError, match="'cuda:2' to be there; .* finds 2 CUDA device"):
            resolve_device("cuda:2")

    @pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "CPU"])
    def test_unknown_names(self, name):
        with pytest.raises(DeviceError, match="expected the device to be auto, cpu, cuda or cuda:N; got"):
            resolve_device(name)

    def test_absent(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(DeviceError, match=r"finds no CUDA device \(only cpu\)"):
            resolve_device("cuda")


class TestMemory:
    def test_what_was_asked_for(self):
        assert memory_budget_bytes(CPU, 1.5) == int(1.5 * GIB)

    @pytest.mark.parametrize("memory_gb", [0, -1, 0.01, float("nan"), float("inf")])
    def test_nonsense(self, memory_gb):
        with pytest.raises(DeviceError, match="at least 0.1 GB"):
            memory_budget_bytes(CPU, memory_gb)

    def test_careful_share_of_what_is_free(self, monkeypatch):
        for free, expected in ((100 * GIB, 2 * GIB), (2 * GIB, GIB), (0, GIB // 4)):
            monkeypatch.setattr(runtime, "available_memory_bytes", lambda free=free: free)
            assert memory_budget_bytes(CPU) == expected

    def test_what_is_free_is_plausible(self):
        assert 2**26 < available_memory_bytes() < 2**50

    def test_peak_is_plausible(self):
        assert 2**25 < peak_memory_bytes(CPU) < 2**42

    def test_peak_is_unknown_where_the_system_does_not_tell(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "resource", None)
        assert peak_memory_bytes(CPU) is None


class TestFallback:
    @pytest.fixture
    def volume(self) -> Volume:
        return Volume(texture(1, 30)[0, ..., :26], Grid((30, 30, 26), np.eye(4)), name="texture")

    def test_out_of_memory_halves_the_parts_and_goes_on(self, volume, monkeypatch):
        changes = {"mcbo.strides": "2", "mcbo.weights": "1", "mcbo.half_width": "1", "mcbo.refine": "none"}
        settings = with_changes(load_preset("mcbo"), changes)
        expected = pipeline.register(volume, volume, settings=settings, device="cpu")
        original, failures = dense_search.cost_volume, [2]

        def scarce(*arguments):
            if failures[0]:
                failures[0] -= 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(*arguments)

        monkeypatch.setattr(dense_search, "cost_volume", scarce)
        found = pipeline.register(volume, volume, settings=settings, device="cpu")
        points = volume.grid.corners_ras() * 0.5
        assert failures == [0]
        assert np.array_equal(found.transform.apply(points), expected.transform.apply(points))

    def test_without_memory_for_the_smallest_part(self, monkeypatch):
        def none(*arguments):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(dense_search, "cost_volume", none)
        one = torch.ones(1, 1, 8, 8, 8)
        search = dense_search.DenseSearch(1, (0.3, 1.0), masked=True, memory_bytes=GIB)
        with pytest.raises(DeviceError, match="expected memory for a part of the cost volume"):
            search.find(dense_search.DescriptorPair(one, one, one, one), Monitor(), "matching")

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), DeviceError("none left")])
    def test_a_device_without_memory_gives_way_to_the_cpu_and_says_so(self, volume, error, monkeypatch, caplog):
        used: list[torch.device] = []
        method = find_method("lc2")

        def only_on_cpu(problem, options):
            used.append(problem.prepared.fixed.image.device)
            if used[-1].type != "cpu":
                raise error
            return method.solve(problem, options)

        monkeypatch.setattr(pipeline, "find_method", lambda name: replace(method, solve=only_on_cpu))
        # 'meta' stands in for a GPU: a device that tensors can be moved to.
        monkeypatch.setattr(pipeline, "resolve_device", lambda name: torch.device("meta"))
        changes = {
            "lc2.search.sampling_spacing_mm": "2.5,1.5",
            "lc2.search.half_width": "2,2",
            "lc2.search.range_mm": 0,
        }
        settings = with_changes(load_preset(DEFAULT_PRESET), {**changes, "lc2.search.extended_range_mm": 0})
        result = pipeline.register(volume, volume, settings=settings)
        assert [device.type for device in used] == ["meta", "cpu"]
        assert result.provenance.device == "cpu"
        assert "the memory of meta did not suffice; going on with the CPU" in caplog.text

    def test_the_cpu_without_memory_is_an_error(self, volume, monkeypatch):
        def none(problem, options):
            raise DeviceError("expected memory; the device has none left")

        monkeypatch.setattr(pipeline, "find_method", lambda name: replace(find_method(name), solve=none))
        with pytest.raises(DeviceError, match="none left"):
            pipeline.register(volume, volume, device="cpu")


class TestPackageVersion:
    def test_what_pip_installed(self):
        assert runtime.package_version("numpy") == np.__version__

    def test_what_a_program_carries_without_pips_notes(self, monkeypatch, tmp_path):
        (tmp_path / "carried_by_slicer.py").write_text("__version__ = '3.1'")
        (tmp_path / "says_nothing.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        assert runtime.package_version("carried_by_slicer") == "3.1"
        assert runtime.package_version("says_nothing") is None

    def test_what_is_not_there(self):
        assert runtime.package_version("no_such_package") is None


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx512_bf16": True}, True), ({"avx2": True}, False), (None, False)]
)
def test_networks_compute_in_bfloat16_by_themselves_only_where_the_processor_can(monkeypatch, capabilities, expected):
    if capabilities is None:  # as older releases of torch are
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert is_mixed(cpu, "auto") == expected
    assert is_mixed(gpu, "auto")
    assert is_mixed(cpu, "mixed")
    assert not is_mixed(gpu, "float32")
