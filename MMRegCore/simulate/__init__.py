"""Intraoperative ultrasound with known truth, simulated from MR."""

from MMRegCore.simulate.anatomy import Anatomy, anatomy_from_maps
from MMRegCore.simulate.brain_shift import BrainShift, BrainShiftSettings, draw_brain_shift
from MMRegCore.simulate.case import SimulatedCase, simulate
from MMRegCore.simulate.cavity import CavitySettings, resection_cavity
from MMRegCore.simulate.contrast import render_contrast, with_contrasts
from MMRegCore.simulate.craniotomy import Cone, ConeSettings, Probe, place_probe
from MMRegCore.simulate.files import landmark_pairs, true_transform, write_case
from MMRegCore.simulate.mr import anatomy_from_labels, anatomy_from_mr
from MMRegCore.simulate.random_field import smooth_random_field
from MMRegCore.simulate.template import load_template
from MMRegCore.simulate.ultrasound import UltrasoundSettings, simulate_ultrasound

__all__ = [
    "Anatomy",
    "BrainShift",
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
    "place_probe",
    "render_contrast",
    "resection_cavity",
    "simulate",
    "simulate_ultrasound",
    "smooth_random_field",
    "true_transform",
    "with_contrasts",
    "write_case",
]
