"""Three-dimensional intraoperative ultrasound from an anatomy, a cone and a known displacement.

The image is made beam by beam, as a scanner makes it: echoes of tissue and of interfaces, shadows and attenuation along
each beam, coherent speckle through an anisotropic point spread, log compression; then it is put together on the
oblique grid.  What an MR does not explain (sulci unseen, echoes of their own, shadows, the dura at no fixed distance)
is part of it on purpose: without it any matcher looks good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, Grid, transform_points
from MMRegCore.simulate.anatomy import TISSUES, Anatomy
from MMRegCore.simulate.craniotomy import Cone
from MMRegCore.simulate.noise import gaussian_blur, random_stream, smooth_noise, smooth_step, white_noise
from MMRegCore.volume import Volume
from MMRegCore.warp import sample

# Beam sampling: finer than the point spread in every direction.
_SWEEP_STEP_MM = 0.45
_DEPTH_STEP_MM = 0.25
_BEAM_STEP_RAD = math.radians(0.38)

# Backscatter amplitude relative to white matter, and acoustic impedance (arbitrary unit), by tissue; the rest, outside
# the brain, is saline.
_ECHO = {"white": 1.0, "grey": 0.5, "sulci": 0.5, "ventricles": 0.1, "falx": 8.0, "tumour": 2.2}
_ECHO_PIA, _ECHO_WALL = 5.0, 5.0
_ENHANCEMENT_DB_PER_MM = 0.25
_IMPEDANCE = {"white": 1.0, "grey": 0.9, "sulci": 0.35, "ventricles": 0.3, "falx": 1.3, "tumour": 1.05}
_ECHO_OUTSIDE, _IMPEDANCE_OUTSIDE = 0.25, 0.3


@dataclass(frozen=True)
class UltrasoundSettings:
    """How the simulated scanner sees.

    Attributes
    ----------
    interface_gain : float
        Echo of a unit step of impedance met squarely; falls with the angle of the beam.
    unseen_sulci : float
        Share, 0 to 1, by which sulci fade where the scan happens not to show them.
    own_echoes : float
        Strength of bright sheets and streaks that the MR does not show; 0 for none.
    shadow : float
        Largest loss of amplitude, 0 to 1, behind poor contact of the probe.
    attenuation_db_per_mm : float
        Loss that the depth compensation leaves over.
    gain_error_db : float
        Standard deviation of the smooth error of the depth compensation.
    noise : float
        Electronic noise at the deep end, relative to the echo of white matter.
    axial_mm, lateral_mm, elevation_mm : float
        Standard deviation of the point spread; the lateral one holds at half depth and grows along the beam.
    looks : int
        Independent speckle patterns averaged (compounding).
    gain, compression : float
        Grey value of white matter (0-255), and how much stronger echoes are compressed.
    """

    interface_gain: float = 9.0
    unseen_sulci: float = 0.85
    own_echoes: float = 1.3
    shadow: float = 0.45
    attenuation_db_per_mm: float = 0.1
    gain_error_db: float = 1.5
    noise: float = 0.25
    axial_mm: float = 0.2
    lateral_mm: float = 0.32
    elevation_mm: float = 0.36
    looks: int = 4
    gain: float = 28.0
    compression: float = 1.4

    def __post_init__(self) -> None:
        positive = (self.axial_mm, self.lateral_mm, self.elevation_mm, self.gain, self.compression, self.looks)
        others = (self.interface_gain, self.own_echoes, self.attenuation_db_per_mm, self.gain_error_db, self.noise)
        finite = all(math.isfinite(v) for v in positive + others)
        if not finite or min(positive) <= 0 or min(others) < 0:
            raise InputError(f"expected positive resolutions and gains and no negative strength; got {self}")
        if not (0 <= self.unseen_sulci <= 1 and 0 <= self.shadow <= 1):
            raise InputError(f"expected unseen_sulci and shadow between 0 and 1; got {self}")


def simulate_ultrasound(
    anatomy: Anatomy,
    cone: Cone,
    truth: DisplacementField,
    settings: UltrasoundSettings | None = None,
    *,
    cavity: Volume | None = None,
    seed: int = 0,
) -> Volume:
    """Simulate the ultrasound volume ``us(x) = f(anatomy(x + u(x)))`` on the grid of ``truth``.

    Parameters
    ----------
    anatomy : Anatomy
    cone : Cone
        Field of view.
    truth : DisplacementField
        u, fixed (ultrasound) to moving (MR), RAS mm.
    settings : UltrasoundSettings, optional
    cavity : Volume, (1, D, H, W), optional
        Share in [0, 1] that is fluid instead of tissue, on the grid of the tissue maps; see `resection_cavity`.
    seed : int
        The same seed gives the same image.

    Returns
    -------
    Volume, (1, D, H, W)
        Whole numbers in [1, 255] inside the cone, 0 outside; its mask is the cone.

    Raises
    ------
    InputError
        When the field of view meets no brain.
    """
    settings = settings or UltrasoundSettings()
    beams = _BeamGrid.of(cone)
    tissue = _Tissue.along(beams, anatomy, truth, cavity)
    if float(tissue.brain.mean()) < 0.05:
        raise InputError("expected the field of view to meet the brain; got less than 5 % of it inside")
    echo, specular = _echoes(tissue, beams, settings, seed)
    transmitted = _transmission(echo, specular, tissue.cavity, beams, settings, seed)
    envelope = _envelope(echo * transmitted, specular * transmitted, beams, settings, seed)
    grey_values = settings.gain * torch.log1p(settings.compression * envelope) / math.log1p(settings.compression)
    return _put_together(grey_values, beams, cone, truth.grid)


@dataclass(frozen=True, eq=False)
class _BeamGrid:
    """The lattice of beam samples: arrays are (S, A, R) = (sweep, angle, depth)."""

    low: Array
    step: Array
    shape: tuple[int, int, int]
    points_ras: Array
    radius_mm: torch.Tensor

    @classmethod
    def of(cls, cone: Cone) -> _BeamGrid:
        low, high = cone.low, cone.high
        wanted = np.array([_SWEEP_STEP_MM, _BEAM_STEP_RAD, _DEPTH_STEP_MM])
        counts = np.ceil((high - low) / wanted).astype(int) + 1
        axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts, strict=True)]
        points = cone.points_ras(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
        radius = torch.from_numpy(cone.settings.apex_mm + axes[2]).float()
        shape = (int(counts[0]), int(counts[1]), int(counts[2]))
        return cls(low, (high - low) / (counts - 1), shape, points, radius)

    @property
    def depth_mm(self) -> torch.Tensor:
        """(R,)."""
        return self.radius_mm - self.radius_mm[0]

    def sigma_voxel(self, sweep_mm: float, lateral_mm: float, depth_mm: float) -> tuple[float, float, float]:
        """A spread in mm, lateral at half depth, in samples."""
        middle_mm = float(self.radius_mm[len(self.radius_mm) // 2])
        return (
            sweep_mm / float(self.step[0]),
            lateral_mm / (float(self.step[1]) * middle_mm),
            depth_mm / float(self.step[2]),
        )

    def noise(self, name: str, seed: int, sweep_mm: float, lateral_mm: float, depth_mm: float) -> torch.Tensor:
        """(S, A, R): smooth noise, zero mean and unit variance, with these correlation lengths."""
        sigma = self.sigma_voxel(sweep_mm, lateral_mm, depth_mm)
        return smooth_noise(self.shape, sigma, random_stream(seed, name))


@dataclass(frozen=True, eq=False)
class _Tissue:
    """What the beams meet, each (S, A, R)."""

    share: dict[str, torch.Tensor]
    pia: torch.Tensor
    cavity: torch.Tensor

    @classmethod
    def along(cls, beams: _BeamGrid, anatomy: Anatomy, truth: DisplacementField, cavity: Volume | None) -> _Tissue:
        """The maps at ``x + u(x)``; what is taken out counts as nothing else."""
        grid = anatomy.tissues.grid
        nothing = Volume(torch.zeros(1, *grid.shape), grid)
        optional = [(volume or nothing).data for volume in (anatomy.tumour, cavity)]
        field = truth.displacement_mm.permute(3, 0, 1, 2)[None]
        moved = beams.points_ras + _at_points(field, truth.grid, beams.points_ras).permute(1, 2, 3, 0).double().numpy()
        maps = torch.cat([anatomy.tissues.data, anatomy.pia.data, *optional])[None]
        values = _at_points(maps, grid, moved, padding_mode="zeros")
        taken = values[-1]
        *shares, pia, tumour = values[:-1] * (1 - taken)
        return cls({**dict(zip(TISSUES, shares, strict=True)), "tumour": tumour}, pia, taken)

    @property
    def brain(self) -> torch.Tensor:
        """Share of anything that belongs to the brain."""
        return torch.stack(list(self.share.values())).sum(dim=0).clamp(0, 1)


def _at_points(image: torch.Tensor, grid: Grid, points_ras: Array, padding_mode: str = "border") -> torch.Tensor:
    """(1, C, D, H, W) at points (S, A, R, 3), RAS mm: (C, S, A, R)."""
    voxels = transform_points(grid.ijk_from_ras, points_ras)
    return sample(image, torch.from_numpy(voxels).float()[None], padding_mode=padding_mode)[0]


def _echoes(
    tissue: _Tissue, beams: _BeamGrid, settings: UltrasoundSettings, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Diffuse and specular echo amplitude, (S, A, R) each; white matter scatters 1."""
    brain = tissue.brain
    outside = 1 - brain
    # Which sulci show, and how brightly, is a matter of the beam's angle, vessels and clotting: nothing an MR tells.
    visibility = 1 - settings.unseen_sulci * smooth_step(beams.noise("visibility", seed, 6, 6, 6), -0.6, 0.5)
    visibility = visibility * torch.exp(0.4 * beams.noise("brightness", seed, 3, 3, 3))
    diffuse = _ECHO_OUTSIDE * outside + sum(_ECHO[name] * share for name, share in tissue.share.items())
    ragged = torch.exp(0.5 * beams.noise("vessels", seed, 0.8, 0.8, 0.5))
    diffuse = diffuse + _ECHO_PIA * smooth_step(tissue.pia, 0.3, 1.0) * visibility * ragged
    # The wall of a cavity: coagulated tissue, blood and what is left of it, in fluid that lets all sound through.
    diffuse = diffuse + _ECHO_WALL * _edge(tissue.cavity, beams) * ragged
    diffuse *= torch.exp(0.25 * beams.noise("texture", seed, 6, 6, 6) + 0.2 * beams.noise("grain", seed, 1.2, 1.5, 0.8))
    impedance = _IMPEDANCE_OUTSIDE * outside + sum(_IMPEDANCE[name] * share for name, share in tissue.share.items())
    specular = settings.interface_gain * _interface(impedance, beams) * visibility
    specular = specular + _own_echoes(beams, settings, seed) * brain * (1 - tissue.share["ventricles"])
    return diffuse, specular + _dura(beams, seed)


