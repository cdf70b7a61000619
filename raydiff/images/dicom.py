"""DICOM files of grey images, by pydicom (the extra `dicom`): what it decodes with numpy alone.

What is read are the values of the standard's modality stage: what is stored, times the rescale slope, plus the
intercept. The windows that a file suggests are not applied: each image has its own, and brightness must stay
comparable.
"""

from __future__ import annotations

import io
import re
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from raydiff.errors import ImageError
from raydiff.images.samples import Samples, check_size

BEGINNING = re.compile(rb".{128}DICM", re.DOTALL)
_HEAD = 8192  # bytes that hold a file's meta information
_SYNTAX = b"\x02\x00\x10\x00UI"  # begins the element that says how the rest is written
_READ = {
    "1.2.840.10008.1.2",  # implicit, little-endian
    "1.2.840.10008.1.2.1",  # explicit, little-endian
    "1.2.840.10008.1.2.2",  # explicit, big-endian
    "1.2.840.10008.1.2.5",  # run lengths
}
_LOWEST_IS_WHITE, _LOWEST_IS_BLACK = "MONOCHROME1", "MONOCHROME2"


class _Facts(NamedTuple):
    """What a file says about its pixels."""

    width: int
    height: int
    frames: int
    bits: int  # in which a value is stored
    signed: bool
    inverted: bool


def read(data: bytes, max_pixels: int, number: int | None = None) -> Samples:
    """The pixels of one frame of a DICOM file.

    Args:
        number: which frame, from 1; None = the only one.

    Raises:
        ImageError: if pydicom is not installed, there is no such frame, it has more than `max_pixels`, or is of a
            variety that is not read.
        Exception: of any kind, if it is damaged.
    """
    pydicom = _pydicom()
    syntax = _syntax(data[:_HEAD])
    if syntax not in _READ:
        raise ImageError(f"the DICOM file is of transfer syntax {syntax}, which is not read; save it uncompressed")
    found = pydicom.dcmread(io.BytesIO(data))
    said = _facts(found)
    check_size(said.width, said.height, max_pixels)
    if number is None and said.frames != 1:
        raise ImageError(
            f"the DICOM file holds {said.frames} frames; say which are images with --pages first, all or a page's "
            "number, or save each frame as a file of its own"
        )
    number = number or 1
    if number > said.frames:
        raise ImageError(
            f"the DICOM file has no frame {number}, {said.frames} is its last; give --pages a number up to that, or all"
        )
    rescale = _rescale(found, number)
    values = pydicom.pixels.pixel_array(found, index=number - 1, raw=True)
    if values.shape != (said.height, said.width):
        raise ValueError(f"its pixels are of shape {values.shape}")
    return _samples(_used(values, said)[..., None], said, rescale)


def frame_count(file: BinaryIO) -> int:
    """How many frames a file has, which is read up to its pixels; 1 where nothing here can tell.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        pydicom = _pydicom()
    except ImageError:
        return 1
    file.seek(0)
    if _syntax(file.read(_HEAD)) not in _READ:
        return 1
    file.seek(0)
    try:
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
        return int(found.get("NumberOfFrames") or 1)
    except (pydicom.errors.InvalidDicomError, LookupError, AttributeError, TypeError, EOFError, struct.error) as error:
        raise ValueError(f"the DICOM file is damaged ({error})") from None


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.errors
        import pydicom.pixels
    except ImportError:
        raise ImageError(
            "this is a DICOM file, which needs one more package wherever images are read: pip install 'raydiff[dicom]'"
        ) from None
    return pydicom


def _syntax(head: bytes) -> str:
    """The transfer syntax: looked at before anything is unpacked."""
    place = head.find(_SYNTAX)
    if place < 0:
        raise ValueError("it does not say how it is written")
    (size,) = struct.unpack_from("<H", head, place + 6)
    return head[place + 8 : place + 8 + size].rstrip(b"\0 ").decode("ascii")


def _facts(found: Any) -> _Facts:
    def refuse(what: str) -> None:
        raise ImageError(f"the DICOM file holds {what}, which is not read; save it as grey of 8 or 16 bits")

    kind = str(_said(found, "PhotometricInterpretation"))
    if kind not in (_LOWEST_IS_WHITE, _LOWEST_IS_BLACK) or int(_said(found, "SamplesPerPixel")) != 1:
        refuse(f"{kind} pixels")
    allocated, bits, high = (int(_said(found, name)) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated not in (8, 16) or not 0 < bits <= allocated or high != bits - 1:
        refuse(f"{bits} bits up to bit {high} of {allocated}")
    if found.get("ModalityLUTSequence"):
        refuse("values that a table translates")
    return _Facts(
        int(_said(found, "Columns")),
        int(_said(found, "Rows")),
        int(found.get("NumberOfFrames") or 1),
        bits,
        bool(_said(found, "PixelRepresentation")),
        kind == _LOWEST_IS_WHITE,
    )


def _said(found: Any, name: str) -> Any:
    value = found.get(name)
    if value is None:
        raise ValueError(f"it does not say its {name}")
    return value


def _rescale(found: Any, number: int) -> tuple[float, float] | None:
    """Slope and intercept of a frame, if it has any: the file's, or an enhanced one's of all its frames or its own."""
    each = found.get("PerFrameFunctionalGroupsSequence") or []
    groups = [found, *(found.get("SharedFunctionalGroupsSequence") or []), *each[number - 1 : number]]
    rescale = None
    for group in groups:
        for said in (group, *(group.get("PixelValueTransformationSequence") or [])):
            if said.get("RescaleSlope") is not None or said.get("RescaleIntercept") is not None:
                rescale = float(_said(said, "RescaleSlope")), float(_said(said, "RescaleIntercept"))
    if rescale and not (rescale[0] and np.isfinite(rescale).all()):
        raise ValueError(f"its values are rescaled by {rescale[0]:g} and {rescale[1]:g}")
    return rescale


def _used(values: np.ndarray, said: _Facts) -> np.ndarray:
    """The stored values alone: above them there may be bits that mean something else (overlays)."""
    unused = 8 * values.dtype.itemsize - said.bits
    kind = values.dtype.newbyteorder("=")
    values = values.astype(kind, copy=False)
    if said.signed:
        return np.right_shift(np.left_shift(values, unused), unused)
    return values & kind.type(2**said.bits - 1)


def _samples(values: np.ndarray, said: _Facts, rescale: tuple[float, float] | None) -> Samples:
    white, measured = 0, rescale is not None
    if rescale not in (None, (1, 0)):
        slope, intercept = map(np.float32, rescale)
        values = values.astype(np.float32) * slope + intercept
    elif said.signed:
        values = values.astype(np.int32)  # which can be turned round
    else:
        white = 2**said.bits - 1
        values = values.astype(np.uint8) if said.bits <= 8 else values
    if not said.inverted:
        return Samples(values, white, measured=measured)
    return Samples(values.dtype.type(white) - values, white, inverted=white, measured=measured)
