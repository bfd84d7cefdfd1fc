"""Three-dimensional intraoperative ultrasound from an anatomy, a cone and a known displacement.

The image is formed beam by beam: diffuse echoes of tissue and specular ones of interfaces, shadows and attenuation,
coherent speckle through an anisotropic point spread, log compression; then it is scan-converted to the oblique grid.
What the MR does not explain (invisible sulci, tissue echo, shadows, the dura at a random depth) is included on purpose:
without it every registration method would succeed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, Grid
from MMRegCore.ops import gaussian_blur, sample
from MMRegCore.settings import Settings, setting
from MMRegCore.simulate.anatomy import TISSUES, Anatomy
from MMRegCore.simulate.beams import BeamGrid
from MMRegCore.simulate.confounds import ConfoundSettings, contact_band, decoy_points, trend, unmatched_share, vessels
from MMRegCore.simulate.craniotomy import Cone
from MMRegCore.simulate.noise import random_stream, smooth_noise, smooth_step, white_noise
from MMRegCore.simulate.points import displacement_at, values_at
from MMRegCore.volume import Volume

# Backscatter amplitude relative to white matter, and acoustic impedance (arbitrary unit), by tissue; outside the brain
# is saline.
_ECHO = {"white": 1.0, "grey": 0.5, "sulci": 0.5, "ventricles": 0.1, "falx": 8.0, "tumour": 2.2}
_ECHO_PIA, _ECHO_WALL = 5.0, 5.0
_ENHANCEMENT_DB_PER_MM = 0.25
_IMPEDANCE = {"white": 1.0, "grey": 0.9, "sulci": 0.35, "ventricles": 0.3, "falx": 1.3, "tumour": 1.05}
_ECHO_OUTSIDE, _IMPEDANCE_OUTSIDE = 0.25, 0.3


@dataclass(frozen=True)
class UltrasoundSettings(Settings):
    """The simulated scanner: echo strengths, losses, noise, resolution, display."""

    interface_gain: float = setting(
        9.0, "Echo of a unit step of impedance at normal incidence; decreases with the angle of the beam.", minimum=0
    )
    invisible_sulci: float = setting(
        0.85, "Fraction by which the echo of sulci fades in random regions.", minimum=0, maximum=1
    )
    tissue_echo: float = setting(
        1.3, "Strength of bright sheets and streaks that have no counterpart in the MR.", minimum=0
    )
    shadow: float = setting(0.45, "Largest loss of amplitude behind poor contact of the probe.", minimum=0, maximum=1)
    attenuation_db_per_mm: float = setting(
        0.1, "Attenuation that the time gain compensation leaves.", unit="dB/mm", minimum=0
    )
    gain_error_db: float = setting(
        1.5, "Standard deviation of the smooth error of the time gain compensation.", minimum=0
    )
    noise: float = setting(
        0.25, "Electronic noise at the largest depth, relative to the echo of white matter.", minimum=0
    )
    axial_mm: float = setting(0.2, "Standard deviation of the point spread along the beam.", minimum=0.01)
    lateral_mm: float = setting(
        0.32,
        "Standard deviation of the point spread across the beam, at half depth; proportional to the distance from "
        "the apex.",
        minimum=0.01,
    )
    elevation_mm: float = setting(0.36, "Standard deviation of the point spread along the sweep.", minimum=0.01)
    number_of_looks: int = setting(
        4, "Independent speckle patterns that are averaged (compounding).", minimum=1, maximum=64
    )
    gain: float = setting(28.0, "Grey value of white matter, 0 to 255.", minimum=0.1)
    compression: float = setting(1.4, "Logarithmic compression of strong echoes.", minimum=0.01)


def simulate_ultrasound(
    anatomy: Anatomy,
    cone: Cone,
    truth: DisplacementField,
    settings: UltrasoundSettings | None = None,
    *,
    cavity: Volume | None = None,
    confounds: ConfoundSettings | None = None,
    seed: int = 0,
) -> Volume:
    """Simulate the ultrasound volume ``us(x) = f(anatomy(x + u(x)))`` on the grid of ``truth``, which is u.

    Parameters
    ----------
    truth : DisplacementField
        Fixed (ultrasound) to moving (MR), RAS mm.
    cavity : Volume, (1, D, H, W), optional
        Fraction in [0, 1] that is saline instead of tissue, on the grid of the tissue maps; see `resection_cavity`.
    confounds : ConfoundSettings, optional
        What of the image the MR explains wrongly or not at all, as in patients; nothing of it if None.
    seed : int
        The same seed gives the same image.

    Returns
    -------
    Volume, (1, D, H, W)
        Integers in [1, 255] inside the cone, 0 outside; its mask is the cone.

    Raises
    ------
    InputError
        When less than 5 % of the field of view lies in the brain.
    """
    settings = settings or UltrasoundSettings()
    beams = BeamGrid.of(cone)
    tissue = _Tissue.along(beams, anatomy, truth, cavity)
    if float(tissue.brain.mean()) < 0.05:
        raise InputError("expected the field of view to meet the brain; got less than 5 % of it inside")
    surface = None if confounds is None else tissue.brain
    if confounds is not None:
        tissue = _with_unmatched(tissue, beams, anatomy, truth, confounds, seed)
    echo, specular = _echoes(tissue, beams, settings, seed)
    transmitted = _transmission(echo, specular, tissue.cavity, beams, settings, seed)
    if confounds is not None and surface is not None:
        specular = specular + vessels(beams, confounds, seed) * surface
        specular = specular + contact_band(surface, beams, confounds, seed)
        transmitted = transmitted * trend(beams, confounds, seed)
    envelope = _envelope(echo * transmitted, specular * transmitted, beams, settings, seed)
    grey_values = settings.gain * torch.log1p(settings.compression * envelope) / math.log1p(settings.compression)
    return _scan_convert(grey_values, beams, cone, truth.grid)


@dataclass(frozen=True, eq=False)
class _Tissue:
    """Fractions of tissue along the beams, each (S, A, R)."""

    fraction: dict[str, torch.Tensor]
    pia: torch.Tensor
    cavity: torch.Tensor

    @classmethod
    def along(cls, beams: BeamGrid, anatomy: Anatomy, truth: DisplacementField, cavity: Volume | None) -> _Tissue:
        """The maps at ``x + u(x)``; resected tissue is removed from them."""
        return cls.at(beams.points_ras, anatomy, truth, cavity)

    @classmethod
    def at(cls, points_ras: Array, anatomy: Anatomy, truth: DisplacementField, cavity: Volume | None) -> _Tissue:
        """The same at points (S, A, R, 3), RAS mm of the ultrasound."""
        grid = anatomy.tissues.grid
        nothing = Volume(torch.zeros(1, *grid.shape), grid)
        optional = [(volume or nothing).data for volume in (anatomy.tumour, cavity)]
        maps = torch.cat([anatomy.tissues.data, anatomy.pia.data, *optional])
        points_mr = points_ras + displacement_at(truth, points_ras)
        values = values_at(maps, grid, points_mr, padding_mode="zeros")
        resected = values[-1]
        *fractions, pia, tumour = values[:-1] * (1 - resected)
        return cls({**dict(zip(TISSUES, fractions, strict=True)), "tumour": tumour}, pia, resected)

    @property
    def brain(self) -> torch.Tensor:
        """Fraction of tissue, fluid and tumour together."""
        return torch.stack(list(self.fraction.values())).sum(dim=0).clamp(0, 1)


def _echoes(
    tissue: _Tissue, beams: BeamGrid, settings: UltrasoundSettings, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Diffuse and specular echo amplitude, (S, A, R) each, relative to the backscatter of white matter."""
    brain = tissue.brain
    outside = 1 - brain
    # Which sulci are visible, and how bright, depends on beam angle, vessels and blood: nothing that the MR shows.
    visibility = 1 - settings.invisible_sulci * smooth_step(beams.noise("visibility", seed, 6, 6, 6), -0.6, 0.5)
    visibility = visibility * torch.exp(0.4 * beams.noise("brightness", seed, 3, 3, 3))
    diffuse = _ECHO_OUTSIDE * outside + sum(_ECHO[name] * part for name, part in tissue.fraction.items())
    ragged = torch.exp(0.5 * beams.noise("vessels", seed, 0.8, 0.8, 0.5))
    diffuse = diffuse + _ECHO_PIA * smooth_step(tissue.pia, 0.3, 1.0) * visibility * ragged
    # The wall of a cavity is bright: coagulated tissue and blood next to saline.
    diffuse = diffuse + _ECHO_WALL * _edge(tissue.cavity, beams) * ragged
    diffuse *= torch.exp(0.25 * beams.noise("texture", seed, 6, 6, 6) + 0.2 * beams.noise("grain", seed, 1.2, 1.5, 0.8))
    impedance = _IMPEDANCE_OUTSIDE * outside + sum(_IMPEDANCE[name] * part for name, part in tissue.fraction.items())
    specular = settings.interface_gain * _interface(impedance, beams) * visibility
    specular = specular + _tissue_echo(beams, settings, seed) * brain * (1 - tissue.fraction["ventricles"])
    return diffuse, specular + _dura(beams, seed)


