"""Files in and out: images, transforms, landmarks; every format is converted at its edge to RAS mm."""

from MMRegCore.io.files import atomic_path, staged_folder
from MMRegCore.io.landmarks import Landmarks, read_landmark_pairs, read_landmarks, write_landmarks
from MMRegCore.io.transforms import read_transform, write_transform
from MMRegCore.io.volumes import itk_image, read_mask, read_volume, volume_from_itk, write_volume

__all__ = [
    "Landmarks",
    "atomic_path",
    "itk_image",
    "read_landmark_pairs",
    "read_landmarks",
    "read_mask",
    "read_transform",
    "read_volume",
    "staged_folder",
    "volume_from_itk",
    "write_landmarks",
    "write_transform",
    "write_volume",
]
