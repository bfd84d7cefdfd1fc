"""Transform files of other tools that MMReg does not read: by their name, and with what converts them."""

from __future__ import annotations

from MMRegCore.io._points import is_number

_MATRIX = (
    "a bare matrix (FLIRT, greedy, NiftyReg), which does not say its space and direction; convert it to ITK's format: "
    "'c3d_affine_tool -ref US -src MR M.mat -fsl2ras -oitk T.tfm' for FLIRT, 'c3d_affine_tool M.mat -oitk T.tfm' for "
    "greedy, 'reg_transform -aff2rig' and c3d_affine_tool for NiftyReg"
)
_ELASTIX = (
    "parameters of elastix; write its displacement field with 'transformix -def all -tp FILE -out DIR', and give "
    "deformationField.nii.gz"
)
_LTA = "FreeSurfer's .lta; convert it with 'lta_convert --inlta FILE --outitk T.txt'"
_BY_SUFFIX = {
    ".lta": _LTA,
    ".dof": "MIRTK's .dof; convert it with 'mirtk convert-dof FILE T.txt -output-format itk'",
    ".x5": "an X5 file; convert it with nitransforms: Transform.to_filename(…, fmt='itk')",
    ".1d": "AFNI's .1D; convert it with 'ConvertTransformFile' of ANTs or nitransforms to ITK's format",
    ".m3z": "FreeSurfer's .m3z; convert it with 'mri_warp_convert --inm3z FILE --outitk field.nii.gz'",
    ".mgz": "FreeSurfer's warp; convert it with 'mri_warp_convert --inmgzwarp FILE --outitk field.nii.gz'",
}


def advice_by_suffix(suffix: str) -> str:
    """What a file is whose name ends so, and what to do with it; empty when that is not known."""
    return _BY_SUFFIX.get(suffix.lower(), "")


def advice_by_content(content: bytes) -> str:
    """What a transform file of another tool is, and what to do with it; empty for ITK's own and for what is unknown."""
    text = content[:20_000].decode("latin-1")
    if '(Transform "' in text:
        return _ELASTIX
    if "nxforms" in text and "type" in text:
        return _LTA
    cells = [line.split() for line in text.splitlines() if line.strip() and line.strip()[0] not in "#%"]
    if len(cells) in (3, 4) and all(len(row) == 4 and all(map(is_number, row)) for row in cells):
        return _MATRIX
    return ""