def _with_unmatched(
    tissue: _Tissue, beams: BeamGrid, anatomy: Anatomy, truth: DisplacementField, confounds: ConfoundSettings, seed: int
) -> _Tissue:
    """The tissue, replaced in random regions by that of another place, of which the MR says nothing."""
    other = _Tissue.at(decoy_points(beams, seed), anatomy, truth, None)
    share = unmatched_share(beams, confounds, seed) * other.brain.clamp(0, 1)
    kept = 1 - share
    # What lies outside the brain and what was resected stays as it is.
    there = tissue.brain * share
    fraction = {name: kept * part + there * other.fraction[name] for name, part in tissue.fraction.items()}
    return _Tissue(fraction, kept * tissue.pia + there * other.pia, tissue.cavity)


def _interface(impedance: torch.Tensor, beams: BeamGrid) -> torch.Tensor:
    """(S, A, R): impedance step within the pulse, weighted by the angle of incidence."""
    smooth = gaussian_blur(impedance[None, None], beams.sigma_voxel(0.5, 0.5, 0.5))[0, 0]
    along_sweep, along_angle, along_beam = torch.gradient(smooth)
    along_sweep = along_sweep / float(beams.step[0])
    along_angle = along_angle / (float(beams.step[1]) * beams.radius_mm)
    along_beam = along_beam / float(beams.step[2])
    magnitude = (along_sweep**2 + along_angle**2 + along_beam**2 + 1e-12).sqrt()
    # Cosine squared, and a part that rough interfaces scatter in all directions.
    return magnitude * (0.15 + 0.85 * (along_beam / magnitude) ** 2)


