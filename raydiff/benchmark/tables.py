"""The tables of a benchmark, as text: for Markdown, for the terminal and for the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table as RichTable

from raydiff.benchmark.cell import Result
from raydiff.benchmark.protocol import differences
from raydiff.benchmark.summary import Figure, Line, champion_lines, lines, pseudo_lines

METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "aupro": "AUPRO",
}
MAIN = ("image_auroc", "aupro")  # told of every category, of the worst, and of how far categories lie apart
NONE = "–"


class Table(NamedTuple):
    """A table of texts; the first column names the row."""

    title: str
    note: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown."""
        head = [_row(self.headings), _row(["---", *["---:"] * (len(self.headings) - 1)])]
        body = "\n".join([*head, *map(_row, self.rows)])
        return "\n\n".join(part for part in (f"## {self.title}", self.note, body) if part)

    def rich(self) -> RichTable:
        """For the terminal."""
        table = RichTable(title=self.title, title_justify="left")
        table.add_column(self.headings[0], overflow="fold", min_width=14)
        for heading in self.headings[1:]:
            table.add_column(heading.replace(" ", "\n", 1), justify="right", overflow="fold")
        for row in self.rows:
            table.add_row(*(cell.replace(" ± ", "\n± ") for cell in row))
        return table


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def accuracy(results: Sequence[Result]) -> list[Table]:
    """What every contender finds: a table a data set, one of the worst categories, one of every category."""
    found = lines(results, list(METRICS))
    tables = []
    for data in dict.fromkeys(line.data for line in found):
        of = [line for line in found if line.data == data]
        categories = sorted({name for line in of for name in line.categories})
        tables.append(
            Table(
                f"{data}: mean over {len(categories)} categories" if len(categories) > 1 else data,
                _protocol_note([each for each in results if each["data"] == data]),
                ["contender", *METRICS.values()],
                [[line.contender, *(_text(line.mean[metric]) for metric in METRICS)] for line in of],
            )
        )
        if len(categories) > 1:
            tables.append(_extremes(data, of))
            tables.append(_categories(data, of, categories))
    return tables


def _extremes(data: str, of: Sequence[Line]) -> Table:
    """The worst category of each contender, and how far categories lie apart."""
    headings = ["contender"]
    for metric in MAIN:
        headings += [f"worst {METRICS[metric]}", f"deviation of {METRICS[metric]}"]
    rows = []
    for line in of:
        row = [line.contender]
        for metric in MAIN:
            worst = line.worst[metric]
            row += [NONE if worst is None else f"{worst[1]:.3f} ({worst[0]})", _text(line.apart[metric])]
        rows.append(row)
    return Table(f"{data}: worst category, and deviation between categories", "", headings, rows)


def _categories(data: str, of: Sequence[Line], categories: Sequence[str]) -> Table:
    words = " / ".join(METRICS[metric] for metric in MAIN)
    rows = [
        [
            line.contender,
            *(
                " / ".join(_text(line.categories[name][metric]) for metric in MAIN) if name in line.categories else NONE
                for name in categories
            ),
        ]
        for line in of
    ]
    return Table(f"{data}: {words} of each category", "", ["contender", *categories], rows)


def pseudo(results: Sequence[Result]) -> list[Table]:
    """How well the choice without labels foretells the test set: within each contender, and among them."""
    within = [
        [each["data"], each["contender"], str(each["trials"]), _text(each["correlation"], 2), _text(each["price"])]
        for each in pseudo_lines(results)
    ]
    among = [
        [
            each["data"],
            str(each["seed"]),
            each["category"] or "all",
            each["chosen"],
            each["best"],
            f"{each['price']:.3f}",
            NONE if each["correlation"] is None else f"{each['correlation']:.2f}",
        ]
        for each in champion_lines(results)
    ]
    return [
        Table(
            "Score settings chosen without labels",
            "Rank correlation of the score on made anomalies with the same on the test set, over all trials of a "
            "tuning, and the price: the best trial by test labels less the chosen one's. Of the tuning's own look at "
            "the test set.",
            ["data", "contender", "trials", "rank correlation", "price"],
            within,
        ),
        Table(
            "Contenders chosen without labels",
            "By the score on made anomalies; the best, and the price, by the mean of image AUROC and AUPRO on all test "
            "images.",
            ["data", "seed", "category", "chosen", "best", "price", "rank correlation"],
            among,
        ),
    ]


def _protocol_note(results: Sequence[Result]) -> str:
    """How many seeds, and in what the protocols of the rows differ: a comparison is worth what that leaves of it."""
    seeds = sorted({each["seed"] for each in results if each["seed"] is not None})
    said = [f"Seeds {', '.join(map(str, seeds))}: mean ± deviation." if len(seeds) > 1 else f"Seed {seeds[0]}."]
    of_methods = [each for each in results if each["method"]]
    for field, values in differences([each["protocol_fields"] for each in of_methods]).items():
        told = []
        for value in values:
            names = dict.fromkeys(each["contender"] for each in of_methods if each["protocol_fields"][field] == value)
            told.append(f"{', '.join(names)}: {value if isinstance(value, str) else json.dumps(value)}")
        said.append(f"The protocols differ in {field} ({'; '.join(told)}).")
    return " ".join(said)


def _text(figure: Figure | None, digits: int = 3) -> str:
    return NONE if figure is None else figure.text(digits)