def _interface(impedance: torch.Tensor, beams: _BeamGrid) -> torch.Tensor:
    """(S, A, R): impedance step within the pulse, weighted by the cosine of the angle at which the beam meets it."""
    smooth = gaussian_blur(impedance[None], beams.sigma_voxel(0.5, 0.5, 0.5))[0]
    along_sweep, along_angle, along_beam = torch.gradient(smooth)
    along_sweep = along_sweep / float(beams.step[0])
    along_angle = along_angle / (float(beams.step[1]) * beams.radius_mm)
    along_beam = along_beam / float(beams.step[2])
    magnitude = (along_sweep**2 + along_angle**2 + along_beam**2 + 1e-12).sqrt()
    # Cosine squared, with a rest that rough interfaces scatter to all sides.
    return magnitude * (0.15 + 0.85 * (along_beam / magnitude) ** 2)


def _edge(share: torch.Tensor, beams: _BeamGrid) -> torch.Tensor:
    """(S, A, R): 1 in a sheet about 1 mm thick where a share passes through a half, 0 elsewhere."""
    smooth = gaussian_blur(share[None], beams.sigma_voxel(0.6, 0.6, 0.6))[0]
    return (4 * smooth * (1 - smooth)) ** 2


def _own_echoes(beams: _BeamGrid, settings: UltrasoundSettings, seed: int) -> torch.Tensor:
    """(S, A, R): curved bright sheets (small vessels and sulci) and short streaks across the beam (fibres)."""
    folding = beams.noise("sheets", seed, 5, 5, 5)
    # A level set of smooth noise is a curved sheet; a second noise leaves patches of it.
    sheet = torch.exp(-0.5 * (folding / 0.06) ** 2) * smooth_step(beams.noise("patches", seed, 5, 5, 5), 0.4, 1.2)
    ragged = torch.exp(0.6 * beams.noise("ragged", seed, 1, 1, 0.7))
    streaks = (beams.noise("streaks", seed, 0.7, 1.5, 0.3) - 1.2).clamp(min=0)
    density = smooth_step(beams.noise("density", seed, 8, 8, 8), -0.3, 1.2)
    return settings.own_echoes * (4.5 * sheet * ragged + 7.0 * streaks * density)


