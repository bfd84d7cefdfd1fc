"""convexAdam at its defaults as a process of its own: FIXED MOVING OUTPUT."""

import sys

import numpy as np
import SimpleITK as sitk
import torch
from convexAdam.convex_adam_MIND import convex_adam_pt

fixed_path, moving_path, output = sys.argv[1:]
field = convex_adam_pt(sitk.ReadImage(fixed_path), sitk.ReadImage(moving_path), device=torch.device("cpu"))
np.save(output, field)
