"""Brain extraction: synthetic heads, the network, masks from its distances, and what the pipeline makes of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from MMRegCore import Volume, pipeline, read_volume, write_volume
from MMRegCore.assessment.assess import assess
from MMRegCore.cli import main
from MMRegCore.config import load_preset, preset_names, with_changes
from MMRegCore.errors import InputError
from MMRegCore.evaluate.overlap import dice
from MMRegCore.geometry import Grid
from MMRegCore.networks.brain_unet import BrainUNet, BrainUNetSettings, _blocks, _unblocked
from MMRegCore.resampling import resample_smoothed
from MMRegCore.segmentation import brain as finder
from MMRegCore.segmentation.brain import Brain, find_brain, with_brain
from MMRegCore.simulate import load_template
from MMRegCore.training.data.heads import Head, HeadSettings, brain_distance, draw_head
from MMRegCore.training.data.subjects import Subject
from quick import QUICK
from scenes import box, scene

HEADS = Path(__file__).parents[3] / "shared" / "data" / "heads"
SIDE = 72


@pytest.fixture(scope="module")
def labels():
    """(72, 72, 72), 1 mm: white and grey matter in fluid, bone and scalp about it."""
    grid = Grid((SIDE,) * 3, np.eye(4))
    distance = torch.from_numpy(np.linalg.norm(grid.points_ras() - grid.centre_ras, axis=-1))
    rings = ((34, 516), (30, 515), (26, 24), (24, 3), (18, 2))
    found = torch.zeros((SIDE,) * 3)
    for radius, number in rings:
        found[distance < radius] = number
    return found.short()


@pytest.fixture(scope="module")
def head(labels):
    return Head.of(Subject("s", Grid((SIDE,) * 3, np.eye(4)), {}, labels))


def ball(radius_mm: float, grid: Grid) -> Brain:
    distance = np.linalg.norm(grid.points_ras() - grid.centre_ras, axis=-1) - radius_mm
    return Brain(torch.from_numpy(distance).float(), grid, 1.0)


class TestSyntheticHeads:
    def test_the_brain_includes_the_fluid_near_it_but_no_bone(self, labels):
        distance = brain_distance(labels)
        middle = SIDE // 2
        assert distance[middle, middle, middle] < -20
        assert distance[middle, middle, middle + 25] < 0
        assert distance[middle, middle, middle + 28] > 0
        assert float(distance[middle, middle, middle + 31]) == pytest.approx(5.5, abs=0.6)

    def test_fluid_far_from_tissue_is_left_out(self, labels):
        spine = labels.clone()
        spine[:12, 34:39, 34:39] = 24
        assert float(brain_distance(spine)[3, 36, 36]) > 0

    @pytest.mark.parametrize("seed", range(4))
    def test_images_and_distances(self, head, seed):
        settings = HeadSettings(whole_voxel=(32, 48, 32), crop_voxel=(16, 32))
        image, distance = draw_head(head, torch.Generator().manual_seed(seed), settings)
        assert image.shape == distance.shape
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        assert float(image.std()) > 0.02
        known = distance[distance.isfinite()]
        assert -30 < float(known.min()) < 0 < float(known.max()) <= 12.01

    def test_the_stream_decides(self, head):
        settings = HeadSettings(whole_voxel=(32, 32, 32), crop_voxel=(16, 32))
        one, two, other = (draw_head(head, torch.Generator().manual_seed(n), settings)[0] for n in (1, 1, 2))
        torch.testing.assert_close(one, two)
        assert one.shape != other.shape or not torch.equal(one, other)

    def test_axes_run_along_s_a_and_r_whatever_the_file_says(self, labels):
        marked = labels.clone()
        marked[40:44, 36, 36] = 28
        straight = Head.of(Subject("s", Grid((SIDE,) * 3, np.eye(4)), {}, marked))
        # i runs to the left, j down, k to the front.
        matrix = np.array([[-1.0, 0, 0, 71], [0, 0, 1, 0], [0, -1, 0, 71], [0, 0, 0, 1]])
        turned = Head.of(Subject("s", Grid((SIDE,) * 3, matrix), {}, marked.flip(0, 2).permute(1, 0, 2).contiguous()))
        torch.testing.assert_close(straight.numbers[straight.index.long()], turned.numbers[turned.index.long()])

    def test_labels_are_needed(self):
        with pytest.raises(InputError, match="expected labels of 's'; got none"):
            Head.of(Subject("s", Grid((8, 8, 8), np.eye(4)), {}))


class TestNetwork:
    def test_blocks_come_back(self):
        volume = torch.rand(2, 1, 4, 6, 8)
        assert _blocks(volume).shape == (2, 8, 2, 3, 4)
        torch.testing.assert_close(_unblocked(_blocks(volume)), volume)
        torch.testing.assert_close(_blocks(volume)[0, :, 0, 0, 0], volume[0, 0, :2, :2, :2].flatten())

    @pytest.mark.parametrize("shape", [(33, 40, 18), (8, 9, 16), (16, 16, 16), (1, 3, 2)])
    def test_any_size(self, shape):
        network = BrainUNet(BrainUNetSettings(channels=(2, 2, 2, 2)))
        assert network(torch.rand(1, 1, *shape)).shape == (1, 1, *shape)

    def test_four_resolutions(self):
        with pytest.raises(InputError, match="four resolutions"):
            BrainUNetSettings(channels=(2, 2))


class TestMasks:
    def test_margin_and_grid(self):
        brain = ball(20.0, Grid((40, 40, 40), np.diag([2.0, 2, 2, 1])))
        grid = Grid((20, 30, 40), np.array([[2.0, 0, 0, 0], [0, 2.5, 0, 2], [0, 0, 4, 0], [0, 0, 0, 1]]))
        distance = np.linalg.norm(grid.points_ras() - brain.grid.centre_ras, axis=-1)
        for margin in (-2.0, 0.0, 3.0):
            expected = torch.from_numpy(distance < 20 + margin)
            assert dice(brain.mask(grid, margin).int(), expected.int(), [1])[1] > 0.97
        assert brain.volume_ml == pytest.approx(4 / 3 * np.pi * 20**3 / 1000, rel=0.03)

    def test_noise_is_no_head(self):
        values = torch.rand(1, 60, 60, 60, generator=torch.Generator().manual_seed(0))
        noise = Volume(values, Grid((60, 60, 60), np.diag([2.0, 2, 2, 1])), name="noise")
        (kept,) = with_brain([noise])
        assert kept.mask is None
        assert "no brain was recognised" in kept.reading.warnings[-1]

    def test_a_given_mask_wins(self, monkeypatch):
        grid = Grid((40, 40, 40), np.diag([2.0, 2, 2, 1]))
        given = torch.zeros(grid.shape, dtype=torch.bool)
        given[10:20] = True
        images = [Volume(torch.rand(1, *grid.shape), grid, given), Volume(torch.rand(1, *grid.shape), grid)]
        asked = []
        monkeypatch.setattr(finder, "find_brain", lambda some: asked.append(some) or ball(20.0, grid))
        first, second = with_brain(images)
        assert first is images[0]
        assert asked == [[images[1]]]
        assert int(second.mask.sum()) == int(ball(20.0, grid).mask(grid, finder.MARGIN_MM).sum())
        assert images[1].mask is None

    def test_nothing_is_looked_for_where_all_have_masks(self, monkeypatch):
        grid = Grid((8, 8, 8), np.eye(4))
        image = Volume(torch.rand(1, 8, 8, 8), grid, torch.ones(8, 8, 8, dtype=torch.bool))
        monkeypatch.setattr(finder, "find_brain", lambda _: pytest.fail("looked for a brain"))
        assert with_brain([image]) == [image]


def template() -> Volume:
    return load_template().images[0]


class TestWeights:
    def test_of_a_stripped_brain_all_is_kept_in_any_unit_and_orientation(self):
        image = template()
        inside = image.data[0] > 0
        mask = find_brain(image).mask(image.grid)
        assert float((mask & inside).sum() / inside.sum()) >= 0.98
        turned = Volume(
            (1e-6 * image.data).flip(3).permute(0, 2, 1, 3).contiguous(),
            Grid(
                (image.grid.shape[1], image.grid.shape[0], image.grid.shape[2]),
                image.grid.ras_from_ijk
                @ np.array([[-1.0, 0, 0, image.grid.shape[2] - 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
            ),
        )
        again = find_brain(turned).mask(image.grid)
        assert dice(again.int(), mask.int(), [1])[1] > 0.99

    @pytest.mark.skipif(not HEADS.is_dir(), reason="needs the evaluation data beside the checkout")
    @pytest.mark.parametrize("name", ["patient01_study1_FLAIR", "patient03_study2_T1W", "patient12_study1_T2W"])
    def test_whole_heads(self, name):
        image = read_volume(HEADS / f"{name}.nii.gz")
        given = read_volume(HEADS / f"{name}_brain.nii.gz").data[0] > 0.5
        brain = find_brain(image)
        assert brain.is_sure
        # What the search uses holds nearly all of the brain, and what is found is hardly larger.
        used = brain.mask(image.grid, finder.MARGIN_MM)
        assert float((used & given).sum() / given.sum()) >= 0.97
        assert dice(brain.mask(image.grid).int(), given.int(), [1])[1] > 0.78


class TestUse:
    def test_presets_for_heads_use_it_and_published_ones_do_not(self):
        using = {name for name in preset_names() if load_preset(name).brain_mask}
        assert using == {"lc2", "mcbo", "dns"}

    def test_verb(self, tmp_path, capsys):
        image = template()
        small = image.grid.with_spacing([3.0] * 3)
        path, output = tmp_path / "t1.nii.gz", tmp_path / "brain.nii.gz"
        write_volume(Volume(resample_smoothed(image, small), small), path)
        assert main(["brain", str(path), "--margin-mm", "2", "--output", str(output)]) == 0
        assert "a brain of 1" in capsys.readouterr().err
        written = read_volume(output)
        assert written.grid.matches(small)
        assert set(written.data.unique().tolist()) == {0.0, 1.0}

    @pytest.mark.parametrize("margin", ["nan", "30", "-30"])
    def test_verb_refuses_margins_that_make_no_sense(self, tmp_path, capsys, margin):
        arguments = ["brain", "x.nii.gz", f"--margin-mm={margin}", "--output", str(tmp_path / "m.nii.gz")]
        assert main(arguments) == 2
        assert "--margin-mm between -10 and 10" in capsys.readouterr().err

    @pytest.mark.parametrize("asked", [True, False])
    def test_registration_leaves_out_what_is_no_brain_where_it_is_asked_to(self, monkeypatch, asked):
        grid = box((24, 24, 24))
        fixed, moving = scene(grid, name="us"), scene(grid, name="mr")
        near = ball(9.0, grid.with_spacing([1.0] * 3))
        monkeypatch.setattr(finder, "find_brain", lambda _: near)
        seen = []

        def watched(fixed, moving, *rest, **more):
            seen.append(moving[0].mask)
            return assess(fixed, moving, *rest, **more)

        monkeypatch.setattr(pipeline, "assess", watched)
        result = pipeline.register(fixed, moving, settings=with_changes(QUICK, {"brain_mask": asked}))
        assert (seen[0] is not None) == asked
        if asked:
            assert int(seen[0].sum()) == int(near.mask(grid, finder.MARGIN_MM).sum())
            assert result.provenance.timings_s["brain"] >= 0
        assert moving.mask is None

    def test_command_line_turns_it_off(self, tmp_path, monkeypatch):
        grid = box((16, 16, 16))
        for name in ("us", "mr"):
            write_volume(scene(grid, name=name), tmp_path / f"{name}.nii.gz")
        found = []
        monkeypatch.setattr(pipeline, "register", lambda *_, settings, **__: found.append(settings) or 1 / 0)
        images = ["--fixed", str(tmp_path / "us.nii.gz"), "--moving", str(tmp_path / "mr.nii.gz")]
        main(["register", *images, "--no-brain-mask", "--output", str(tmp_path / "out")])
        assert found[0].brain_mask is False
