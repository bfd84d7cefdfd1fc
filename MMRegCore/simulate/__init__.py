"""Intraoperative ultrasound with a known displacement, simulated from MR."""

from MMRegCore.simulate.anatomy import Anatomy as Anatomy
from MMRegCore.simulate.anatomy import anatomy_from_maps as anatomy_from_maps
from MMRegCore.simulate.brain_shift import BrainShiftSettings as BrainShiftSettings
from MMRegCore.simulate.brain_shift import draw_brain_shift as draw_brain_shift
from MMRegCore.simulate.case import SimulatedCase as SimulatedCase
from MMRegCore.simulate.case import simulate as simulate
from MMRegCore.simulate.cavity import CavitySettings as CavitySettings
from MMRegCore.simulate.confounds import ConfoundSettings as ConfoundSettings
from MMRegCore.simulate.contrast import with_contrasts as with_contrasts
from MMRegCore.simulate.craniotomy import Cone as Cone
from MMRegCore.simulate.craniotomy import ConeSettings as ConeSettings
from MMRegCore.simulate.craniotomy import Probe as Probe
from MMRegCore.simulate.files import landmark_pairs as landmark_pairs
from MMRegCore.simulate.files import write_case as write_case
from MMRegCore.simulate.head import HeadSettings as HeadSettings
from MMRegCore.simulate.head import render_head as render_head
from MMRegCore.simulate.head import with_glioma as with_glioma
from MMRegCore.simulate.head import with_thin_sulci as with_thin_sulci
from MMRegCore.simulate.mr import anatomy_from_labels as anatomy_from_labels
from MMRegCore.simulate.mr import anatomy_from_mr as anatomy_from_mr
from MMRegCore.simulate.random_field import smooth_random_field as smooth_random_field
from MMRegCore.simulate.template import load_template as load_template
from MMRegCore.simulate.ultrasound import UltrasoundSettings as UltrasoundSettings
