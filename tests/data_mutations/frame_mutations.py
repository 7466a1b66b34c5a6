"""Mutations of the frames on the disk."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, PngImagePlugin

from tests.data_mutations.mutation import ACCEPTED, HARMLESS, REPORTED, Change, Mutation, put, replace_bytes
from tests.veason.small_revos import HEIGHT, WIDTH

FOLDER = "JPEGImages/a"
FRAME = f"{FOLDER}/00007.jpg"  # neither the first nor the last
SHOWN_A = frozenset({"a/0", "a/1"})


def picture(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100_000))), (b"IEND", b""))
    )


def text_bomb() -> bytes:
    """A PNG with a compressed text of 64 MiB."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * (64 << 20), zip=True)
    return picture(kind="PNG", pnginfo=info)


def jpeg_of_claimed_size(width: int, height: int) -> Callable[[bytes], bytes]:
    """The same JPEG with another size in its header."""

    def change(raw: bytes) -> bytes:
        start = raw.index(b"\xff\xc0") + 5
        return raw[:start] + struct.pack(">HH", height, width) + raw[start + 4 :]

    return change


def _same_pixels(kind: str) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(raw)).save(buffer, kind)
        return buffer.getvalue()

    return change


def _sixteen_bits(raw: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((HEIGHT, WIDTH), 40_000, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


BAD_PICTURES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "cut_header": lambda raw: raw[:60],
    "cut_pixels": lambda raw: raw[: len(raw) - 150],
    "zeros": lambda raw: bytes(3000),
    "page": lambda raw: b"<html><body>404 Not Found</body></html>",
    "lfs_pointer": lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "gif": _same_pixels("GIF"),
    "tiff": _same_pixels("TIFF"),
    "postscript": lambda raw: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 48\nshowpage\n",
    "vector": lambda raw: b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="48"/>',
    "smaller": lambda raw: picture(size=(20, 10)),
    "transposed": lambda raw: picture(size=(HEIGHT, WIDTH)),
    "one_column_more": lambda raw: picture(size=(WIDTH + 1, HEIGHT)),
    "bomb_of_65500": lambda raw: png_bomb(65_500, 65_500),
    "bomb_of_20000": lambda raw: png_bomb(20_000, 20_000),
    "bomb_of_9000": lambda raw: png_bomb(9_000, 9_000),
    "claimed_size": jpeg_of_claimed_size(65_500, 65_500),
    "text_bomb": lambda raw: text_bomb(),
    "png_cut": lambda raw: _same_pixels("PNG")(raw)[:-40],
    "png_wrong_checksum": lambda raw: _same_pixels("PNG")(raw)[:29] + b"\0\0\0\0" + _same_pixels("PNG")(raw)[33:],
    "sixteen_bits": _sixteen_bits,
}
GOOD_PICTURES: dict[str, Callable[[bytes], bytes]] = {
    "png": _same_pixels("PNG"),
    "bmp": _same_pixels("BMP"),
    "grey": lambda raw: picture("L"),
    "palette": lambda raw: picture("P", kind="PNG"),
    "transparent": lambda raw: picture("RGBA", kind="PNG"),
    "print_colours": lambda raw: picture("CMYK"),
    "bytes_after_the_end": lambda raw: raw + b"\0" * 100,
}


def one_frame() -> Iterator[Mutation]:
    for name, change in BAD_PICTURES.items():
        yield Mutation(f"frame_{name}", replace_bytes([FRAME], change), affected=SHOWN_A)
    for name, change in GOOD_PICTURES.items():
        yield Mutation(f"frame_{name}", replace_bytes([FRAME], change), verdict=ACCEPTED)
    for what in ("nothing", "folder", "fifo", "socket", "loop", "dangling", "zero_device", "empty"):
        yield Mutation(f"frame_is_{what}", put([FRAME], what), affected=SHOWN_A)
    yield Mutation("frame_random_bytes", _random_bytes, affected=SHOWN_A)
    yield Mutation("frame_named_in_capitals", _rename("00007.jpg", "00007.JPG"), affected=SHOWN_A)
    yield Mutation("frame_linked", _link, verdict=HARMLESS)
    for number in (0, 11):
        bad = replace_bytes([f"{FOLDER}/{number:05d}.jpg"], lambda raw: picture(size=(20, 10)))
        yield Mutation(f"frame_{number}_smaller", bad)  # training refuses it when it is shown
    yield Mutation("frame_more_than_listed", replace_copy("00007.jpg", "00055.jpg"), verdict=REPORTED)


def _random_bytes(root: Path, rng: Random) -> None:
    (root / FRAME).write_bytes(rng.randbytes(2000))


def _rename(old: str, new: str) -> Change:
    def apply(root: Path, rng: Random) -> None:
        (root / FOLDER / old).rename(root / FOLDER / new)

    return apply


def replace_copy(old: str, new: str) -> Change:
    def apply(root: Path, rng: Random) -> None:
        (root / FOLDER / new).write_bytes((root / FOLDER / old).read_bytes())

    return apply


def _link(root: Path, rng: Random) -> None:
    path = root / FRAME
    path.rename(root / "elsewhere.jpg")
    path.symlink_to(root / "elsewhere.jpg")


def _link_folder(root: Path, rng: Random) -> None:
    folder = root / FOLDER
    folder.rename(root / "elsewhere")
    folder.symlink_to(root / "elsewhere")


def folders() -> Iterator[Mutation]:
    for what in ("nothing", "empty", "folder", "fifo", "socket", "loop", "dangling"):
        yield Mutation(f"frame_folder_is_{what}", put([FOLDER], what), affected=SHOWN_A)
    yield Mutation("frame_folder_linked", _link_folder, verdict=HARMLESS)
    for what in ("nothing", "fifo", "loop"):
        yield Mutation(f"all_frame_folders_are_{what}", put(["JPEGImages"], what))


def mutations() -> Iterator[Mutation]:
    yield from one_frame()
    yield from folders()
