"""The viewer of a score table in a real browser: filter, sort, a row large, keys, a phone."""

from __future__ import annotations

from datetime import date, timedelta

import browser
import numpy as np
import pyarrow as pa
import pytest
from conftest import made_images
from PIL import Image

from raydiff import storage
from raydiff.review.app import review_app
from raydiff.review.serving import opened
from raydiff.scoring import table as score_table
from raydiff.scoring.maps import write_map
from raydiff.scoring.tokens import TOKEN, hashed_token

pytestmark = pytest.mark.browser

ROWS = 1000
TILES = """[...document.querySelectorAll('.tile')].filter(tile => tile.row !== undefined).map(
    tile => [tile.dataset.index, tile.querySelector('.file').textContent, tile.querySelector('.chip').textContent])"""
COUNT = "document.getElementById('count').textContent"
CHOOSE = """(() => {{ const field = document.querySelector('#filters [name={}]');
    field.value = '{}'; field.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"""


@pytest.fixture(scope="module")
def rows():
    """A row of each number; the last have the highest scores, and of the highest there are images."""
    found = []
    for number in range(ROWS):
        row = {"uri": f"/nowhere/{number:04d}.png", "category": ("bolt", "cloth")[number % 2], "score": number / 100}
        row |= {"day": date(2026, 5, 1) + timedelta(days=number // 100), "p_value": 1 - number / ROWS, "threshold": 9.0}
        row |= {"is_anomalous": number >= 900, "height": 40, "width": 40, "part": f"tray {number // 4}"}
        found.append(row)
    for number in (10, 20):
        found[number] |= {"score": None, "p_value": None, "is_anomalous": None, "error": "the file is empty"}
    return found


@pytest.fixture(scope="module")
def scores(rows, tmp_path_factory):
    root = tmp_path_factory.mktemp("scores")
    heat = np.zeros((40, 40), np.float32)
    heat[10:20, 10:20] = 20.0
    for number, pixels in zip((999, 998), made_images(2, 40), strict=True):
        rows[number] |= {"uri": str(root / f"{number}.png"), "map_uri": str(root / "anomaly_maps" / f"{number}.tiff")}
        Image.fromarray(pixels).save(rows[number]["uri"])
        write_map(rows[number]["map_uri"], heat)
    for part in range(4):
        some = rows[part * 250 : part * 250 + 250]
        place = score_table.part_uri(str(root), f"0001-{part:06d}-250")
        schema = score_table.SCHEMA.append(pa.field("part", pa.string()))
        score_table.write(place, pa.Table.from_pylist(some, schema))
    storage.write_json(str(root / "run.json"), {"maps": "tiff"})
    return str(root)


@pytest.fixture(scope="module")
def page(scores):
    viewer = opened(scores)
    with browser.served(review_app(viewer, None)) as url:
        yield url
    viewer.table.files.close()


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("profile")) as made:
        yield made


def choose(tab, name: str, value: str, count: str) -> None:
    """Set a field of the filters, and wait for what is said of the rows that are left."""
    tab.ask(CHOOSE.format(name, value))
    tab.wait(f"{COUNT}.startsWith('{count}')")


def test_a_table_is_filtered_sorted_and_gone_through(tab, page, rows):
    tab.size(1280, 800)
    tab.open(page)
    tab.wait(f"{COUNT} === '1,000 images · 100 alarms · 2 not scored'")
    tiles = tab.wait(f"(tiles => tiles.length && tiles)({TILES})")
    assert tiles[:3] == [["0", "999.png", "alarm"], ["1", "998.png", "alarm"], ["2", "0997.png", "alarm"]]
    tab.wait("document.querySelector('.tile .heat')?.naturalWidth === 40")
    told = tab.wait("document.querySelectorAll('.tile')[2].querySelector('.why')?.textContent")
    assert told == "/nowhere/0997.png is not there; check the bucket, the folder and the name"

    # To the end, far from what was fetched: few tiles are in the page, and those without a score come last.
    tab.ask("(grid => grid.scrollTop = grid.scrollHeight)(document.getElementById('grid'))")
    tiles = tab.wait(f"(tiles => tiles.some(([index]) => index === '999') && tiles)({TILES})")
    assert [name for _, name, words in tiles if words == "not scored"] == ["0010.png", "0020.png"]
    assert tab.ask("document.querySelectorAll('.tile').length") < 80

    choose(tab, "category", "=cloth", "500 of 1,000 images · 50 alarms")
    choose(tab, "verdict", "normal", "450 of 1,000 images · 0 alarms")
    tab.ask(CHOOSE.format("descending", "false"))
    tab.wait(f"(tiles => tiles[0]?.[1] === '0001.png')({TILES})")
    tab.ask(CHOOSE.format("sort", "uri"))
    choose(tab, "text", "/089", "5 of 1,000 images")
    assert [name for _, name, _ in tab.wait(f"(tiles => tiles.length === 5 && tiles)({TILES})")] == [
        f"089{number}.png" for number in (1, 3, 5, 7, 9)
    ]
    assert "text=%2F089" in tab.ask("location.hash")
    tab.ask("document.getElementById('reset').click()")
    tab.wait(f"{COUNT}.startsWith('1,000 images')")
    assert tab.errors == []


def test_a_row_is_opened_and_left_by_keys(tab, page, rows):
    tab.size(1280, 800)
    tab.open("about:blank")
    tab.open(page)
    tab.wait("document.querySelector('.tile')?.row !== undefined")
    tab.ask("document.querySelector('.tile').focus()")
    tab.key("Enter", "\r")
    tab.wait("document.getElementById('row').open && document.getElementById('image').naturalWidth === 40")
    tab.wait("document.getElementById('numbers').textContent.includes('Map')")
    shown = """(() => { const at = id => document.getElementById(id);
        return [at('uri').value, at('verdict').textContent, at('place').textContent, at('heat').naturalWidth]; })()"""
    assert tab.ask(shown) == [rows[999]["uri"], "Anomalous", "1 of 1,000", 40]
    tab.key("ArrowRight")
    tab.wait(f"document.getElementById('uri').value === {rows[998]['uri']!r}")
    tab.key("ArrowRight")
    tab.wait("document.getElementById('waiting').textContent.includes('is not there')")
    tab.key("Escape")
    tab.wait("!document.getElementById('row').open")
    tab.wait("document.activeElement.dataset.index === '2'")  # a browser tells of the closing after it has closed
    tab.key("End")
    tab.wait("document.activeElement.dataset.index === '999' && document.activeElement.row !== undefined")
    tab.key("Home")
    tab.wait("document.activeElement.dataset.index === '0'")
    tab.key("Enter", "\r")
    tab.wait("document.getElementById('row').open && !document.getElementById('views').hidden")
    tab.ask("document.getElementById('views').click()")
    tab.wait(f"{COUNT} === '2 of 1,000 images · 2 alarms'")
    assert not tab.ask("document.getElementById('row').open")
    assert tab.ask("document.activeElement.dataset.index") == "0"
    asked = tab.ask("performance.getEntriesByType('resource').map(each => each.name)")
    assert all(each.startswith((page, "data:")) for each in asked)
    assert tab.errors == []


def test_a_phone_shows_it_without_scrolling_sideways(tab, page):
    tab.size(390, 844, phone=True)
    tab.open("about:blank")
    tab.open(page + "#verdict=alarm")
    tab.wait(f"{COUNT}.startsWith('100 of 1,000 images')")
    tab.wait("document.querySelector('.tile')?.row !== undefined")
    assert tab.ask("document.documentElement.scrollWidth") <= 390
    assert tab.ask("document.getElementById('grid').clientHeight") > 350
    tab.ask("document.querySelector('.tile').click()")
    tab.wait("document.getElementById('image').naturalWidth === 40")
    assert tab.ask("document.getElementById('row').scrollWidth") <= 390


def test_a_barrier_would_be_found(tab):
    tab.open("about:blank")
    tab.ask("document.body.innerHTML = '<button></button>'")
    assert ["critical", "button-name"] in [found[:2] for found in tab.barriers()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_barriers_are_found(tab, page, width, scheme):
    tab.open_at(width, scheme, page)
    tab.wait("document.querySelector('.tile .heat')?.naturalWidth === 40 && !!document.querySelector('.tile .why')")
    assert tab.barriers() == []
    tab.ask("document.getElementById('further').open = true")
    choose(tab, "verdict", "error", "2 of 1,000 images")
    tab.wait("document.querySelector('.tile')?.row !== undefined")
    assert tab.barriers() == []
    tab.ask("document.getElementById('reset').click()")
    tab.wait(f"{COUNT}.startsWith('1,000 images')")
    tab.wait("document.querySelector('.tile')?.row === 999")
    tab.ask("document.querySelector('.tile').click()")
    tab.wait("document.getElementById('image').naturalWidth === 40 && !document.getElementById('heat').hidden")
    tab.wait("document.getElementById('numbers').textContent.includes('Map')")
    assert tab.barriers() == []


def test_the_token_is_asked_for_once(tab, scores, monkeypatch):
    monkeypatch.setenv(TOKEN, "horse-battery")
    give = """(() => {{ document.getElementById('token').value = '{}';
        document.querySelector('#key button').click(); }})()"""
    viewer = opened(scores)
    with browser.served(review_app(viewer, hashed_token())) as page:
        tab.size(1280, 800)
        tab.open(page)
        tab.wait("document.getElementById('door')?.open")
        tab.ask(give.format("wrong"))
        tab.wait("document.getElementById('door-told').textContent.includes('not its token')")
        tab.ask(give.format("horse-battery"))
        tab.wait(f"{COUNT}.startsWith('1,000 images')")
        tab.wait("document.querySelector('.tile .heat')?.naturalWidth === 40")
        assert tab.ask(
            "[document.querySelectorAll('dialog[open]').length, document.querySelectorAll('#door').length]"
        ) == [0, 1]
    viewer.table.files.close()