def _edge(fraction: torch.Tensor, beams: BeamGrid) -> torch.Tensor:
    """(S, A, R): 1 in a sheet about 1 mm thick where a fraction passes through a half, 0 elsewhere."""
    smooth = gaussian_blur(fraction[None, None], beams.sigma_voxel(0.6, 0.6, 0.6))[0, 0]
    return (4 * smooth * (1 - smooth)) ** 2


def _tissue_echo(beams: BeamGrid, settings: UltrasoundSettings, seed: int) -> torch.Tensor:
    """(S, A, R): curved bright sheets (small vessels and sulci) and short streaks across the beam (fibres)."""
    folding = beams.noise("sheets", seed, 5, 5, 5)
    # A level set of smooth noise is a curved sheet; a second noise keeps patches of it.
    sheet = torch.exp(-0.5 * (folding / 0.06) ** 2) * smooth_step(beams.noise("patches", seed, 5, 5, 5), 0.4, 1.2)
    ragged = torch.exp(0.6 * beams.noise("ragged", seed, 1, 1, 0.7))
    streaks = (beams.noise("streaks", seed, 0.7, 1.5, 0.3) - 1.2).clamp(min=0)
    density = smooth_step(beams.noise("density", seed, 8, 8, 8), -0.3, 1.2)
    return settings.tissue_echo * (4.5 * sheet * ragged + 7.0 * streaks * density)