def _dura(beams: _BeamGrid, seed: int) -> torch.Tensor:
    """(S, A, R): the bright band under the probe: dura, drape and reverberation, at no fixed depth."""
    sweeps, angles, _ = beams.shape
    flat = beams.sigma_voxel(5, 5, 1)[:2]
    undulation = smooth_noise((sweeps, angles), flat, random_stream(seed, "dura depth"))
    strength = torch.exp(0.5 * smooth_noise((sweeps, angles), flat, random_stream(seed, "dura strength")))
    middle_mm = (1.8 + 0.8 * undulation)[..., None]
    from_middle = (beams.depth_mm - middle_mm) / 0.8
    above = from_middle.clamp(max=0) * 0.5
    return 9.0 * strength[..., None] * torch.exp(-0.5 * (from_middle.clamp(min=0) ** 2 + above**2))


def _transmission(
    diffuse: torch.Tensor,
    specular: torch.Tensor,
    cavity: torch.Tensor,
    beams: _BeamGrid,
    settings: UltrasoundSettings,
    seed: int,
) -> torch.Tensor:
    """(S, A, R): amplitude left after attenuation, shadows and an imperfect depth compensation."""
    sweeps, angles, depths = beams.shape
    contact = smooth_noise((sweeps, angles), beams.sigma_voxel(4, 2.5, 1)[:2], random_stream(seed, "contact"))
    shadow = 1 - settings.shadow * smooth_step(contact, 0.8, 1.8)[..., None]
    depth_mm = beams.depth_mm
    curve = smooth_noise((4 * depths,), (7 / float(beams.step[2]),), random_stream(seed, "gain curve"))[:depths]
    loss_db = settings.attenuation_db_per_mm * (depth_mm - float(depth_mm[-1]) / 2) + settings.gain_error_db * curve
    # Strong reflectors leave less for what lies behind them; the dura's own share is compensated by the gain.
    strong = (diffuse - 1.5).clamp(min=0) + specular * (depth_mm > 5)
    behind = torch.exp(-0.008 * float(beams.step[2]) * (strong.cumsum(dim=-1) - strong))
    # Saline takes next to nothing of what the compensation adds for tissue: what lies behind it is too bright.
    gain_db = _ENHANCEMENT_DB_PER_MM * float(beams.step[2]) * cavity.cumsum(dim=-1)
    return shadow * behind * 10 ** ((gain_db - loss_db) / 20)


