"""The command line: its contract, its exit codes, one line for bad input, nothing left half-written."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore.assessment.quality import Quality
from MMRegCore.cli import main
from MMRegCore.cli.inputs import changes_from
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import BarScreen, JsonScreen, Screen
from MMRegCore.errors import Cancelled, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.landmarks import Landmarks, read_landmarks, write_landmarks
from MMRegCore.io.transforms import read_transform, write_transform
from MMRegCore.io.volumes import read_volume, write_volume
from MMRegCore.monitor import Monitor
from MMRegCore.records import from_json
from MMRegCore.volume import Volume
from quick import SET_QUICK, small_pictures
from scenes import error_mm, scene, translation

pytestmark = pytest.mark.slow

SHIFT_MM = np.array([2.0, -1.0, 1.5])
QUICK = [*SET_QUICK, "--device", "cpu"]


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> dict[str, Path]:
    """Files of a small case: us, t1 in two folders under the same name, mask, label map, transform, landmarks."""
    folder = tmp_path_factory.mktemp("case")
    grid = Grid((36, 40, 38), np.array([[-1.0, 0, 0, 20], [0, 1, 0, -10], [0, 0, 1, 5], [0, 0, 0, 1]]))
    shift = translation(SHIFT_MM)
    paths = {
        "us": folder / "us.nii.gz",
        "t1": folder / "t1.nii.gz",
        "again": folder / "other" / "t1.nrrd",
        "mask": folder / "mask.nii.gz",
        "labels": folder / "labels.nii.gz",
        "transform": folder / "shift.h5",
        "points": folder / "points.mrk.json",
        "moved": folder / "moved.csv",
    }
    paths["again"].parent.mkdir()
    moving = scene(grid, shift.apply_inverse, inverted=True)
    write_volume(scene(grid), paths["us"])
    write_volume(moving, paths["t1"])
    write_volume(moving.with_data(100 - moving.data), paths["again"])
    mask = torch.zeros(grid.shape)
    mask[4:-4, 4:-4, 4:-4] = 1
    write_volume(Volume(mask[None], grid), paths["mask"], dtype="uint8")
    labels = torch.zeros(grid.shape)
    labels[10:20, 10:20, 10:20], labels[20:26, 10:20, 10:20] = 7, 300
    write_volume(Volume(labels[None], grid), paths["labels"], dtype="int16")
    write_transform(shift, paths["transform"])
    points = Landmarks(np.array([[0.0, 5, 20], [10, -2, 12], [300, 0, 0]]), ("a", "b", "far"))
    write_landmarks(points, paths["points"])
    write_landmarks(Landmarks(points.points_ras + SHIFT_MM + np.array([0, 0, 1]), points.labels), paths["moved"])
    return paths


def one_line(capsys) -> str:
    """The only line on stderr; stdout must be empty."""
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    return shown.err


@pytest.fixture(scope="module")
def result(case, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("result") / "made" / "on the way"
    images = ["--fixed", case["us"], "--moving", case["t1"], "--moving", case["again"]]
    masks = ["--fixed-mask", case["mask"], "--moving-mask", "none", case["mask"]]
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_pictures(monkeypatch)
        assert main([str(text) for text in ["register", *images, *masks, *QUICK, "--output", output]]) == 0
    return output


# What every registration writes, but for the images.
MAPS = ("expected_error", "displacement", "jacobian_determinant")
WRITTEN = ("transform.h5", *(f"{name}.nii.gz" for name in MAPS), "result.json", "report.html")


class TestRegister:
    def test_writes_what_the_contract_says(self, result):
        written = {path.name for path in result.iterdir()}
        assert written == {*WRITTEN, "warped_t1.nii.gz", "warped_t1_2.nii.gz"}

    def test_transform_finds_the_shift(self, case, result):
        found, truth = read_transform(result / "transform.h5"), translation(SHIFT_MM)
        assert error_mm(found, truth.apply, read_volume(case["us"]).grid) < 0.3

    def test_warped_images_lie_on_the_fixed_grid(self, case, result):
        grid = read_volume(case["us"]).grid
        for name in ("warped_t1.nii.gz", "warped_t1_2.nii.gz"):
            assert read_volume(result / name).grid.matches(grid)

    def test_maps_hold_what_the_transform_does_inside_the_mask(self, case, result):
        fixed = read_volume(case["us"], mask_path=case["mask"])
        maps = {name: read_volume(result / f"{name}.nii.gz") for name in MAPS}
        assert all(volume.grid.matches(fixed.grid) for volume in maps.values())
        points = fixed.grid.points_ras()
        moved = read_transform(result / "transform.h5").apply(points.reshape(-1, 3)).reshape(points.shape)
        inside = fixed.mask.numpy()
        length = np.linalg.norm(moved - points, axis=-1)
        np.testing.assert_allclose(maps["displacement"].data[0].numpy()[inside], length[inside], atol=1e-3)
        # Central differences of the places themselves, an oracle beside the core's own.
        slopes = np.stack([np.gradient(moved, axis=axis) for axis in (2, 1, 0)], axis=-1)
        determinant = np.linalg.det(slopes) / np.linalg.det(fixed.grid.ras_from_ijk[:3, :3])
        inner = inside.copy()
        inner[[0, -1]] = inner[:, [0, -1]] = inner[:, :, [0, -1]] = False
        np.testing.assert_allclose(maps["jacobian_determinant"].data[0].numpy()[inner], determinant[inner], atol=2e-3)
        for name, volume in maps.items():
            assert (volume.data[0].numpy()[~inside] == (name == "jacobian_determinant")).all()

    def test_result_is_json_and_report_stands_alone(self, result):
        assert json.loads((result / "result.json").read_text(encoding="utf-8"))
        report = (result / "report.html").read_text(encoding="utf-8")
        assert "<html" in report
        assert 'src="http' not in report

    def test_transform_only_json_progress_and_initial_transform(self, case, tmp_path, capsys):
        arguments = [
            "register",
            "--fixed",
            case["us"],
            "--moving",
            case["t1"],
            "--initial-transform",
            case["transform"],
        ]
        arguments += [*QUICK, "--transform-only", "--json-progress", "--output", tmp_path / "out"]
        assert main([str(text) for text in arguments]) == 0
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"transform.h5", "result.json"}
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        progress = [line for line in lines if line["event"] == "progress"]
        assert [line["fraction"] for line in progress] == sorted(line["fraction"] for line in progress)
        assert all(line["stage"] for line in progress)
        assert lines[-1]["event"] == "done"

    def test_the_transform_is_there_before_the_rest(self, case, tmp_path, capsys, monkeypatch):
        seen = {}

        def found(screen, file, verdict):
            seen["points"] = read_transform(file).apply([[1.0, 2.0, 3.0]])
            seen["output"] = [path.name for path in (tmp_path / "out").iterdir()]
            original(screen, file, verdict)

        original = JsonScreen.found
        monkeypatch.setattr(JsonScreen, "found", found)
        arguments = ["register", "--fixed", case["us"], "--moving", case["t1"], *QUICK, "--json-progress"]
        assert main([str(text) for text in [*arguments, "--output", tmp_path / "out"]]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (at,) = [number for number, line in enumerate(lines) if line["event"] == "transform"]
        assert any(line["event"] == "progress" for line in lines[at + 1 :])
        # Only a folder that is being filled: what is in it appears all together.
        assert len(seen["output"]) == 1
        assert lines[at]["file"] == str(tmp_path / "out" / seen["output"][0] / "transform.h5")
        result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
        assert lines[at]["verdict"] == result["quality"]["verdict"]
        assert np.array_equal(
            read_transform(tmp_path / "out" / "transform.h5").apply([[1.0, 2.0, 3.0]]), seen["points"]
        )

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("stage", ["preparing", "rigid search", "deformation", "model selection", "quality maps"])
    def test_signal_cancels_at_any_stage_and_leaves_nothing(self, case, tmp_path, capsys, monkeypatch, stage, number):
        def show(screen, name, fraction):
            if name.startswith(stage):
                signal.raise_signal(number)

        monkeypatch.setattr(Screen, "__call__", show)
        arguments = ["register", "--fixed", case["us"], "--moving", case["t1"], *QUICK, "--output", tmp_path / "out"]
        assert main([str(text) for text in arguments]) == 3
        assert one_line(capsys) == "mmreg: cancelled; nothing was written\n"
        assert list(tmp_path.iterdir()) == []

    def interrupted(self, case, output, stage, number, *more) -> tuple[int, list[dict], str]:
        """Exit code, what came after it, and stderr of a real process that gets a signal once ``stage`` begins."""
        arguments = ["register", "--fixed", case["us"], "--moving", case["t1"], "--json-progress", "--output", output]
        command = [sys.executable, "-m", "MMRegCore", *map(str, [*arguments, *more])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
            for line in process.stdout:
                if stage in json.loads(line).get("stage", ""):
                    break
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        return process.returncode, [json.loads(line) for line in out.splitlines()], err

    def test_a_process_cancels_on_a_signal(self, case, tmp_path):
        # The search of the default takes long enough to be caught in it.
        code, lines, err = self.interrupted(case, tmp_path / "out", "rigid search", signal.SIGTERM, "--device", "cpu")
        assert code == 3, err
        assert err == "mmreg: cancelled; nothing was written\n"
        assert lines[-1]["kind"] == "Cancelled"
        assert list(tmp_path.iterdir()) == []

    def test_signal_while_writing_leaves_all_or_nothing(self, case, tmp_path):
        output = tmp_path / "out"
        code, _, err = self.interrupted(case, output, "writing the result", signal.SIGINT, *QUICK)
        names = {path.name for path in output.iterdir()} if output.exists() else set()
        whole = {*WRITTEN, "warped_t1.nii.gz"}
        assert (code, names) in [(0, whole), (3, set())], err

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (["--fixed", "nowhere.nii.gz"], "nowhere.nii.gz"),
            (["--moving", "nowhere.nii.gz"], "nowhere.nii.gz"),
            (["--preset", "mcbo-publishd"], "did you mean 'mcbo-published'"),
            (["--set", "lc2.iteratons=3"], "did you mean 'lc2.iterations'"),
            (["--set", "lc2.iterations"], "expected --set KEY=VALUE"),
            (["--set", "lc2.iterations=3", "lc2.iterations=4"], "once"),
            (["--preset", "mcbo", "--set", "mcbo.half_widht=3"], "did you mean 'mcbo.half_width'"),
            (["--set", "method=mcbo", "mcbo.fussion=mean"], "did you mean 'mcbo.fusion'"),
            (["--device", "cuda:99"], "cuda:99"),
            (["--device", "abacus"], "abacus"),
            (["--initial-transform", "nowhere.h5"], "nowhere.h5"),
            (["--moving-mask", "none", "none"], "at most one --moving-mask per --moving; got 2 for 1"),
            (["--memory-gb", "lots"], "--memory-gb"),
            (["--fixt", "x"], "--fixt"),
        ],
    )
    def test_bad_input_is_one_line_and_exit_2(self, case, tmp_path, capsys, change, message):
        arguments = ["register", "--fixed", case["us"], "--moving", case["t1"], "--output", tmp_path / "out"]
        if change[0] == "--moving":
            arguments[4] = change[1]
            change = []
        assert main([str(text) for text in [*arguments, *change]]) == 2
        assert message in one_line(capsys)
        assert not (tmp_path / "out").exists()

    def test_output_is_tried_before_the_work(self, case, tmp_path, capsys):
        (tmp_path / "file").write_text("not a folder")
        arguments = ["register", "--fixed", "nowhere", "--moving", case["t1"], "--output", tmp_path / "file" / "out"]
        assert main([str(text) for text in arguments]) == 2
        assert "expected --output to be a folder that can be written" in one_line(capsys)


class TestApply:
    def run(self, case, moving, output, *more) -> int:
        return main(
            [
                str(text)
                for text in ["apply", "--transform", case["transform"], "--moving", moving, "--output", output, *more]
            ]
        )

    def test_volume_as_simpleitk_resamples_it(self, case, tmp_path):
        output = tmp_path / "out.nii.gz"
        assert self.run(case, case["t1"], output, "--reference", case["us"]) == 0
        moving, fixed = sitk.ReadImage(str(case["t1"])), sitk.ReadImage(str(case["us"]))
        expected = sitk.Resample(moving, fixed, sitk.ReadTransform(str(case["transform"])), sitk.sitkLinear, 0.0)
        assert np.allclose(sitk.GetArrayFromImage(sitk.ReadImage(str(output))), sitk.GetArrayFromImage(expected))

    def test_volume_moves_the_right_way(self, case, tmp_path):
        # The label map is taken for the MR here: what lies at x + SHIFT in it must come to x.
        output = tmp_path / "out.nrrd"
        assert self.run(case, case["labels"], output) == 0
        before, after = (read_volume(path) for path in (case["labels"], output))
        centres = [
            (volume.grid.points_ras() * volume.data[0, ..., None].double().numpy()).sum((0, 1, 2))
            / float(volume.data.sum())
            for volume in (before, after)
        ]
        assert centres[1] - centres[0] == pytest.approx(-SHIFT_MM, abs=0.02)

    def test_label_map_keeps_type_and_values(self, case, tmp_path):
        output = tmp_path / "out.nii.gz"
        assert self.run(case, case["labels"], output, "--interpolation", "nearest", "--reference", case["us"]) == 0
        image = sitk.ReadImage(str(output))
        assert image.GetPixelID() == sitk.sitkInt16
        assert set(np.unique(sitk.GetArrayFromImage(image))) == {0, 7, 300}

    def test_bspline_differs_from_linear(self, case, tmp_path):
        assert self.run(case, case["t1"], tmp_path / "linear.nii.gz") == 0
        assert self.run(case, case["t1"], tmp_path / "cubic.nii.gz", "--interpolation", "bspline") == 0
        linear, cubic = (read_volume(tmp_path / f"{name}.nii.gz").data for name in ("linear", "cubic"))
        assert 1e-3 < float((linear - cubic).abs()[:, 4:-4, 4:-4, 4:-4].max()) < 20

    def test_landmarks_go_from_moving_to_fixed(self, case, tmp_path):
        output = tmp_path / "out.fcsv"
        assert self.run(case, case["points"], output) == 0
        before, after = read_landmarks(case["points"]), read_landmarks(output)
        assert after.points_ras == pytest.approx(before.points_ras - SHIFT_MM, abs=1e-4)
        assert after.labels == before.labels

    @pytest.mark.parametrize(
        ("moving", "output", "more", "message"),
        [
            ("points", "out.mrk.json", ["--interpolation", "nearest"], "with a volume only"),
            ("points", "out.nii.gz", [], "landmark file name"),
            ("t1", "out.png", [], "image file name"),
            ("t1", "no/such/folder/out.nii.gz", [], "cannot write"),
            ("t1", "out.nii.gz", ["--interpolation", "sinc"], "sinc"),
            ("t1", "out.nii.gz", ["--reference", "nowhere.nrrd"], "nowhere.nrrd"),
        ],
    )
    def test_bad_input(self, case, tmp_path, capsys, moving, output, more, message):
        assert self.run(case, case[moving], tmp_path / output, *more) == 2
        assert message in one_line(capsys)
        assert list(tmp_path.iterdir()) == []


class TestTre:
    def run(self, *arguments) -> int:
        return main(["tre", *map(str, arguments)])

    def test_two_files(self, case, capsys):
        given = ["--fixed-landmarks", case["points"], "--moving-landmarks", case["moved"]]
        assert self.run("--transform", case["transform"], *given) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["after"]["per_point"] == pytest.approx([1, 1, 1], abs=1e-4)
        assert result["before"]["mean"] == pytest.approx(np.linalg.norm(SHIFT_MM + np.array([0, 0, 1])), abs=1e-4)
        assert set(result["after"]) == {"mean", "median", "max", "quantile_30", "per_point"}

    def test_pairs_and_initial_transform(self, case, tmp_path, capsys):
        pairs = tmp_path / "pairs.csv"
        pairs.write_text("mr_x,mr_y,mr_z,us_x,us_y,us_z\n2,-1,1.5,0,0,0\n3,0,2.5,1,1,1\n", encoding="utf-8")
        given = ["--transform", case["transform"], "--initial-transform", case["transform"], "--landmarks", pairs]
        assert self.run(*given) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["before"]["max"] == pytest.approx(0, abs=1e-6)
        assert result["after"]["max"] == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize(
        "given", [[], ["--fixed-landmarks", "points"], ["--landmarks", "moved", "--fixed-landmarks", "points"]]
    )
    def test_wrong_combinations(self, case, capsys, given):
        arguments = [case.get(text, text) for text in given]
        assert self.run("--transform", case["transform"], *arguments) == 2
        assert "expected --landmarks PAIRS, or --fixed-landmarks A and --moving-landmarks B" in one_line(capsys)


class TestQa:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        small_pictures(monkeypatch)

    def arguments(self, case, output) -> list[str]:
        images = ["--fixed", case["us"], "--moving", case["t1"], "--transform", case["transform"]]
        return [str(text) for text in ["qa", *images, "--output", output]]

    def test_writes_numbers_and_report(self, case, tmp_path):
        assert main(self.arguments(case, tmp_path / "qa")) == 0
        assert {path.name for path in (tmp_path / "qa").iterdir()} == {"qa.json", "report.html"}
        content = json.loads((tmp_path / "qa" / "qa.json").read_text(encoding="utf-8"))
        assert content["inputs"]["moving"] == [str(case["t1"])]
        quality = from_json(Quality, content["quality"])
        assert quality.rigid.translation_ras_mm == pytest.approx(SHIFT_MM, abs=1e-4)
        assert quality.verdict.expected_error_mm is None

    def test_without_a_mask_the_field_of_view_is_what_counts(self, case, tmp_path):
        us, mask = read_volume(case["us"]), read_volume(case["mask"]).data > 0
        write_volume(us.with_data(torch.where(mask, us.data + 1, 0)), tmp_path / "cut.nii.gz")
        arguments = self.arguments(case, tmp_path / "qa")
        arguments[2] = str(tmp_path / "cut.nii.gz")
        assert main(arguments) == 0
        content = json.loads((tmp_path / "qa" / "qa.json").read_text(encoding="utf-8"))
        assert content["quality"]["region"]["voxels"] == int(mask.sum())

    def test_full_disk_leaves_nothing(self, case, tmp_path, capsys, monkeypatch):
        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        assert main(self.arguments(case, tmp_path / "qa")) == 2
        assert "No space left on device" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


class TestInformation:
    def test_presets(self, capsys):
        assert main(["presets"]) == 0
        assert re.search("^mcbo-published +MCBO with the paper's settings", capsys.readouterr().out, re.MULTILINE)

    def test_presets_show(self, capsys):
        assert main(["presets", "--show", "mcbo"]) == 0
        shown = capsys.readouterr().out
        assert "mcbo.strides = 2,4,6" in shown
        assert "(a list (a whole number, …), from 1 to 16 voxel)" in shown

    def test_presets_json(self, capsys):
        assert main(["presets", "--show", "mcbo-clem", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["mcbo"]["strides"] == [1, 2, 4]

    def test_presets_json_is_what_a_form_is_built_from(self, capsys):
        assert main(["presets", "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        presets = {preset["name"]: preset for preset in content["presets"]}
        assert content["default"] == "lc2"
        assert {"lc2", "mcbo", "mcbo-clem", "dns"} <= set(presets)
        settings = {about["key"]: about for about in presets["lc2"]["settings"]}
        assert settings["method"]["choices"] == ["dns", "lc2", "mcbo", "network"]
        assert settings["model_selection.enabled"]["kind"] == "switch"
        assert settings["lc2.search.sampling_spacing_mm"]["is_list"]
        wanted = {"label": "Search range", "unit": "mm", "tier": "basic", "minimum": 0, "maximum": 50, "default": 20.0}
        assert wanted.items() <= settings["lc2.search.range_mm"].items()
        assert not any(key.startswith("mcbo.") for key in settings)

    def test_unknown_preset(self, capsys):
        assert main(["presets", "--show", "mbco"]) == 2
        assert "did you mean 'mcbo'" in one_line(capsys)

    @pytest.mark.parametrize("arguments", [[], ["regster"], ["apply"], ["presets", "--sho", "mcbo"]])
    def test_wrong_usage_is_one_line(self, capsys, arguments):
        assert main(arguments) == 2
        assert "--help" in one_line(capsys)

    def test_help_and_version(self, capsys):
        assert main(["--version"]) == 0
        assert main(["register", "--help"]) == 0
        shown = capsys.readouterr().out
        for option in (
            "--fixed-mask",
            "--moving-mask",
            "--initial-transform",
            "--memory-gb",
            "--seed",
            "--transform-only",
        ):
            assert option in shown


class TestFailures:
    def test_internal_error_is_one_line_with_a_hint(self, capsys, monkeypatch):
        monkeypatch.setattr("MMRegCore.config.preset_names", lambda: 1 / 0)
        assert main(["presets"]) == 1
        assert "internal error: ZeroDivisionError: division by zero (mmreg … --verbose shows where)" in one_line(capsys)

    def test_verbose_shows_where(self, capsys, monkeypatch):
        monkeypatch.setattr("MMRegCore.config.preset_names", lambda: 1 / 0)
        assert main(["presets", "--verbose"]) == 1
        shown = capsys.readouterr().err
        assert "Traceback" in shown
        assert "verbs.py" in shown

    def test_keyboard_interrupt_is_cancelled(self, capsys, monkeypatch):
        def interrupted():
            raise KeyboardInterrupt

        monkeypatch.setattr("MMRegCore.config.preset_names", interrupted)
        assert main(["presets"]) == 3
        assert one_line(capsys) == "mmreg: cancelled; nothing was written\n"

    def test_reader_that_has_gone_is_no_news(self):
        command = f"{sys.executable} -c 'import time, os; os.close(0); time.sleep(0.5)'"
        mmreg = f"sleep 0.2; {sys.executable} -m MMRegCore presets --show mcbo"
        done = subprocess.run(
            ["sh", "-c", f"({mmreg}) | {command}"], capture_output=True, encoding="utf-8", check=False
        )
        assert done.stderr == ""

    def test_first_signal_cancels_the_second_kills(self):
        monitor = Monitor()
        before = signal.getsignal(signal.SIGINT)
        with cancel_on_signals(monitor):
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Cancelled):
                monitor.report("next", 0.5)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == before


class TestScreen:
    @pytest.fixture
    def clock(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        return now

    def test_bar_shows_stage_and_time_left_in_one_line(self, clock):
        stream = io.StringIO()
        bar = BarScreen(stream)
        clock[0] = 30.0
        bar("level 4", 0.25)
        assert stream.getvalue().startswith("\r[######------------------]  25 %  level 4, 1:30 left")
        assert "\n" not in stream.getvalue()
        bar.note("a warning")
        assert stream.getvalue().endswith("\r\x1b[Ka warning\n")

    def test_log_lines_are_quiet(self, clock):
        stream = io.StringIO()
        quiet = Screen(stream)
        for step in range(100):
            clock[0] = 0.1 * step
            quiet(f"step {step}", step / 100)
        clock[0] = 10.0
        quiet("end", 1.0)
        lines = stream.getvalue().splitlines()
        assert len(lines) == 2
        assert lines[0] == "mmreg:  50 %  step 50, 0:05 left"
        assert lines[-1] == "mmreg: 100 %  end"

    def test_json_reports_every_stage(self, clock):
        stream = io.StringIO()
        screen = JsonScreen(stream)
        for stage, fraction in [("a", 0.0), ("a", 0.1), ("b", 0.1), ("b", 0.2)]:
            screen(stage, fraction)
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert [(line["stage"], line["fraction"]) for line in lines] == [("a", 0.0), ("b", 0.1)]


class TestInputs:
    def test_changes(self):
        assert changes_from(["a.b=1", "c=x=y"]) == {"a.b": "1", "c": "x=y"}
        with pytest.raises(InputError, match="got '=3'"):
            changes_from(["=3"])
