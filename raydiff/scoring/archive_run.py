"""An archive from its listing to its summary: what jobs/score_archive.py does.

The folder of the results holds `images/` (what was listed), `score_table/`, `parts/` where it is known which part an
image shows, `summary.json`, `manifest.json`, `run.json`, `model.json` (the model's description), the maps under
`anomaly_maps/`, and `_work/` while something is unfinished.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa

from raydiff import cluster, storage
from raydiff.at_work import at_work
from raydiff.errors import DataError, SettingsError
from raydiff.images import archive, packed_archive, table
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.ingested import check_whole
from raydiff.images.listing import Listing, folder_of
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern, with_column
from raydiff.images.shards import Shard, shards
from raydiff.images.tables import own_table
from raydiff.model.calibration import Calibration
from raydiff.model.description import DESCRIPTION, describe
from raydiff.nn.engine import Engine
from raydiff.progress import console, phase
from raydiff.scoring import parts_table
from raydiff.scoring.bulk import Summary, claim, finished_images, is_complete, score_table
from raydiff.scoring.deployment import deployed
from raydiff.scoring.map_place import Maps
from raydiff.scoring.summary import ArchiveSummary, summarise
from raydiff.scoring.table import SUMMARY


def score_archive(
    model_uri: str,
    data_uri: str,
    out_uri: str,
    maps: Maps = "none",
    replicas: int | None = None,
    max_pixels: int = MAX_PIXELS,
    address: str | None = None,
    gpus: int | None = None,
    pages: Pages | None = None,
    part_from: PartPattern | None = None,
    engine: Engine = "torch",
) -> tuple[Summary | None, ArchiveSummary]:
    """List what is new, score what is missing, sum up; what this run scored (None: nothing was missing) and the whole.

    Args:
        data_uri: a folder of images, a table (see `own_table`) or a packed archive (see `packed_archive`).
        replicas: of the model; one a GPU, or one a CPU, by default.
        address, gpus: as of `cluster.connect`, which is called if anything is missing.
        pages: which pages of a file are images, each a row; by default a file of several is a row with an error.
        part_from: names the part that an image shows, by the image's path below the folder, or below the table's; with
            it, or with a column `part` in the table, the results have a table of parts (see `parts_table`).
        engine: that computes features on CPUs, as of `Model.use`.

    Raises:
        DataError: if the folder holds no images, `part_from` names a part in no image's path, `out_uri` holds the
            scores of another model, archive or way of scoring, or another run is at work there.
        StorageError, ClusterError, Stopped: what is finished is kept, and the next run goes on from there.
    """
    model_uri, data_uri, out_uri = places(model_uri, data_uri, out_uri)
    with at_work(out_uri):
        return _scored(
            model_uri, data_uri, out_uri, maps, replicas, max_pixels, address, gpus, pages, part_from, engine
        )


def _scored(
    model_uri: str,
    data_uri: str,
    out_uri: str,
    maps: Maps,
    replicas: int | None,
    max_pixels: int,
    address: str | None,
    gpus: int | None,
    pages: Pages | None,
    part_from: PartPattern | None,
    engine: Engine,
) -> tuple[Summary | None, ArchiveSummary]:
    model = describe(model_uri)
    images = storage.join(out_uri, "images")
    source = source_of(data_uri, pages, part_from)
    if part_from and not shards(images):  # before the folder is noted to be for a pattern that fits nothing
        check_part_from(data_uri, part_from, pages)
    claim(out_uri, model, images, maps, max_pixels, source, engine)
    _keep(model, out_uri)
    packed = list_images(model, data_uri, images, pages, part_from)
    done = None
    if not is_complete(out_uri, images):
        if model["calibration"] and parts_table.says_part(shards(images)[0].uri):
            console.print(parts_table.foretold(Calibration.parse(model["calibration"])), markup=False)
        cluster.connect(address, gpus)
        with deployed(model_uri, replicas, engine) as handle:
            done = score_table(
                handle,
                model_uri,
                images,
                out_uri,
                maps,
                max_pixels=max_pixels,
                packed_uri=packed,
                source=source,
                replicas=replicas,
                engine=engine,
            )
    return done, _summary(out_uri, model, fresh=done is not None)


def _keep(model: dict[str, Any], out_uri: str) -> None:
    """Keep the model's description beside its scores: the model itself may be moved, changed or lost before these."""
    place = storage.join(out_uri, DESCRIPTION)
    if not storage.exists(place):
        storage.write_json(place, model)


def places(*uris: str) -> Iterator[str]:
    """The URIs as they are noted, once each store has answered.

    Raises:
        StorageError: if one does not.
    """
    for uri in uris:
        storage.probe(uri)
    return map(storage.absolute, uris)


def source_of(data_uri: str, pages: Pages | None, part_from: PartPattern | None = None) -> str:
    """What scores of an archive are noted to be of.

    Raises:
        DataError: if it is a folder that something is still to be unpacked into.
        SettingsError: if pages are asked of a packed archive, which was packed with those that count.
    """
    check_whole(data_uri)
    if pages and packed_archive.is_packed(data_uri):
        raise SettingsError(f"{data_uri} is packed: give --pages to raydiff index --pack, and leave it out here")
    source = pages.claimed(data_uri) if pages else data_uri
    return part_from.claimed(source) if part_from else source


