import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mmaudio.media import MediaError, probe, read_image


def saved(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return read_image(path)


def test_rgb(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    image = saved(tmp_path / "x.png", array)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), array)


def test_transparent_pixels_show_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 1] = (10, 20, 30, 255)
    rgba[:, 2] = (0, 0, 0, 128)
    image = saved(tmp_path / "x.png", rgba)
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 0, 1].tolist() == [10, 20, 30]
    assert image[:, 0, 2].tolist() == [127, 127, 127]


def test_grey_of_8_and_16_bits_and_palettes(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    assert saved(tmp_path / "l.png", grey)[0].tolist() == grey.tolist()
    deep = saved(tmp_path / "i16.png", grey.astype(np.uint16) * 257)
    assert deep[2].tolist() == grey.tolist()
    palette = Image.fromarray(np.repeat(grey[..., None], 3, 2)).quantize(16)
    palette.save(tmp_path / "p.png")
    assert (read_image(tmp_path / "p.png")[1].int() - torch.from_numpy(grey).int()).abs().max() <= 8
    palette.save(tmp_path / "pt.png", transparency=palette.getpixel((0, 0)))
    assert read_image(tmp_path / "pt.png")[:, 0, 0].tolist() == [255, 255, 255]


def test_exif_orientation(tmp_path):
    array = np.zeros((20, 30, 3), np.uint8)
    array[:, :15] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter to the right: the left side becomes the top
    image = saved(tmp_path / "x.jpg", array, exif=exif, quality=95)
    assert image.shape == (3, 30, 20)
    assert image[:, 2].float().mean() > 240
    assert image[:, -3].float().mean() < 15
    assert (probe(tmp_path / "x.jpg").width, probe(tmp_path / "x.jpg").height) == (20, 30)


def test_first_frame_of_animations(tmp_path):
    frames = [Image.new("RGB", (16, 16), (level, 0, 0)) for level in (200, 100)]
    for suffix in (".gif", ".webp", ".png"):
        path = tmp_path / f"x{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
        assert abs(int(read_image(path)[0, 8, 8]) - 200) < 10, suffix
    assert probe(tmp_path / "x.gif").kind == "video"


def test_decompression_bomb(tmp_path):
    """A few kilobytes that would unfold to ten gigapixels."""
    path = tmp_path / "bomb.png"

    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    for reader in (read_image, probe):
        with pytest.raises(MediaError, match="larger than"):
            reader(path)


def test_damaged_pictures(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in (".png", ".jpg", ".webp"):
        path = tmp_path / f"x{suffix}"
        saved(path, array)
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(MediaError):
            read_image(path)
