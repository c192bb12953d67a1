"""Where in a picture a person is: MediaPipe's selfie segmentation (model card, 2021), at 256 x 256 pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from .crops import check_picture, resized
from .runtime import Floats, Kit

__all__ = ["segment_person"]

SIDE = 256


def segment_person(kit: Kit, image: npt.NDArray[np.generic]) -> Floats:
    """How surely each pixel of an RGB picture [h, w, 3] uint8 belongs to a person: [h, w], 0..1, soft at the rim.

    The network sees the picture squeezed to 256 x 256 and was taught on people near the camera. Raises ValueError for
    another array, and what `Kit.network` raises.
    """
    picture = check_picture(image)
    small = resized(picture, SIDE, SIDE)
    found = kit.network("person-segmentation")(small.astype(np.float32)[None] / 255)["mask"][0, :, :, 0]
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(found).resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)
