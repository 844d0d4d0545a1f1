# ruff: noqa: INP001 -- a script, not part of a package
# mypy: ignore-errors
"""What pictures become by Pillow and numpy: `python reference.py DIRECTORY` writes pictures, tensors and cases.json.

Each case names a picture, a declaration of preprocessing, the tensor's file (float64) and by how much, in levels of
0..255, any element and the mean may differ. Resizing without antialiasing, and by area, which Pillow does not have, is
done with matrices.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

EXACT = (0.002, 0.0005)  # float32 sums
LOSSY = (2.5, 0.7)  # two decoders' DCTs
SHAPE = {"width": 17, "height": 13, "color": "rgb", "range": [0, 255]}


def scene(width: int, height: int, mode: str) -> Image.Image:
    """Slopes, an edge and some noise."""
    random = np.random.default_rng(width * height)
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / width
    green = 255 * y / height
    blue = np.where((x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3) ** 2, 220, 30)
    alpha = np.clip(400 * np.sin(3 * x / width) * np.sin(3 * y / height), 0, 255)
    colours = np.stack([red, green, blue, alpha], axis=-1) + random.normal(0, 3, (height, width, 4))
    image = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8), "RGBA")
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def weights(kind: str, source: int, target: int, left: float, length: float) -> np.ndarray:
    """A matrix that resizes one axis."""
    step = length / target
    matrix = np.zeros((target, source))
    pixels = np.arange(source)
    for i in range(target):
        low = left + i * step
        if kind == "area":
            row = np.clip(np.minimum(low + step, pixels + 1) - np.maximum(low, pixels), 0, None)
        else:
            x = np.abs(pixels + 0.5 - (low + step / 2))
            if kind == "bilinear":
                row = np.clip(1 - x, 0, None)
            else:
                near = 1.5 * x**3 - 2.5 * x**2 + 1
                far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
                row = np.where(x < 1, near, np.where(x < 2, far, 0))
        matrix[i] = row / row.sum()
    return matrix


def resize(plane: np.ndarray, how: dict[str, Any], size: tuple[int, int], box: tuple[float, ...]) -> np.ndarray:
    """One channel, width x height."""
    kind = how.get("resize", "bilinear")
    if kind == "nearest" or how.get("antialias"):
        method = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[kind]
        return np.asarray(Image.fromarray(plane.astype(np.float32), "F").resize(size, method, box=box), np.float64)
    down = weights(kind, plane.shape[0], size[1], box[1], box[3] - box[1])
    across = weights(kind, plane.shape[1], size[0], box[0], box[2] - box[0])
    return down @ plane @ across.T


def tensor(picture: bytes, how: dict[str, Any]) -> np.ndarray:
    """The whole way, from a file to what the model is fed."""
    image = Image.open(io.BytesIO(picture))
    if how.get("orientation") != "stored":
        image = ImageOps.exif_transpose(image)
    grey = how["color"] == "grayscale"
    if image.mode in ("RGBA", "P", "LA") and (image.mode == "RGBA" or "transparency" in image.info):
        behind = how.get("background", 255)
        behind = tuple(behind) if isinstance(behind, list) else (behind,) * 3
        if how["color"] == "bgr":
            behind = behind[::-1]
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*behind, 255)), image)
    image = image.convert("RGB").convert("L") if grey else image.convert("RGB")
    pixels = np.asarray(image, np.float64).reshape(image.height, image.width, -1)
    if how["color"] == "bgr":
        pixels = pixels[..., ::-1]
    channels = pixels.shape[-1]

    def each(name: str, initial: float) -> np.ndarray:
        return np.broadcast_to(np.asarray(how.get(name, initial), np.float64), channels)

    size = (how["width"], how["height"])
    box = (0.0, 0.0, float(image.width), float(image.height))
    inner, at = size, (0, 0)
    if how.get("fit") == "crop":
        aspect = size[0] / size[1]
        wide = min(image.width, image.height * aspect) * how.get("crop_fraction", 1)
        tall = min(image.height, image.width / aspect) * how.get("crop_fraction", 1)
        box = ((image.width - wide) / 2, (image.height - tall) / 2, (image.width + wide) / 2, (image.height + tall) / 2)
        if how.get("crop_fraction", 1) == 1:  # Pillow agrees about the frame
            ours = ImageOps.fit(image, size, Image.BICUBIC)
            assert np.array_equal(np.asarray(ours), np.asarray(image.resize(size, Image.BICUBIC, box=box)))
    if how.get("fit") == "letterbox":
        inner = ImageOps.contain(image, size).size
        at = (round((size[0] - inner[0]) / 2), round((size[1] - inner[1]) / 2))
    result = np.empty((size[1], size[0], channels))
    result[:] = each("pad", 0)
    for channel in range(channels):
        plane = np.clip(resize(pixels[..., channel], how, inner, box), 0, 255)
        result[at[1] : at[1] + inner[1], at[0] : at[0] + inner[0], channel] = plane
    low, high = how.get("range", [0, 255])
    result = (result * ((high - low) / 255) + low - each("mean", 0)) * each("scale", 1)
    if how.get("dtype") == "uint8":
        result = np.clip(np.rint(result), 0, 255)
    return result.transpose(2, 0, 1) if how.get("layout") == "NCHW" else result


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def first_frame() -> bytes:
    """A moving GIF whose second frame is another picture."""
    frames = [
        scene(41, 37, "RGB").quantize(64),
        scene(41, 37, "L").convert("RGB").rotate(90).resize((41, 37)).quantize(8),
    ]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def pictures() -> dict[str, tuple[bytes, tuple[float, float]]]:
    """Every format and kind, with the tolerance its decoders need."""
    rgb, odd = scene(61, 47, "RGB"), scene(45, 62, "RGB")
    turned = {}
    for value in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = value
        turned[f"turned-{value}.jpg"] = (encoded(odd, "JPEG", quality=97, subsampling=0, exif=exif), LOSSY)
        turned[f"turned-{value}.png"] = (encoded(odd, "PNG", exif=exif), EXACT)
        turned[f"turned-{value}.webp"] = (encoded(odd, "WEBP", lossless=True, exact=True, exif=exif), EXACT)
    alpha = scene(61, 47, "RGBA")
    return turned | {
        "rgb.png": (encoded(rgb, "PNG"), EXACT),
        "small.png": (encoded(scene(5, 4, "RGB"), "PNG"), EXACT),
        "one.png": (encoded(scene(1, 1, "RGB"), "PNG"), EXACT),
        "large.png": (encoded(scene(640, 411, "RGB"), "PNG"), EXACT),
        "grey.png": (encoded(scene(61, 47, "L"), "PNG"), EXACT),
        "palette.png": (encoded(rgb.quantize(200), "PNG"), EXACT),
        "bits.png": (encoded(scene(61, 47, "L").convert("1"), "PNG"), EXACT),
        "alpha.png": (encoded(alpha, "PNG"), (1.01, 0.3)),  # Pillow rounds when it composes
        "alpha.webp": (encoded(alpha, "WEBP", lossless=True, exact=True), (1.01, 0.3)),
        "alpha-lossy.webp": (encoded(alpha, "WEBP", quality=95), LOSSY),
        "444.jpg": (encoded(rgb, "JPEG", quality=97, subsampling=0), LOSSY),
        "422.jpg": (encoded(rgb, "JPEG", quality=90, subsampling=1), LOSSY),
        "420.jpg": (encoded(rgb, "JPEG", quality=90, subsampling=2), LOSSY),
        "420-even.jpg": (encoded(scene(64, 48, "RGB"), "JPEG", quality=90, subsampling=2), LOSSY),
        "progressive.jpg": (encoded(rgb, "JPEG", quality=90, progressive=True), LOSSY),
        "grey.jpg": (encoded(scene(61, 47, "L"), "JPEG", quality=95), LOSSY),
        "cmyk.jpg": (encoded(rgb.convert("CMYK"), "JPEG", quality=97), LOSSY),
        "first.gif": (first_frame(), EXACT),
        "24.bmp": (encoded(rgb, "BMP"), EXACT),
        "8.bmp": (encoded(rgb.quantize(256), "BMP"), EXACT),
        "lossy.webp": (encoded(rgb, "WEBP", quality=90), LOSSY),
        "lossless.webp": (encoded(rgb, "WEBP", lossless=True), EXACT),
    }


def ways() -> list[dict[str, Any]]:
    """Every way to preprocess, on one exact picture."""
    found: list[dict[str, Any]] = []
    for fit in ("stretch", "crop", "letterbox"):
        for resampling in (
            {"resize": "area"},
            {"resize": "bilinear"},
            {"resize": "bicubic"},
            {"resize": "nearest"},
            {"resize": "bilinear", "antialias": True},
            {"resize": "bicubic", "antialias": True},
        ):
            if fit == "letterbox" or resampling["resize"] != "nearest" or fit == "stretch":
                found.append(SHAPE | resampling | {"fit": fit})
                found.append(SHAPE | resampling | {"fit": fit, "width": 90, "height": 100})
    torch = {"range": [0, 1], "mean": [0.485, 0.456, 0.406], "scale": [1 / 0.229, 1 / 0.224, 1 / 0.225]}
    return [
        *found,
        SHAPE | {"color": "grayscale"},
        SHAPE | {"color": "bgr"},
        SHAPE
        | {"color": "bgr", "layout": "NCHW", "mean": [103.9, 116.8, 123.7], "fit": "letterbox", "pad": [10, 20, 30]},
        SHAPE
        | torch
        | {"layout": "NCHW", "fit": "crop", "crop_fraction": 0.875, "resize": "bicubic", "antialias": True},
        SHAPE | {"range": [-1, 1]},
        SHAPE | {"dtype": "uint8"},
        SHAPE | {"dtype": "float16", "range": [0, 1]},
        SHAPE | {"fit": "letterbox", "pad": 114, "width": 64, "height": 64},
    ]


def main(directory: Path) -> None:
    """Write everything."""
    cases = []
    files = pictures()

    def case(name: str, how: dict[str, Any], tolerance: tuple[float, float]) -> None:
        place = f"{len(cases)}.bin"
        (directory / place).write_bytes(tensor(files[name][0], how).astype("<f8").tobytes())
        cases.append({"picture": name, "preprocess": how, "tensor": place, "any": tolerance[0], "mean": tolerance[1]})

    for name, (content, tolerance) in files.items():
        (directory / name).write_bytes(content)
        for colour in ("rgb", "grayscale"):
            case(name, SHAPE | {"color": colour, "resize": "area"}, tolerance)
        size = Image.open(io.BytesIO(content)).size
        case(
            name,
            SHAPE | {"resize": "nearest", "orientation": "stored", "width": size[0], "height": size[1]},
            (3.5, tolerance[1]) if tolerance == LOSSY else tolerance,
        )  # every pixel by itself
        case(name, SHAPE | {"resize": "bilinear", "fit": "letterbox"}, tolerance)
    for how in ways():
        loose = how.get("dtype") in ("uint8", "float16")
        for name in ("rgb.png", "small.png", "turned-6.png", "turned-7.png"):
            case(name, how, (1.001, 0.05) if loose else EXACT)
    for name in ("alpha.png", "alpha.webp"):
        case(name, SHAPE | {"background": [200, 0, 60]}, (1.01, 0.3))
        case(name, SHAPE | {"background": [200, 0, 60], "color": "bgr"}, (1.01, 0.3))
    (directory / "cases.json").write_text(json.dumps(cases))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
