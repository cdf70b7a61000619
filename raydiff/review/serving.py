"""`raydiff review`: the viewer of a score table, for as long as this process lives. Neither Ray nor torch."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import CancelledError

import uvicorn

from raydiff import storage
from raydiff.errors import RaydiffError
from raydiff.progress import Phase, console
from raydiff.review.app import Review, review_app
from raydiff.review.archive import about, known, model_of
from raydiff.review.files import Files
from raydiff.review.giving import Giving
from raydiff.review.table import Filter, Order, Table
from raydiff.review.thumbnails import Pictures
from raydiff.scoring import listening
from raydiff.scoring.tokens import hashed_token

_ENDING_SECONDS = 3  # for answers that are under way
_OWN = ("127.0.0.1", "localhost", "[::1]")  # names of this machine for itself


def opened(scores_uri: str, model_uri: str | None = None, who: str | None = None) -> Review:
    """The viewer of a score table; see `review` for arguments and errors."""
    storage.probe(scores_uri)
    table = Table(Files(scores_uri))
    giving = Giving(table, who)
    how = known(scores_uri)
    model = model_of(scores_uri, model_uri, how.model_id)
    pictures = Pictures(table, model, how.max_pixels, how.archive)
    viewer = Review(table, pictures, lambda: about(table, how, model is not None), giving)
    shown = Phase("verdicts", None, "files", None)  # a line now and then, where there are many
    table.judged.refresh(lambda done, total: shown.update(done, total=total))
    table.suggestions.refresh()
    return viewer


def review(scores_uri: str, host: str, port: int, model_uri: str | None = None, who: str | None = None) -> None:
    """Serve the viewer until SIGINT or SIGTERM comes.

    Args:
        scores_uri: folder of the score table: the --out of jobs/score_archive.py, or RUN/scores/MODEL/test.
        host, port: where to listen.
        model_uri: of the model that made the scores, for its levels, view and colours.
        who: gives verdicts on the page; None: nobody does, and nothing is written.

    Raises:
        DataError: if there is no score table, or it is of another model.
        ModelFolderError: if there is no such model.
        StorageError: if it cannot be read.
        SettingsError: if the token cannot be sent, or `who` is no name.
        ClusterError: if the port is taken.
    """
    token_hash = hashed_token()
    viewer = opened(scores_uri, model_uri, who)
    app = review_app(viewer, token_hash, {*_OWN, host} if token_hash is None and listening.is_loopback(host) else None)
    config = uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=_ENDING_SECONDS)
    server = uvicorn.Server(config)
    with listening.bound(host, port) as place, listening.signalled() as ended:
        place.listen()  # who asks as soon as the place is told waits for an answer
        served = threading.Thread(target=lambda: asyncio.run(server.serve([place])))
        served.start()
        threading.Thread(target=_prepare, args=[viewer.table], daemon=True).start()
        rows = viewer.table.files.rows
        console.print(f"{rows:,} rows of {scores_uri} at {listening.address(host, port)}", markup=False)
        if viewer.giving.who is not None:
            console.print(f"whoever opens the page gives verdicts as {viewer.giving.who}", markup=False)
        listening.tell_who_may_ask(token_hash is not None, host, port)
        console.print("Ctrl-C ends it")
        while served.is_alive() and not ended.wait(0.5):
            pass
        server.should_exit = True
        served.join()
        viewer.table.files.close()


def _prepare(table: Table) -> None:
    """Make what the page asks for first, while the browser is opened.

    A failure is told where the page asks; the last two come of files that are closed meanwhile.
    """
    with contextlib.suppress(RaydiffError, RuntimeError, CancelledError):
        table.find(Filter(), Order())
