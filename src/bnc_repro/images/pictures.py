"""Picture files, read; and pixels as a network sees them."""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

# Pillow's other decoders are for formats of no data set; EPS is recognised, to say that it is not drawn.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF", "EPS")
MOST_PIXELS = 2**26  # of a picture, 256 MiB in memory: a small file may claim any size


@lru_cache
def formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read(path: str | os.PathLike, exif_rotation: bool = False) -> Image.Image:
    """Decode a whole picture file into RGB.

    `exif_rotation=False` keeps the pixels as they are stored, which is what COCO's annotations refer to;
    `True` turns the picture as its EXIF tag asks.

    Raises ValueError, naming file and remedy, for a file that is missing, empty, cut off or no picture, that has more
    than `MOST_PIXELS`, or that another program would have to draw.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"picture {path} is missing: copy the data set again, or correct its folder")
    if not path.is_file():
        raise ValueError(f"picture {path} is not a file: remove it, or copy the data set again")
    if path.stat().st_size == 0:
        raise ValueError(f"picture {path} is empty (0 bytes): copy it again")
    try:
        with Image.open(path, formats=formats()) as opened:
            _check_before_decoding(opened, path)
            picture = ImageOps.exif_transpose(opened) if exif_rotation else opened
            return _eight_bits(picture, path, opened.format).convert("RGB")
    except UnidentifiedImageError:
        raise ValueError(
            f"{path} is not a picture that Pillow can read: copy it again, convert it to JPEG or PNG, or remove it"
        ) from None
    except PermissionError:
        raise ValueError(f"picture {path} may not be read: change its permissions (chmod +r)") from None
    except _Refused:
        raise
    except Image.DecompressionBombError:
        raise ValueError(f"picture {path} has more than {MOST_PIXELS:,} px: make it smaller") from None
    except Exception as error:  # a decoder raises anything
        raise ValueError(f"picture {path} is damaged or cut off ({error}): copy it again") from None


class _Refused(ValueError):
    """A picture that is sound and not decoded; the sentence says why."""


def _check_before_decoding(opened: Image.Image, path: Path) -> None:
    """Raises ValueError for EPS, which Pillow hands to Ghostscript, and for more than `MOST_PIXELS`."""
    if opened.format == "EPS":
        raise _Refused(f"picture {path} is an EPS, which another program would have to run: convert it to JPEG or PNG")
    if opened.width * opened.height > MOST_PIXELS:
        raise _Refused(
            f"picture {path} has {opened.width} x {opened.height} px, more than {MOST_PIXELS:,}: make it smaller"
        )


def _eight_bits(picture: Image.Image, path: Path, form: str | None) -> Image.Image:
    """A picture of 16 bits in the 8 that networks see, by its upper byte; others as they are. Raises ValueError for
    floating point numbers, whose black and white nobody knows, and for more than 16 bits."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    if picture.mode == "I" and form not in ("PNG", "PPM"):  # those are Pillow's 16 bits
        raise _Refused(f"picture {path} holds numbers of 32 bits, whose white nobody knows: convert it to 8 or 16 bits")
    if picture.mode.startswith("F") or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise _Refused(f"picture {path} holds {picture.mode} numbers beyond 16 bits: convert it to 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


# channel means and deviations of ImageNet's pixels, 0..255, and those of each kind of data
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
STATISTICS = {
    "fashion_mnist": ((72.9,), (90.0,)),
    "cifar10": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "imagefolder": IMAGENET,
    "coco": IMAGENET,
}


def normalise(images: Tensor, kind: str, light: Tensor | None = None) -> Tensor:
    """uint8 (N, C, H, W) -> float32 with mean 0 and deviation 1 per channel; light (N, C) is added in 0..1."""
    mean, deviation = _statistics(kind, images.device)
    pixels = images.float()
    if light is not None:
        pixels = pixels + 255 * light.view(*light.shape, 1, 1)
    return ((pixels - mean) / deviation).contiguous(memory_format=torch.channels_last)


@lru_cache
def _statistics(kind: str, device: torch.device) -> list[Tensor]:
    return [torch.tensor(values, device=device).view(1, -1, 1, 1) for values in STATISTICS[kind]]
