"""The pixels of a TIFF: strips or tiles to bytes, bytes to numbers, numbers to colours.

A page is read if all of what it says about its pixels is in the lists below, and refused if anything is not: viewers
guess there, and each guesses differently.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import TiffImagePlugin

from raydiff.errors import ImageError
from raydiff.images import jpeg, pillow
from raydiff.images.samples import Samples, check_size
from raydiff.images.tiff_file import Data, Facts, Grid, Page, facts, grid, page_of

_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_DEPTHS = {_UNSIGNED: {*range(1, 17), 32, 64}, _SIGNED: {8, 16, 32, 64}, _FLOAT: {16, 32, 64}}
_AGREED = 16  # bits; deeper integers have no range that all programs share

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_NAMES = {4: "a transparency mask", 8: "LAB", 9: "ICC LAB", 10: "ITU LAB", 32803: "a colour filter array"}
_UNKNOWN, _ASSOCIATED, _ALPHA = 0, 1, 2  # what an extra channel means
_MOST_EXTRA = 5
_MOST_SAMPLES = 4 + _MOST_EXTRA
_BYTES_A_PIXEL = 16  # RGBA of 32-bit floats; a file with more is read up to a smaller number of pixels

NONE, JPEG, _DEFLATE, _OLD_DEFLATE = 1, 7, 8, 32946
_FAX = {2, 3, 4}
_BY_LIBTIFF = {5, 32773, 34925, 50000}  # LZW, PackBits, LZMA, Zstandard: bytes in, bytes out
_PREDICTED = {5, _DEFLATE, _OLD_DEFLATE, 34925, 50000}
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3

_COLOUR_MAP, _JPEG_TABLES, _FAX_3, _FAX_4, _COEFFICIENTS = 320, 347, 292, 293, 529
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def read(data: bytes, max_pixels: int, number: int | None = None) -> Samples:
    """The pixels of one page of a TIFF.

    Args:
        number: which page, from 1; None = the only one.

    Raises:
        ImageError: if there is no such page, it has more than `max_pixels`, or is of a variety that is not read.
        Exception: of any kind, if it is damaged.
    """
    page, before = page_of(data, number)
    said = facts(page)
    check_size(said.width, said.height, max_pixels)
    check_kind(said)
    if said.width * said.height * said.samples * said.bits > 8 * _BYTES_A_PIXEL * max_pixels:
        raise ImageError(
            f"the image is {said.width} x {said.height} pixels of {said.samples} times {said.bits} bits, more than "
            f"the limit of {max_pixels:,} pixels allows for; save it with 8 or 16 bits or raise the limit"
        )
    return samples_in(page, said, grid(page, said, before))


def samples_in(page: Page, said: Facts, cells: Grid) -> Samples:
    """The pixels of a page's strips or tiles; of some that are said to be all, theirs.

    Raises:
        Exception: of any kind, if they are damaged.
    """
    planes = range(len(cells.offsets))
    read_plane = _jpeg_plane if said.compression == JPEG else _plane
    values = np.concatenate([read_plane(page, said, cells, plane) for plane in planes], axis=2)
    return _samples(page, said, values)


def has_alpha(said: Facts) -> bool:
    """Whether a channel says what is to be seen of a pixel."""
    return _ALPHA in _extra(said)


def check_kind(said: Facts) -> None:
    """Refuse what is not read, whatever its size.

    Raises:
        ImageError: saying what it is.
    """

    def refuse(what: str) -> None:
        raise ImageError(f"the TIFF holds {what}, which is not read; save it as grey or RGB with 8 or 16 bits")

    if said.samples > _MOST_SAMPLES:
        refuse(f"{said.samples} channels")
    kind, colours = said.photometric, _COLOURS.get(said.photometric, 0)
    if not colours:
        refuse(_NAMES.get(kind, f"colours of kind {kind}") + " pixels")
    if said.bits not in _DEPTHS.get(said.sample_format, ()):
        refuse(f"{said.bits}-bit samples of format {said.sample_format}")
    whole = said.sample_format == _UNSIGNED and said.bits <= _AGREED
    extra = said.samples - colours
    meanings = _extra(said)
    if extra < 0 or extra > _MOST_EXTRA or len(said.extra) > extra or max(meanings, default=0) > _ALPHA:
        refuse(f"{said.samples} channels where {colours} were expected")
    if extra and (kind not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or (colours == 1 and meanings[0] == _UNKNOWN)):
        refuse(f"{extra} more channel(s) of unknown meaning")
    if extra > 1 and colours == 1:
        refuse(f"{said.samples} grey channels")
    if _ALPHA in meanings and not whole and said.sample_format != _FLOAT:
        refuse(f"{said.bits}-bit alpha")
    if kind == _WHITE_IS_ZERO and (said.sample_format == _SIGNED or _ASSOCIATED in meanings):
        refuse("signed or premultiplied grey whose zero is white")
    if (kind == _PALETTE and not whole) or (kind == _CMYK and (not whole or said.bits not in (8, 16))):
        refuse(f"{said.bits}-bit {'palette' if kind == _PALETTE else 'CMYK'} pixels of format {said.sample_format}")
    if kind == _YCBCR and (said.compression != JPEG or said.planar):
        refuse("YCbCr without JPEG")
    if said.compression == JPEG and (said.bits != 8 or said.sample_format != _UNSIGNED or kind == _PALETTE):
        refuse("a JPEG of other than 8-bit colours")
    if said.compression in _FAX and (said.bits != 1 or said.samples != 1):
        refuse("fax compression of more than 1 bit")
    if said.compression not in _BY_LIBTIFF | _FAX | {NONE, JPEG, _DEFLATE, _OLD_DEFLATE}:
        refuse(f"pixels of compression {said.compression}")
    if said.fill_order != 1 and (said.fill_order != 2 or said.compression not in _FAX | {NONE} or said.bits > 8):
        refuse(f"bits in order {said.fill_order}")
    if said.predictor != 1 and said.compression != JPEG:
        fits = {_DIFFERENCES: said.sample_format != _FLOAT and said.bits in (8, 16, 32, 64)}
        fits[_FLOAT_DIFFERENCES] = said.sample_format == _FLOAT
        if not fits.get(said.predictor) or said.compression not in _PREDICTED:
            refuse(f"{said.bits}-bit pixels of compression {said.compression} with predictor {said.predictor}")


def _extra(said: Facts) -> tuple[int, ...]:
    """What each channel behind the colours means; a file that does not say it shows its colours as they are."""
    return (said.extra + (_UNKNOWN,) * said.samples)[: max(said.samples - _COLOURS[said.photometric], 0)]


# ---- strips or tiles to bytes


def _plane(page: Page, said: Facts, cells: Grid, plane: int) -> np.ndarray:
    """(height, width, channels) of one plane, in the machine's byte order."""
    channels = 1 if said.planar else said.samples
    row = -(-cells.width * channels * said.bits // 8)
    lines = [cells.height] * cells.down
    if not cells.tiled:
        lines[-1] = said.height - cells.height * (cells.down - 1)
    lines = [each for each in lines for _ in range(cells.across)]
    offsets, sizes = cells.offsets[plane].tolist(), cells.sizes[plane].tolist()
    if said.compression in _BY_LIBTIFF | _FAX:
        body = _by_libtiff(page, said, cells, (offsets, sizes), row, sum(lines))
    else:
        body = _by_zlib_or_plain(page.data, said, offsets, sizes, [row * each for each in lines])
    if said.fill_order == 2 and said.compression == NONE:
        body = np.frombuffer(body.tobytes().translate(_REVERSED), np.uint8)
    values = _numbers(body.reshape(sum(lines), row), said, page.order, cells.width, channels)
    return _assembled(values, said, cells)


def _by_zlib_or_plain(data: Data, said: Facts, offsets: list[int], sizes: list[int], wanted: list[int]) -> np.ndarray:
    """The bytes of all cells, one behind the other."""
    if any(size < want for size, want in zip(sizes, wanted, strict=True)) and said.compression == NONE:
        raise ValueError("its strips or tiles are shorter than its pixels: it is truncated")
    if said.compression == NONE and all(
        offset + want == following for offset, want, following in zip(offsets, wanted, offsets[1:], strict=False)
    ):
        return np.frombuffer(data, np.uint8, sum(wanted), offsets[0])
    body, place = np.empty(sum(wanted), np.uint8), 0
    view = memoryview(data)
    for offset, size, want in zip(offsets, sizes, wanted, strict=True):
        cell = view[offset : offset + (want if said.compression == NONE else size)]
        unpacked = cell if said.compression == NONE else zlib.decompressobj().decompress(cell, want)
        if len(unpacked) != want:
            raise ValueError("a strip or tile unpacks to less than its pixels: it is truncated")
        body[place : place + want] = np.frombuffer(unpacked, np.uint8)
        place += want
    return body


def _by_libtiff(
    page: Page, said: Facts, cells: Grid, where: tuple[list[int], list[int]], row: int, lines: int
) -> np.ndarray:
    """The bytes of all cells, unpacked by libtiff, to which they are shown as strips of an 8-bit grey TIFF.

    Of its knowledge only the compression is used, so it makes no colours of them. It unpacks no more than is asked for.
    """
    fax = said.compression in _FAX
    cut = [page.data[offset : offset + size] for offset, size in zip(*where, strict=True)]
    offsets = np.cumsum([8] + [len(cell) for cell in cut])[:-1]
    tags: dict[int, np.ndarray | int] = {
        256: cells.width if fax else row,
        257: lines,
        258: 1 if fax else 8,
        259: said.compression,
        262: 1,
        266: said.fill_order,
        273: offsets,
        277: 1,
        278: cells.height,
        279: np.array(where[1]),
    }
    if fax:
        tags |= {_FAX_3: page.number(_FAX_3, 0)} if said.compression == 3 else {}
        tags |= {_FAX_4: page.number(_FAX_4, 0)} if said.compression == 4 else {}
    body = b"".join(cut)
    lists = b"".join(np.atleast_1d(value).astype("<u4").tobytes() for value in tags.values() if np.size(value) > 1)
    entries, place = b"", 8 + len(body)
    for tag, value in tags.items():
        number = np.atleast_1d(value)
        entries += struct.pack("<HHII", tag, 4, len(number), int(number[0]) if len(number) == 1 else place)
        place += 4 * len(number) if len(number) > 1 else 0
    head = struct.pack("<2sHI", b"II", 42, place)
    file = head + body + lists + struct.pack("<H", len(tags)) + entries + bytes(4)
    pillow.allow(row * lines)  # bytes, here
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(file))
    image.load()
    values = np.asarray(image)
    return np.packbits(values, axis=1).reshape(-1) if fax else values.reshape(-1)


