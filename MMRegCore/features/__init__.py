"""Descriptors of what lies around a voxel."""
