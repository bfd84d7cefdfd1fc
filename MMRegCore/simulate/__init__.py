"""Intraoperative ultrasound with a known displacement, simulated from MR."""

from MMRegCore.simulate.anatomy import Anatomy, anatomy_from_maps
from MMRegCore.simulate.brain_shift import BrainShiftSettings, draw_brain_shift
from MMRegCore.simulate.case import SimulatedCase, simulate
from MMRegCore.simulate.cavity import CavitySettings
from MMRegCore.simulate.contrast import with_contrasts
from MMRegCore.simulate.craniotomy import Cone, ConeSettings, Probe
from MMRegCore.simulate.files import landmark_pairs, write_case
from MMRegCore.simulate.mr import anatomy_from_labels, anatomy_from_mr
from MMRegCore.simulate.random_field import smooth_random_field
from MMRegCore.simulate.template import load_template
from MMRegCore.simulate.ultrasound import UltrasoundSettings

__all__ = [
    "Anatomy",
    "BrainShiftSettings",
    "CavitySettings",
    "Cone",
    "ConeSettings",
    "Probe",
    "SimulatedCase",
    "UltrasoundSettings",
    "anatomy_from_labels",
    "anatomy_from_maps",
    "anatomy_from_mr",
    "draw_brain_shift",
    "landmark_pairs",
    "load_template",
    "simulate",
    "smooth_random_field",
    "with_contrasts",
    "write_case",
]