def _jpeg_plane(page: Page, said: Facts, cells: Grid, plane: int) -> np.ndarray:
    """As `_plane`; YCbCr as RGB."""
    channels = 1 if said.planar else said.samples
    colours = {1: "grey", 4: "CMYK"}.get(channels, "YCbCr" if said.photometric == _YCBCR else "RGB")
    if channels == 2 or channels > 4:
        raise ImageError(f"the TIFF holds JPEGs of {channels} channels, which are not read; save it as RGB")
    full = cells.down * cells.height
    out = np.empty((full, cells.across * cells.width, channels), np.uint8)
    tables = page.raw(_JPEG_TABLES)
    for index, (offset, size) in enumerate(
        zip(cells.offsets[plane].tolist(), cells.sizes[plane].tolist(), strict=True)
    ):
        top, left = index // cells.across * cells.height, index % cells.across * cells.width
        lines = cells.height if cells.tiled else min(cells.height, said.height - top)
        cell = jpeg.segment_samples(page.data[offset : offset + size], tables, colours, cells.width, lines)
        out[top : top + lines, left : left + cells.width] = cell
    return out[: said.height, : said.width]


def _assembled(values: np.ndarray, said: Facts, cells: Grid) -> np.ndarray:
    """Cells that lie one below the other, to the picture."""
    if cells.across > 1:
        channels = values.shape[2]
        shape = (cells.down, cells.across, cells.height, cells.width, channels)
        values = values.reshape(shape).swapaxes(1, 2).reshape(cells.down * cells.height, -1, channels)
    return values[: said.height, : said.width]


