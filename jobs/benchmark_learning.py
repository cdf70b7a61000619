"""What learning from ten verdicts a day is worth: a month of drawn images whose light changes from the tenth day on.

    python jobs/benchmark_learning.py --product fabric --seed 0

One line of inspection, simulated in one process without Ray. Each day brings normal images and a few defects; the
model scores them, ten are judged (who judges knows the truth), and the model of the next day has learnt from all
verdicts so far, as `raydiff learn` does it. The days are the same for all ways of choosing the ten.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
import typer
from rich.table import Table
from torch import Tensor

from raydiff import cli, methods
from raydiff.errors import SettingsError
from raydiff.images.demo import paint, pictures
from raydiff.images.products import PRODUCTS
from raydiff.learning.judged import CALIBRATE, TEACH, TEACHING, side
from raydiff.learning.peaks import looks_of
from raydiff.learning.recalibrated import recalibrated
from raydiff.learning.scored import Scored
from raydiff.learning.spread import Looks, spread
from raydiff.learning.suggest import JUDGED
from raydiff.learning.teaching_value import teaching_value, ways_above
from raydiff.methods.base import Method
from raydiff.model.calibration import Calibration
from raydiff.model.folder import Model
from raydiff.model.scorer import examples_of
from raydiff.progress import console, phase

DAYS, DRIFTS_FROM = 30, 10
NORMAL, DEFECTIVE = 58, 2  # images a day
VERDICTS = 10  # a day
RATE = 0.05
FIT, OWN = 120, 39  # normals to train and to calibrate on
SIZE = 192
SHADE = 0.35  # of the light at the far edge is gone at the end
SPANS = ((1, 9), (10, 19), (20, 30))


class Day(NamedTuple):
    """What comes on a day."""

    images: np.ndarray  # uint8 (N, SIZE, SIZE, 3)
    defective: np.ndarray  # (N,) of bool
    names: list[str]


class Line(NamedTuple):
    """A model at work, and what it has been told so far."""

    model: Model
    own: np.ndarray  # the normals that calibrate it
    judged: list[np.ndarray]
    names: list[str]
    defective: list[bool]
    alarms: list[float]  # of each day so far the share of images that raised one
    loud: set[str]  # judged images that had


def main(
    product: Annotated[str, typer.Option(help=f"One of {', '.join(each.name for each in PRODUCTS)}.")] = "fabric",
    seed: Annotated[int, typer.Option(help="Of the drawn images and of all that is random.")] = 0,
) -> None:
    """Simulate the month for each way of choosing what is judged, and show false alarms and recall."""
    if product not in {each.name for each in PRODUCTS}:
        raise SettingsError(f"--product {product}: give one of {', '.join(each.name for each in PRODUCTS)}")
    known, days = drawn(product, seed)
    ways: dict[str, Callable[[Line, Day, np.ndarray, np.random.Generator], list[int]] | None] = {
        "no learning": None,
        "10 a day at random": at_random,
        "10 a day that alarm": alarming,
        "10 a day, suggested": suggested,
    }
    shown = Table(title=f"{product}, seed {seed}: false alarms a day (of {NORMAL}) and recall")
    shown.add_column("verdicts")
    for first, last in SPANS:
        shown.add_column(f"days {first} to {last}", justify="right", no_wrap=True)
    for name, chosen in ways.items():
        counts = month(known, days, chosen, seed, name)
        cells = []
        for first, last in SPANS:
            false, found, defects = (np.array(each)[first - 1 : last] for each in zip(*counts, strict=True))
            cells.append(f"{false.mean():.1f}, {found.sum()}/{defects.sum()}")
        shown.add_row(name, *cells)
    console.print(shown, markup=False)


def drawn(product: str, seed: int) -> tuple[np.ndarray, list[Day]]:
    """The images that the model begins with, and the days."""

    def of(key: int, normal: int, defective: int) -> tuple[np.ndarray, np.ndarray]:
        todo = [each for each in pictures(key, normal, 0, defective) if each.product.name == product]
        with phase("drawing", len(todo)) as shown:
            images = []
            for each in todo:
                images.append(paint(each, key, SIZE)[0])
                shown.advance()
        return np.stack(images), np.array([each.defect is not None for each in todo])

    known, _ = of(seed, FIT + OWN, 0)
    images, defective = of(seed + 1000, DAYS * NORMAL, DAYS * DEFECTIVE)
    good, bad = np.flatnonzero(~defective), np.random.default_rng(seed).permutation(np.flatnonzero(defective))
    days = []
    for day in range(1, DAYS + 1):
        rows = [*good[(day - 1) * NORMAL : day * NORMAL], *bad[(day - 1) * DEFECTIVE : day * DEFECTIVE]]
        days.append(Day(shaded(images[rows], day), defective[rows], [f"{seed}-{row}" for row in rows]))
    return known, days


def shaded(images: np.ndarray, day: int) -> np.ndarray:
    """A day's images: the light falls off towards one side, from DRIFTS_FROM on more every day."""
    share = SHADE * max(0, day - DRIFTS_FROM + 1) / (DAYS - DRIFTS_FROM + 1)
    light = 1 - share * np.linspace(0, 1, images.shape[2])[:, None]
    return np.round(images * light).astype(np.uint8)


