"""From image files to scores, images/s, in one run: raydiff's bare loop by torch and by OpenVINO, and anomalib's
PatchCore by both.

    pip install -e '.[peers]'
    python jobs/benchmark_peers.py --data /data/mvtec/tile --out bench

The same backbone (random weights, which cost the same), size, features, bank size and images, and all cores for each.
anomalib's bank is chosen first; raydiff's gets as many vectors. Nobody writes maps. The rates are medians of three
passes after a warm one; anomalib's own start of each pass counts, as `Engine.predict` offers no other way.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import typer
from PIL import Image

from raydiff import cli, methods, storage
from raydiff.benchmark.speed import bare_loop
from raydiff.errors import DataError
from raydiff.images.decode import decode, resize
from raydiff.model.description import describe
from raydiff.model.folder import Model
from raydiff.model.scorer import examples_of
from raydiff.nn.engine import Engine
from raydiff.progress import console
from raydiff.scoring.archive_run import list_images

BACKBONE, STAGES, SIZE, GRID = "mobilenetv2_100", (2, 3), 224, 28
THREADS = 4  # that decode for the OpenVINO export, and its requests at a time, of batches that it was exported for
PASSES = 3


def main(
    data: Annotated[str, typer.Option(help="A category's folder in MVTec AD's layout, on this machine.")],
    out: Annotated[str, typer.Option(help="A new folder for models and peers.json.")],
    normals: Annotated[int, typer.Option(min=2, help="Normal images that anomalib's bank is chosen from.")] = 60,
    share: Annotated[float, typer.Option(help="Share of their patches that the bank keeps.")] = 0.08,
    workers: Annotated[int, typer.Option(min=1, help="Processes of raydiff's bare loop: one a core.")] = 2,
) -> None:
    """Measure the three on the test images of one category."""
    test = sorted(str(path) for path in Path(data).glob("test/*/*"))
    train = sorted(Path(data).glob("train/good/*"))[:normals]
    if not test or len(train) < 2:
        raise DataError(f"{data} has no images in train/good or test; give a category's folder in MVTec AD's layout")
    place = Path(out).absolute()
    if place.exists():
        raise DataError(f"{out} is there already; give a new folder")
    patchcore, engine = fitted_patchcore(train, share, place)
    bank = len(patchcore.model.memory_bank)
    found: dict[str, Any] = {"images": len(test), "memory_bank": bank}
    found["anomalib"] = rate(lambda: predict(engine, patchcore, test), len(test))
    exported = openvino(engine, patchcore, place)
    found["anomalib_openvino"] = rate(lambda: exported(test), len(test))
    found |= bare(test, train, bank, workers, place)
    found["ratio_to_anomalib"] = found["raydiff"] / found["anomalib"]
    found["ratio_to_anomalib_openvino"] = found["raydiff_openvino"] / found["anomalib_openvino"]
    storage.write_json(str(place / "peers.json"), found)
    console.print(found)


def rate(call: Callable[[], object], images: int) -> float:
    """Images/s, the median of some passes after a warm one."""
    call()
    seconds = []
    for _ in range(PASSES):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return images / statistics.median(seconds)


def fitted_patchcore(train: Sequence[Path], share: float, place: Path) -> tuple[Any, Any]:
    """anomalib's PatchCore with a bank of normal images, and the engine that runs it."""
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    folder = place / "normals"
    folder.mkdir(parents=True)
    for path in train:
        (folder / path.name).symlink_to(path.absolute())
    info: Any = timm.create_model(BACKBONE, features_only=True, out_indices=STAGES).feature_info
    model = Patchcore(
        backbone=BACKBONE,
        layers=info.module_name(),
        pre_trained=False,
        coreset_sampling_ratio=share,
        pre_processor=PreProcessor(
            transform=Compose([Resize((SIZE, SIZE), antialias=True), Normalize([0.5] * 3, [0.5] * 3)])
        ),
        evaluator=False,
        visualizer=False,
    )
    engine = Engine(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        default_root_dir=place / "anomalib",
        logger=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    # It wants images to validate on, and looks at none of them.
    images = Folder("normals", normal_dir=folder, abnormal_dir=folder, val_split_mode="same_as_test", num_workers=0)
    engine.fit(model, datamodule=images)
    return model, engine


def predict(engine: Any, model: Any, test: Sequence[str]) -> None:
    """One pass of anomalib's own way from files to scores."""
    from anomalib.data import PredictDataset

    engine.predict(model=model, dataset=PredictDataset(path=Path(test[0]).parents[1]))


def openvino(engine: Any, model: Any, place: Path) -> Callable[[Sequence[str]], None]:
    """A pass over files with anomalib's OpenVINO export on all cores."""
    import openvino as ov
    from anomalib.deploy import ExportType

    file = engine.export(
        model=model, export_type=ExportType.OPENVINO, export_root=place / "openvino", input_size=(SIZE, SIZE)
    )
    core = ov.Core()
    compiled = core.compile_model(core.read_model(str(file)), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    batch = compiled.inputs[0].partial_shape[0].get_length()

    queue = ov.AsyncInferQueue(compiled, THREADS)

    def pixels_of(files: Sequence[str]) -> np.ndarray:
        pixels = [np.asarray(Image.open(file).convert("RGB").resize((SIZE, SIZE)), np.float32) / 255 for file in files]
        pixels += pixels[-1:] * (batch - len(pixels))
        return np.stack(pixels).transpose(0, 3, 1, 2)

    def every(files: Sequence[str]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for pixels in pool.map(pixels_of, [files[start : start + batch] for start in range(0, len(files), batch)]):
                queue.start_async({0: pixels})
            queue.wait_all()

    return every


def bare(test: Sequence[str], train: Sequence[Path], bank: int, workers: int, place: Path) -> dict[str, float]:
    """Images/s of raydiff's bare loop with a bank of so many vectors, by each engine, the medians of some passes."""
    changes = {
        "image_size": SIZE,
        "backbone": {"name": BACKBONE, "weights": "random", "stages": list(STAGES), "grid": GRID},
        "bank_size": bank,
    }
    method: Any = methods.get("nearest_patch")(methods.recipe("nearest_patch", "small", changes)).eval()
    pixels = np.stack([resize(decode(path.read_bytes()), SIZE) for path in train[:8]])
    method.stand_in(examples_of(method, pixels), [len(train) * 10])
    uri = str(place / "nearest_patch")
    Model(method, method.ScoreSettings()).save(uri)
    list_images(describe(uri), str(Path(test[0]).parents[1]), str(place / "images"))
    engines: dict[str, Engine] = {"raydiff": "torch", "raydiff_openvino": "openvino"}
    return {
        name: statistics.median(bare_loop(uri, str(place / "images"), None, workers, engine) for _ in range(PASSES))
        for name, engine in engines.items()
    }


if __name__ == "__main__":
    cli.run(main)
