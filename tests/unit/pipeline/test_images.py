"""Decoding images: modes, orientation, odd sizes, and files that are no images."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.types import DataError, ImageFile, ImageSource
from modeling.image import UInt8Array
from pipeline.images import decode_image


def decode(image: ImageSource, size: int) -> UInt8Array:
    return decode_image(image, size).pixels


def source(tmp_path: Path, image: Image.Image, name: str = "a.png", **options: object) -> ImageFile:
    image.save(tmp_path / name, **options)  # type: ignore[arg-type]
    return ImageFile(tmp_path / name, name)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    name = "a.jpg" if mode == "CMYK" else "a.png"
    pixels = decode(source(tmp_path, Image.new(mode, (20, 10)), name), 14)
    assert pixels.shape == (14, 14, 3)
    assert pixels.dtype == np.uint8


def test_deep_grey_keeps_its_tones(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((8, 8), 32768, np.uint16))
    assert abs(int(decode(source(tmp_path, deep), 4)[0, 0, 0]) - 128) <= 1


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.array([[[250, 0, 0], [0, 0, 250]]], np.uint8), 8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    turned = decode(source(tmp_path, image, exif=exif), 16)
    assert turned[8, 2, 2] > 200
    assert turned[8, -2, 0] > 200


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_narrow_images(size: tuple[int, int], tmp_path: Path) -> None:
    assert decode(source(tmp_path, Image.new("RGB", size, (9, 9, 9))), 28).max() == 9


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"hello", "no image of a known format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC, which the installed Pillow does not read: convert it"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "is SVG"),
        (b"%PDF-1.7", "is PDF"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_image_is_named(data: bytes | None, reason: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(DataError, match=rf"image x\.jpg: .*{reason}"):
        decode(ImageFile(tmp_path / "x.jpg", "x.jpg"), 14)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_truncated_images_are_named(format_: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(stream, format_)
    (tmp_path / "cut").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    with pytest.raises(DataError, match="image cut: damaged"):
        decode(ImageFile(tmp_path / "cut", "cut"), 14)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_damage_is_a_data_error(tmp_path: Path) -> None:
    """Bytes altered anywhere, also where decoders do not look out for it (orientation tags, unknown layouts)."""
    chance = np.random.default_rng(0)
    image, exif = Image.fromarray(chance.integers(0, 256, (24, 16, 3), np.uint8)), Image.Exif()
    exif[0x0112] = 6
    dds = bytearray(_encoded(image, "DDS"))
    dds[80:84] = bytes(4)  # no pixel format at all
    (tmp_path / "x").write_bytes(dds)
    with pytest.raises(DataError, match="image x: damaged"):
        decode(ImageFile(tmp_path / "x", "x"), 14)
    for format_ in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        whole = _encoded(image, format_, exif=exif)
        for _ in range(60):
            data = bytearray(whole)
            data[chance.integers(0, min(len(data), 200))] = chance.integers(0, 256)
            (tmp_path / "x").write_bytes(data)
            with contextlib.suppress(DataError):
                assert decode(ImageFile(tmp_path / "x", "x"), 14).shape == (14, 14, 3)


def _encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


@pytest.mark.parametrize("size", [490, 112, 14])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_an_image_is_resized_as_the_reference_does(orientation: int | None, size: int, tmp_path: Path) -> None:
    """Bit for bit Pillow's bilinear resize (antialiased where it shrinks) of the upright 8-bit RGB image."""
    pixels = np.random.default_rng(0).integers(0, 256, (61, 97, 3), np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    decoded = decode(source(tmp_path, Image.fromarray(pixels), exif=exif), size)
    upright = np.rot90(pixels, {3: 2, 6: -1, 8: 1}.get(orientation or 1, 0))
    expected = Image.fromarray(np.ascontiguousarray(upright)).resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decoded, np.asarray(expected))
    bicubic = Image.fromarray(np.ascontiguousarray(upright)).resize((size, size), Image.Resampling.BICUBIC)
    assert (decoded != np.asarray(bicubic)).any()


def test_an_image_of_the_models_size_stays_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    np.testing.assert_array_equal(decode(source(tmp_path, Image.fromarray(pixels)), 112), pixels)