def month(
    known: np.ndarray,
    days: list[Day],
    chosen: Callable[[Line, Day, np.ndarray, np.random.Generator], list[int]] | None,
    seed: int,
    name: str,
) -> list[tuple[int, int, int]]:
    """Of each day the false alarms, the defects that alarmed, and how many defects there were."""
    rng = np.random.default_rng(seed)
    line = Line(begun(known[:FIT], seed), known[FIT:], [], [], [], [], set())
    calibrate(line)
    counts = []
    with phase(name, DAYS, "days") as shown:
        for number, day in enumerate(days):
            scores = line.model.score(list(day.images)).scores
            alarms = scores > threshold(line)
            counts.append(
                (int(alarms[~day.defective].sum()), int(alarms[day.defective].sum()), int(day.defective.sum()))
            )
            line.alarms.append(float(alarms.mean()))
            if chosen is not None:
                rows = chosen(line, day, scores, rng)
                for row in rows:
                    line.judged.append(day.images[row])
                    line.names.append(day.names[row])
                    line.defective.append(bool(day.defective[row]))
                line.loud.update(day.names[row] for row in rows if alarms[row])
                learn(line, len(rows), seed + number)
            shown.advance()
    return counts


def begun(images: np.ndarray, seed: int) -> Model:
    """nearest_patch with the demo's settings, on the first images."""
    method = methods.get("nearest_patch")(methods.recipe("nearest_patch", "demo", {})).eval()
    method.fit_statistics(Examples(examples_of(method, resized(method, images))), seed)
    return Model(method, method.ScoreSettings())


def resized(method: Method, images: np.ndarray) -> np.ndarray:
    """As the method's view has them."""
    return np.stack([method.settings.view.seen(image, method.settings.image_size, None) for image in images])


class Examples:
    """Examples in memory, for `fit_statistics` and `learn`."""

    def __init__(self, examples: Tensor, names: list[str] | None = None) -> None:
        self._examples = examples
        self.categories = ["line"] * len(examples)
        self.images = names or [str(place) for place in range(len(examples))]

    def __len__(self) -> int:
        return len(self._examples)

    def batches(self) -> Iterator[Tensor]:
        """All, some at a time."""
        yield from self._examples.split(64)


def learn(line: Line, new: int, seed: int) -> None:
    """Teach the model with the newest of its judged images, and calibrate it with all of them."""
    rows = [row for row in range(len(line.names) - new, len(line.names)) if use(line, row) == TEACH]
    if rows:
        images = resized(line.model.method, np.stack([line.judged[row] for row in rows]))
        line.model.method.learn(
            Examples(examples_of(line.model.method, images), [line.names[row] for row in rows]), seed
        )
    calibrate(line)


def use(line: Line, row: int) -> str | None:
    """What a judged image is for; nothing, if it is defective."""
    if line.defective[row]:
        return None
    return TEACH if side(line.names[row]) < TEACHING else CALIBRATE


def calibrate(line: Line) -> None:
    """On the line's own normals and the judged ones that do not teach."""
    rows = [row for row in range(len(line.names)) if use(line, row) == CALIBRATE]
    own = [f"own-{place}" for place in range(len(line.own))]
    scores = line.model.score([*line.own, *(line.judged[row] for row in rows)]).scores.tolist()
    names = own + [line.names[row] for row in rows]
    scored = {name: Scored(score, "line", name) for name, score in zip(names, scores, strict=True)}
    before = Calibration.fit({"line": scores[: len(own)]}, RATE)
    normals = pa.table({"uri": own, "category": ["line"] * len(own)})
    uses = dict.fromkeys(names[len(own) :], CALIBRATE)
    shares = {"line": float(np.mean(line.alarms))} if line.alarms else {}
    line.model.calibration = recalibrated(before, normals, uses, scored, line.loud, shares).calibration


def threshold(line: Line) -> float:
    """Scores above it alarm."""
    assert line.model.calibration is not None
    return line.model.calibration.of("line").threshold


def at_random(line: Line, day: Day, scores: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Any ten of the day."""
    return rng.permutation(len(scores))[:VERDICTS].tolist()


def alarming(line: Line, day: Day, scores: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Ten of those that alarmed, or all, if they are fewer."""
    return rng.permutation(np.flatnonzero(scores > threshold(line)))[:VERDICTS].tolist()


def suggested(line: Line, day: Day, scores: np.ndarray, rng: np.random.Generator) -> list[int]:
    """What `raydiff suggest` has of the day, beside what was judged before."""
    assert line.model.calibration is not None
    values = teaching_value(ways_above(scores, line.model.calibration.of("line")))
    looks = seen(line.model, list(day.images))
    latest = line.judged[-JUDGED:]
    known = seen(line.model, latest) if latest else np.empty((0, looks.shape[1]), np.float32)
    offered = Looks(["line"] * len(looks), looks)
    return [choice.place for choice in spread(values, offered, Looks(["line"] * len(known), known), VERDICTS)]


def seen(model: Model, images: list[np.ndarray]) -> np.ndarray:
    """What images look like where their maps are highest."""
    return looks_of(model, list(resized(model.method, np.stack(images))), ["line"] * len(images))


if __name__ == "__main__":
    cli.run(main)