# ---- bytes to numbers


def _numbers(body: np.ndarray, said: Facts, order: str, width: int, channels: int) -> np.ndarray:
    """(lines, bytes a line) to (lines, width, channels), in the machine's byte order."""
    lines, (bits, code) = len(body), (said.bits, {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}[said.sample_format])
    if bits not in (8, 16, 32, 64):
        return _narrow(body, bits, width * channels).reshape(lines, width, channels)
    size = bits // 8
    if said.predictor == _FLOAT_DIFFERENCES:
        bytes_ = np.cumsum(body.reshape(lines, -1, channels), axis=1, dtype=np.uint8).reshape(lines, size, -1)
        big = np.ascontiguousarray(bytes_.swapaxes(1, 2)).reshape(lines, -1).view(f">f{size}")
        return big.astype(f"=f{size}").reshape(lines, width, channels)
    values = body.view(f"{order}{code}{size}").reshape(lines, width, channels)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if said.predictor == _DIFFERENCES:
        raw = values.view(f"u{size}")
        values = np.cumsum(raw, axis=1, dtype=raw.dtype).view(values.dtype)  # modulo 2**bits
    return values


def _narrow(body: np.ndarray, bits: int, count: int) -> np.ndarray:
    """(lines, bytes a line), the highest bit first, to (lines, `count`) whole numbers of 1 to 16 bits."""
    if bits == 1:
        return np.unpackbits(body, axis=1, count=count)
    first = np.arange(count) * bits
    place, shift = first // 8, (24 - bits - first % 8).astype(np.uint32)
    out = np.empty((len(body), count), np.uint8 if bits <= 8 else np.uint16)
    step = max(1, 2**20 // max(count, 1))
    for top in range(0, len(body), step):
        block = np.pad(body[top : top + step], ((0, 0), (0, 2))).astype(np.uint32)
        window = block[:, place] << 16 | block[:, place + 1] << 8 | block[:, place + 2]
        out[top : top + step] = window >> shift & (2**bits - 1)
    return out


# ---- numbers to colours


def _samples(page: Page, said: Facts, values: np.ndarray) -> Samples:
    agreed = said.sample_format == _UNSIGNED and said.bits <= _AGREED
    white = 1 if said.sample_format == _FLOAT else 2**said.bits - 1 if agreed else 0
    blurred = said.compression == JPEG
    kind, count = said.photometric, _COLOURS[said.photometric]
    colours, alpha, opaque = values[..., :count], None, white
    inverted = (white or 2**said.bits - 1) if kind == _WHITE_IS_ZERO else None
    extra = _extra(said)
    if _ALPHA in extra:
        alpha = values[..., count + extra.index(_ALPHA)]
        if said.sample_format == _FLOAT:
            if not (alpha.min() >= 0 and alpha.max() <= 1):
                raise ImageError("the alpha channel is of floats and not all within 0 to 1; scale it")
            alpha, opaque = np.rint(alpha.astype(np.float64) * 65535).astype(np.uint16), 65535
    if inverted is not None:
        colours = inverted - colours
    elif kind == _PALETTE:
        colours, white = _colour_map(page, said)[colours[..., 0]], 255
    elif kind == _CMYK:
        inks = white - colours  # what each lets through
        light = (inks[..., :3].astype(np.uint32) * inks[..., 3:] + white // 2) // white
        colours = light.astype(inks.dtype)
    return Samples(colours, white, alpha, opaque, said.orientation, blurred, inverted=inverted)


def _colour_map(page: Page, said: Facts) -> np.ndarray:
    """uint8 (colours, 3)."""
    found = page.numbers(_COLOUR_MAP)
    if found is None or len(found) < 3 * 2**said.bits:
        raise ValueError("its palette is missing or too short")
    table = found[: 3 * 2**said.bits].reshape(3, -1).T
    # 16 bits a colour; some programs write 8, and libtiff takes a map without any higher value for that.
    return (table >> 8 if (table > 255).any() else table).astype(np.uint8)