def _dura(beams: BeamGrid, seed: int) -> torch.Tensor:
    """(S, A, R): the bright band under the probe (dura, drape, reverberation) at a random depth."""
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
    beams: BeamGrid,
    settings: UltrasoundSettings,
    seed: int,
) -> torch.Tensor:
    """(S, A, R): relative amplitude after attenuation, shadows and an imperfect time gain compensation."""
    sweeps, angles, depths = beams.shape
    contact = smooth_noise((sweeps, angles), beams.sigma_voxel(4, 2.5, 1)[:2], random_stream(seed, "contact"))
    shadow = 1 - settings.shadow * smooth_step(contact, 0.8, 1.8)[..., None]
    depth_mm = beams.depth_mm
    curve = smooth_noise((4 * depths,), (7 / float(beams.step[2]),), random_stream(seed, "gain curve"))[:depths]
    loss_db = settings.attenuation_db_per_mm * (depth_mm - float(depth_mm[-1]) / 2) + settings.gain_error_db * curve
    # Strong reflectors shadow what lies behind them; the gain compensates for the dura.
    strong = (diffuse - 1.5).clamp(min=0) + specular * (depth_mm > 5)
    behind = torch.exp(-0.008 * float(beams.step[2]) * (strong.cumsum(dim=-1) - strong))
    # Saline attenuates far less than the compensation assumes: what lies behind it is enhanced.
    gain_db = _ENHANCEMENT_DB_PER_MM * float(beams.step[2]) * cavity.cumsum(dim=-1)
    return shadow * behind * 10 ** ((gain_db - loss_db) / 20)


def _envelope(
    diffuse: torch.Tensor, specular: torch.Tensor, beams: BeamGrid, settings: UltrasoundSettings, seed: int
) -> torch.Tensor:
    """(S, A, R): detected amplitude of random scatterers and coherent interfaces blurred by the point spread."""
    spread = beams.sigma_voxel(settings.elevation_mm, settings.lateral_mm, settings.axial_mm)
    random = random_stream(seed, "speckle")
    coherent = gaussian_blur(specular[None, None], spread)[0, 0]
    # Standard deviation of unit white noise after the blur.
    speckle_std = math.prod((1 / (2 * math.sqrt(math.pi) * max(s, 0.3))) ** 0.5 for s in spread)
    deep = smooth_step(beams.depth_mm, 0.2 * float(beams.depth_mm[-1]), float(beams.depth_mm[-1]))
    total = torch.zeros(beams.shape)
    for _ in range(settings.number_of_looks):
        parts = [white_noise(beams.shape, random) * diffuse for _ in range(2)]
        scattered = gaussian_blur(torch.stack(parts)[None], spread)[0] / speckle_std
        electronic = gaussian_blur(white_noise((1, 2, *beams.shape), random), (0.7, 0.7, 1.0))[0]
        noise = settings.noise * deep * electronic * 3.0
        real = scattered[0] + noise[0] + math.sqrt(2) * coherent
        total += (real**2 + (scattered[1] + noise[1]) ** 2).sqrt()
    # The mean of a Rayleigh amplitude made of two unit normal parts is √(π/2).
    return total / (settings.number_of_looks * math.sqrt(math.pi / 2))


def _scan_convert(grey_values: torch.Tensor, beams: BeamGrid, cone: Cone, grid: Grid) -> Volume:
    """The image of the beams (S, A, R) at every voxel of ``grid`` inside the cone."""
    coordinates = cone.beam_coordinates(grid.points_ras())
    inside = torch.from_numpy(cone.within(coordinates))
    positions = torch.from_numpy(np.moveaxis((coordinates - beams.low) / beams.step, -1, 0).copy()).float()
    # Nearest frame and beam: interpolation would smooth the speckle.
    image = sample(grey_values[None, None], positions[None], mode="nearest")[0]
    return Volume(image.round().clamp(1, 255) * inside, grid, mask=inside, name="ultrasound")
