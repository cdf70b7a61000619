"""What pieces are worth against their plain forms: the coreset, AUPRO, and reading images. Ratios are of one run.

    python jobs/benchmark_pieces.py metrics --count 676 --side 224
    python jobs/benchmark_pieces.py coreset --vectors pool.npy --count 180000 --share 0.01 --timed 100
    python jobs/benchmark_pieces.py decode --photos DATA/screw/train/good --count 9 --side 224

The plain AUPRO sorts all pixels at once, as MVTec's own code does. The plain coreset is anomalib's loop, restated: a
projection to as many dimensions as Johnson and Lindenstrauss ask for at 0.9, then a pass over all vectors a step.
`--timed` steps of it are timed and all are reckoned from these; its radius is that of its picks, found lazily on the
same projection. Both radii are measured on the vectors as they are given.

Photographs of a folder, side by side, make a JPEG of 12 megapixels (quality 90) and a PNG of 900 x 900. Each is read
`--count` times in turn, whole and with `--view jpeg=scaled`, by one thread; rates are those of the median of the
processor's time.
"""

import io
import itertools
import time
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from scipy import ndimage
from torch import Tensor

from raydiff import cli, metrics, storage
from raydiff.errors import SettingsError
from raydiff.images.decode import decode, see
from raydiff.metrics import BinnedPixelMetrics
from raydiff.metrics.curve import FPR_LIMIT
from raydiff.nn import memory_bank
from raydiff.nn.memory_bank import greedy_coreset, nearest_neighbours
from raydiff.progress import console
from raydiff.views import View

PHOTOS = 12  # that a large image is made of
Maps = list[tuple[np.ndarray, np.ndarray]]


def main(
    piece: Annotated[str, typer.Argument(help="metrics, coreset or decode.")],
    count: Annotated[int, typer.Option(min=2, help="Maps, vectors drawn from the file, or times that each is read.")],
    side: Annotated[int, typer.Option(min=32, help="Pixels a side of a map, or of what a network sees.")] = 224,
    vectors: Annotated[str, typer.Option(help="A .npy file of vectors (n, d) of normal patches.")] = "",
    share: Annotated[float, typer.Option(help="Share of the vectors that is kept.")] = 0.01,
    timed: Annotated[int, typer.Option(min=1, help="Steps of the plain coreset that are timed.")] = 100,
    photos: Annotated[str, typer.Option(help="A folder of photographs of at least 64 x 64 pixels.")] = "",
) -> None:
    """Measure one piece and its plain form."""
    if piece == "metrics":
        console.print(measure_metrics(count, side))
    elif piece == "coreset" and vectors:
        console.print(measure_coreset(vectors, count, share, timed))
    elif piece == "decode" and photos:
        for name, found in measure_decode(photos, count, side).items():
            console.print(name, {what: round(value, 3) for what, value in found.items()})
    else:
        raise SettingsError(
            f"{piece!r} cannot be measured; give metrics, coreset with --vectors, or decode with --photos"
        )