def check_part_from(data_uri: str, part_from: PartPattern, pages: Pages | None) -> None:
    """Whether a pattern names a part in the path of some image; looked for up to the first.

    Raises:
        DataError: if there are images and it does not, or if the source says itself which part an image shows.
    """
    listed: Iterable[pa.Table] = Listing(data_uri, pages=pages, part_from=part_from)
    if packed_archive.is_packed(data_uri):
        folder = folder_of(packed_archive.source(data_uri))
        listed = (
            with_column(archive.read_shard(shard.uri), part_from, [folder])
            for shard in packed_archive.shards_of(data_uri)
        )
    first = None
    for rows in listed:
        if rows[table.PART].null_count < len(rows):
            return
        first = first or (rows["uri"][0].as_py() if len(rows) else None)
    if first is not None:
        raise part_from.unfit(first)


def list_images(
    model: dict[str, Any],
    data_uri: str,
    images: str,
    pages: Pages | None = None,
    part_from: PartPattern | None = None,
) -> str | None:
    """Bring the image table at `images` up to what there is now; the packed archive's URI, if it is one.

    Args:
        model: its description (see `model.describe`).
        pages, part_from: as of `score_archive`.

    Raises:
        DataError, StorageError: as `score_archive`.
    """
    categories = categories_of(model)
    if packed_archive.is_packed(data_uri):
        _take_over(data_uri, images, categories, part_from)
        return data_uri
    _list(images, Listing(data_uri, categories, pages, part_from))
    return None


def categories_of(model: dict[str, Any]) -> set[str]:
    """The categories that a model was trained or calibrated on."""
    calibrated = model["calibration"]["categories"] if model["calibration"] else ()
    return {*model["card"].get("training_images", ()), *calibrated}


def _list(images: str, listing: Listing) -> None:
    with phase("listing") as shown:
        growth = archive.grow(images, shown.counted(listing))
    tell(listing.uri, listing, growth)


def tell(data_uri: str, listing: Listing, growth: archive.Growth) -> None:
    """Print what a listing has found.

    Raises:
        DataError: if that is not one image.
    """
    if not growth.new and not growth.known:
        found = ", ".join((*listing.left_out_names, *listing.left_out_folders)) or "nothing"
        raise DataError(f"{data_uri} holds no images; found {found}")
    console.print(f"listing: {growth.new} new images, {growth.known} known", markup=False)
    if growth.repeated:
        console.print(f"listing: {growth.repeated} rows name an image again; each is scored once", markup=False)
    _tell_unknown(listing)
    if listing.left_out:
        console.print(f"listing: {listing.left_out} files that are no images (or masks) are left out:", markup=False)
        for folder, files in listing.left_out_folders.items():
            console.print(f"    {files} in folders called {folder}", markup=False)
        for name in listing.left_out_names:
            console.print(f"    {name}", markup=False)


def _tell_unknown(listing: Listing) -> None:
    if listing.unknown:
        console.print(
            f"listing: {listing.unknown} images lie in no folder of the model's categories "
            f"({', '.join(sorted(listing.categories))}); the threshold of the category that the model takes it for "
            "applies to each (column category_guessed), or that of all together, where the method cannot tell. If that "
            "is wrong, give a table with the columns uri and category",
            markup=False,
        )


def _take_over(packed: str, images: str, categories: Collection[str], part_from: PartPattern | None) -> None:
    """The image table of a packed archive, with the categories that the model knows, and the parts that paths name."""
    source = packed_archive.source(packed)
    there = {shard.name for shard in shards(images)}
    found = packed_shards(packed)
    listing = None if own_table.is_table(source) else Listing(source, categories)
    for shard in found:
        if shard.name in there:
            continue
        rows = archive.read_shard(shard.uri)
        if listing:
            named = [listing.category(uri) for uri in rows["uri"].to_pylist()]
            rows = rows.set_column(rows.column_names.index("category"), "category", pa.array(named))
        if part_from:
            rows = with_column(rows, part_from, [folder_of(source)])
        archive.write_shard(images, shard.name, rows)
    if listing:
        _tell_unknown(listing)


def packed_shards(packed: str) -> list[Shard]:
    """The shards of a packed archive.

    Raises:
        DataError: if there are none.
    """
    found = packed_archive.shards_of(packed)
    if not found:
        raise DataError(f"{packed} holds no packed images yet; run `raydiff index --pack` to its end first")
    return found


def _summary(out_uri: str, model: dict[str, Any], fresh: bool) -> ArchiveSummary:
    place = storage.join(out_uri, SUMMARY)
    grouped = parts_table.has_parts(out_uri)
    if not fresh and storage.exists(place):
        there = ArchiveSummary.model_validate(storage.read_json(place))
        # It may be of before the archive grew, where a run was killed between its last score and its summary.
        whole = there.images == finished_images(out_uri) and grouped == (there.parts is not None)
        if whole and (not grouped or storage.exists(parts_table.table_uri(out_uri))):
            return there
    calibration = Calibration.parse(model["calibration"]) if model["calibration"] else None
    found = summarise(out_uri, calibration)
    if grouped:
        parts = parts_table.write_parts(out_uri, calibration, found.images)
        found = found.model_copy(update={"parts": parts})
    storage.write_json(place, found.model_dump(mode="json"))
    return found