def _envelope(
    diffuse: torch.Tensor, specular: torch.Tensor, beams: _BeamGrid, settings: UltrasoundSettings, seed: int
) -> torch.Tensor:
    """(S, A, R): detected amplitude; random scatterers and coherent interfaces through the point spread."""
    spread = beams.sigma_voxel(settings.elevation_mm, settings.lateral_mm, settings.axial_mm)
    random = random_stream(seed, "speckle")
    coherent = gaussian_blur(specular[None], spread)[0]
    # White noise through the point spread keeps this share of its standard deviation.
    kept = math.prod((1 / (2 * math.sqrt(math.pi) * max(s, 0.3))) ** 0.5 for s in spread)
    deep = smooth_step(beams.depth_mm, 0.2 * float(beams.depth_mm[-1]), float(beams.depth_mm[-1]))
    total = torch.zeros(beams.shape)
    for _ in range(settings.looks):
        parts = [white_noise(beams.shape, random) * diffuse for _ in range(2)]
        scattered = gaussian_blur(torch.stack(parts), spread) / kept
        noise = settings.noise * deep * gaussian_blur(white_noise((2, *beams.shape), random), (0.7, 0.7, 1.0)) * 3.0
        real = scattered[0] + noise[0] + math.sqrt(2) * coherent
        total += (real**2 + (scattered[1] + noise[1]) ** 2).sqrt()
    # The mean of a Rayleigh amplitude made of two unit normal parts is √(π/2).
    return total / (settings.looks * math.sqrt(math.pi / 2))


def _put_together(grey_values: torch.Tensor, beams: _BeamGrid, cone: Cone, grid: Grid) -> Volume:
    """Scan conversion: the beams' image at every voxel of ``grid`` inside the cone."""
    points = grid.points_ras()
    coordinates = cone.beam_coordinates(points)
    inside = torch.from_numpy(np.all((coordinates >= cone.low) & (coordinates <= cone.high), axis=-1))
    positions = torch.from_numpy(((coordinates - beams.low) / beams.step)[..., ::-1].copy()).float()
    # A sweep is put together voxel by voxel from the nearest frame and beam; smoothing would take the speckle away.
    image = sample(grey_values[None, None], positions[None], mode="nearest")[0]
    whole = image.round().clamp(1, 255) * inside
    return Volume(whole, grid, mask=inside, name="ultrasound")