def measure_metrics(count: int, side: int) -> dict[str, float]:
    """AUPRO of made maps, plain, exact and binned: values, seconds and ratios."""
    images = made_maps(count, side)
    start = time.perf_counter()
    plain = plain_aupro(images)
    sorted_at_once = time.perf_counter()
    exact = metrics.aupro(images)
    exact_done = time.perf_counter()
    look = [anomaly_map[~mask] for anomaly_map, mask in images[: max(1, 1_000_000 // side**2)]]
    state = BinnedPixelMetrics.from_normal_pixels(np.concatenate(look))
    for anomaly_map, mask in images:
        state.update(anomaly_map, mask)
    binned = state.compute().aupro
    end = time.perf_counter()
    seconds = sorted_at_once - start
    return {
        "plain": plain,
        "exact": exact,
        "binned": binned,
        "plain_seconds": seconds,
        "exact_seconds": exact_done - sorted_at_once,
        "binned_seconds": end - exact_done,
        "exact_ratio": seconds / (exact_done - sorted_at_once),
        "binned_ratio": seconds / (end - exact_done),
    }


def made_maps(count: int, side: int) -> Maps:
    """Smooth float32 noise (side, side), on every second map with one to three raised boxes, and their masks."""
    rng = np.random.default_rng(0)
    images = []
    for index in range(count):
        coarse = rng.normal(size=(-(-side // 8), -(-side // 8))).astype(np.float32)
        anomaly_map = ndimage.zoom(coarse, 8, order=1)[:side, :side]
        mask = np.zeros((side, side), bool)
        for top, left in rng.integers(0, side - side // 8, (rng.integers(1, 4) * (index % 2), 2)):
            mask[top : top + side // 10, left : left + side // 9] = True
        images.append(((anomaly_map + mask).astype(np.float32), mask))
    return images


def plain_aupro(images: Maps) -> float:
    """AUPRO with one argsort of all pixels."""
    shares, regions = [], 0
    for _, mask in images:
        labels, found = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel()).astype(np.float64)
        shares.append(np.where(mask, 1 / sizes[labels], 0).ravel())
        regions += found
    scores = np.concatenate([anomaly_map.ravel() for anomaly_map, _ in images])
    normal = np.concatenate([~mask.ravel() for _, mask in images])
    order = np.argsort(scores)[::-1]
    falling = scores[order]
    keep = np.append(falling[1:] != falling[:-1], True)
    fpr = np.append(0, np.cumsum(normal[order])[keep] / normal.sum())
    overlap = np.append(0, np.cumsum(np.concatenate(shares)[order])[keep] / regions)
    inside = int(np.searchsorted(fpr, FPR_LIMIT, side="right"))
    x = np.append(fpr[:inside], FPR_LIMIT)
    y = np.append(overlap[:inside], np.interp(FPR_LIMIT, fpr, overlap))
    return float(np.trapezoid(y, x) / FPR_LIMIT)


def measure_coreset(uri: str, count: int, share: float, timed: int) -> dict[str, float]:
    """Seconds and radii of both coresets."""
    held = np.load(uri, mmap_mode="r")
    drawn = np.sort(np.random.default_rng(0).permutation(len(held))[:count])
    vectors = torch.from_numpy(held[drawn].astype(np.float32))
    size = int(len(vectors) * share)
    start = time.perf_counter()
    taken = greedy_coreset(vectors, size, torch.Generator().manual_seed(0))
    seconds = time.perf_counter() - start
    dimensions = int(4 * np.log(len(vectors)) / (0.9**2 / 2 - 0.9**3 / 3))
    mix = torch.randn(vectors.shape[1], dimensions, generator=torch.Generator().manual_seed(1)) / dimensions**0.5
    start = time.perf_counter()
    projected = vectors @ mix
    projecting = time.perf_counter() - start
    plain_seconds = projecting + _plain_seconds(projected, min(timed, size)) * size
    assert dimensions <= memory_bank.PROJECTED, "the plain form's picks would be projected twice"
    plainly = greedy_coreset(projected, size, torch.Generator().manual_seed(0))
    return {
        "vectors": len(vectors),
        "kept": size,
        "seconds": seconds,
        "plain_seconds": plain_seconds,
        "ratio": plain_seconds / seconds,
        "radius": radius(vectors, taken),
        "plain_radius": radius(vectors, plainly),
    }


def _plain_seconds(points: Tensor, steps: int) -> float:
    """Seconds a step of the plain loop."""
    start = time.perf_counter()
    nearest = torch.full((len(points), 1), torch.inf)
    place = torch.tensor(0)
    for _ in range(steps):
        distance = torch.linalg.norm(points - points[place], ord=2, dim=1, keepdim=True)
        nearest = torch.minimum(nearest, distance)
        place = nearest.squeeze(1).argmax()
    return (time.perf_counter() - start) / steps


def radius(vectors: Tensor, taken: Tensor) -> float:
    """The largest distance of a vector (n, d) to the nearest one taken."""
    return max(float(nearest_neighbours(chunk, vectors[taken], 1)[0].max()) for chunk in vectors.split(4096))


def measure_decode(folder: str, count: int, side: int) -> dict[str, dict[str, float]]:
    """Images/s of each file that is made of a folder's photographs, whole and scaled, and how far apart they are seen.

    Differences are in levels, of 255, of what a network of `side` pixels sees.
    """
    found = {}
    for kind, height, width in (("JPEG", 3000, 4000), ("PNG", 900, 900)):
        data = _mosaic(folder, height, width, kind)
        seconds: dict[str, list[float]] = {"whole": [], "scaled": []}
        seen = {}
        for how in [*seconds] * count:
            begun = time.thread_time()
            seen[how] = see(data, View.parse({"jpeg": how}), side).pixels
            seconds[how].append(time.thread_time() - begun)
        apart = np.abs(seen["whole"].astype(np.float64) - seen["scaled"])
        found[f"{kind}, {width:,} x {height:,}"] = {
            "megabytes": len(data) / 1e6,
            **{f"{how}_images_s": 1 / float(np.median(taken)) for how, taken in seconds.items()},
            "mean_difference": float(apart.mean()),
            "largest_difference": float(apart.max()),
        }
    return found


def _mosaic(folder: str, height: int, width: int, kind: str) -> bytes:
    """Photographs side by side, each at its own scale, as a file."""
    photos = [decode(storage.read_bytes(uri)) for uri in storage.list_files(folder)[:PHOTOS]]
    rows, columns = (min(photo.shape[axis] for photo in photos) for axis in (0, 1))
    one_by_one = itertools.cycle(photo[:rows, :columns] for photo in photos)
    lines = [np.concatenate([*itertools.islice(one_by_one, -(-width // columns))], 1) for _ in range(0, height, rows)]
    whole = np.concatenate(lines)[:height, :width]
    sink = io.BytesIO()
    Image.fromarray(whole).save(sink, kind, quality=90)
    return sink.getvalue()


if __name__ == "__main__":
    cli.run(main)
