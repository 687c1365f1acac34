"""Pictures: files of a few kinds, or arrays of pixels, brought to the one shape that a model takes.

In a table a picture is the content of its file, as bytes. In a request it is that content in base64, as a string or as
``{"b64": "..."}`` (as TensorFlow Serving has it), or the pixels as nested arrays of numbers from 0 to 255. Training and
serving read them with the same function.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from longshore.errors import MissingExtra

__all__ = ["decode_image", "encode_image", "image_shape", "image_text", "read_image"]

_MODES: Final[Mapping[int, str]] = {1: "L", 3: "RGB", 4: "RGBA"}
_GREY: Final = frozenset({"1", "L", "LA", "La", "I", "F"})

# others have readers that start programs, or that few look after
_FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")

_MOST_PIXELS: Final = 2**26
"""A small file can hold a picture that fills the memory; this one takes 192 MiB."""


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtra("reading pictures", "PIL", "torch") from error
    return Image


def _open(content: bytes) -> Any:
    from PIL import UnidentifiedImageError

    try:
        image = _pillow().open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"expected a picture, got bytes that are none of {', '.join(_FORMATS)}") from error
    except Exception as error:  # a file's reader raises what it stumbles over
        raise ValueError(f"the picture cannot be read: {error}") from error
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise ValueError(f"the picture has {width} x {height} pixels, more than the {_MOST_PIXELS} that are read")
    return image


def image_shape(content: bytes) -> tuple[int, int, int]:
    """Height, width and channels of a picture as it is: 1 channel if it is grey, else 3.

    Args:
        content: The file's bytes.

    Raises:
        ValueError: If it is no picture.
    """
    image = _open(content)
    width, height = image.size
    # a phone writes down how it was held, and leaves the pixels as the sensor has them
    if image.getexif().get(0x0112, 1) >= 5:
        width, height = height, width
    grey = image.mode in _GREY or image.mode.startswith("I;")
    return height, width, 1 if grey else 3


def decode_image(content: bytes, shape: Sequence[int]) -> np.ndarray:
    """A picture's pixels.

    Args:
        content: The file's bytes.
        shape: Height, width and channels that it is brought to: turned as its file says, scaled by bilinear
            interpolation where it has another size, and without the channels that are too many.

    Returns:
        ``uint8`` of that shape.

    Raises:
        ValueError: If it is no picture.
    """
    height, width, channels = shape
    image = _open(content)
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            # Pillow would cut off whatever is above 255
            image = _pillow().fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert(_MODES[channels])
        if image.size != (width, height):
            image = image.resize((width, height), _pillow().Resampling.BILINEAR)
    except Exception as error:  # damaged files raise what their reader stumbles over
        raise ValueError(f"the picture cannot be read: {error}") from error
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels)


def encode_image(pixels: np.ndarray) -> bytes:
    """A PNG file, which loses nothing.

    Args:
        pixels: ``uint8``, height x width or height x width x channels.
    """
    array = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    stream = io.BytesIO()
    _pillow().fromarray(np.ascontiguousarray(array)).save(stream, format="PNG")
    return stream.getvalue()


def image_text(pixels: np.ndarray) -> str:
    """A picture as a request carries it: its PNG file in base64."""
    return base64.b64encode(encode_image(pixels)).decode("ascii")


def read_image(value: Any, shape: Sequence[int]) -> np.ndarray:
    """A picture of a table or a request.

    Args:
        value: The file's bytes, those in base64, or pixels.
        shape: Height, width and channels.

    Returns:
        ``uint8`` of that shape.

    Raises:
        ValueError: If it is none; the message says what it is.
    """
    if isinstance(value, np.ndarray):
        return _pixels(value, shape)
    if isinstance(value, Mapping) and set(value) == {"b64"}:
        value = value["b64"]
    if isinstance(value, str):
        return decode_image(_from_base64(value), shape)
    if isinstance(value, (bytes, bytearray)):
        return decode_image(bytes(value), shape)
    if isinstance(value, list):
        try:
            return _pixels(np.array(value, dtype=np.float64), shape)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, _Pixels):
                raise
            raise ValueError("expected a picture, got arrays that hold no numbers or are not of one length") from error
    what = "nothing" if value is None else type(value).__name__
    raise ValueError(f"expected a picture (a file in base64, or arrays of pixels), got {what}")


class _Pixels(ValueError):
    """Pixels that are none; it has the words for it."""


def _from_base64(text: str) -> bytes:
    content = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise ValueError(f"expected a picture in base64, got {shown!r}") from error


def _pixels(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    wanted = tuple(shape)
    if array.shape == wanted[:2] and wanted[2] == 1:
        array = array[:, :, None]
    if array.shape != wanted:
        raise _Pixels(f"expected pixels of the shape {list(wanted)}, got {list(array.shape)}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf" or not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise _Pixels("expected pixels as whole numbers from 0 to 255")
    return array.astype(np.uint8)
