"""A user's table in Parquet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.tables.files import BATCH, Batch
from raydiff.storage.errors import explained


class ParquetTable:
    """See `files.TableFile`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with self._opened() as file:
            self.schema: pa.Schema = file.schema_arrow

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """As of `files.TableFile`."""
        first = 0
        with self._opened() as file:
            for batch in file.iter_batches(BATCH, columns=list(names)):
                if len(batch):
                    yield Batch(pa.Table.from_batches([batch]), first, None)
                first += len(batch)

    def said(self) -> list[str]:
        """As of `files.TableFile`."""
        return [] if self.uri.lower().endswith(".parquet") else ["the file is Parquet, whatever its name says"]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        fs, path = storage.filesystem(self.uri)
        with explained(self.uri, fs), fs.open(path, "rb", cache_type="none") as data:
            try:
                with pq.ParquetFile(data) as file:
                    yield file
            except pa.ArrowException as error:
                raise DataError(f"{self.uri} cannot be read as a table: {error}") from None
