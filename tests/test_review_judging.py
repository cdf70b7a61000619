"""Verdicts on the viewer's page, in a real browser: by keys and by mouse, of one image and of several."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import browser
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import made_images
from PIL import Image

from raydiff.review.app import review_app
from raydiff.review.serving import opened
from raydiff.scoring import table as score_table
from raydiff.verdicts import table
from raydiff.verdicts.table import Verdict

pytestmark = pytest.mark.browser

ROWS = 130  # more than the page asks for at a time
COUNT = "document.getElementById('count').textContent"
MARKS = """Object.fromEntries([...document.querySelectorAll('.tile')].filter(tile => tile.querySelector('.said')).map(
    tile => [tile.querySelector('.file').textContent, tile.querySelector('.said').textContent]))"""
FILE = "document.getElementById('name').textContent"
TEXT = "document.getElementById('{}').textContent"
CHOOSE = """(() => {{ const field = document.querySelector('#filters [name={}]');
    field.value = '{}'; field.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"""
CLICK = """document.querySelector('.tile[data-index="{}"]').dispatchEvent(
    new MouseEvent('click', {{bubbles: true, cancelable: true, {}: true}}))"""
# Rows from the 60th on are not answered before the page is told to `letGo`.
HOLD = """(() => { const fetched = window.fetch, let_go = new Promise(go => (window.letGo = go)); window.asked = 0;
    window.fetch = async (url, ...more) => {
        if (String(url).includes('offset=60')) { window.asked += 1; await let_go; }
        return fetched(url, ...more);
    }; })()"""
ADDED = "document.getElementById('numbers').textContent.includes('Threshold')"


@pytest.fixture
def scores(tmp_path):
    """Row 0 has the highest score, and the first four have images."""
    rows = []
    for number in range(ROWS):
        row = {"uri": str(tmp_path / f"{number:03d}.png"), "category": "bolt", "score": float(ROWS - number)}
        rows.append(row | {"p_value": 0.5, "threshold": 100.5, "is_anomalous": number < 30, "height": 40, "width": 40})
    for number, pixels in enumerate(made_images(4, 40)):
        Image.fromarray(pixels).save(rows[number]["uri"])
    place = score_table.part_uri(str(tmp_path), f"0001-000000-{ROWS}")
    score_table.write(place, pa.Table.from_pylist(rows, score_table.SCHEMA))
    return str(tmp_path)


@pytest.fixture
def page(scores):
    yield from served(scores, "anna")


def served(scores, who):
    viewer = opened(scores, who=who)
    with browser.served(review_app(viewer, None)) as url:
        yield url
    viewer.table.files.close()


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("profile")) as made:
        yield made


def show(tab, page: str, width: int = 1280, scheme: str = "light") -> None:
    tab.open("about:blank")
    tab.wait("location.href === 'about:blank'")
    tab.errors.clear()  # of a page whose service has ended
    tab.open_at(width, scheme, page)
    tab.wait(f"{COUNT} && document.querySelector('.tile')?.row !== undefined")
    tab.ask("document.querySelector('.tile').focus()")


def enlarge(tab) -> None:
    tab.key("Enter", "\r")
    tab.wait(f"document.getElementById('row').open && {ADDED}")


def said(scores) -> list[tuple[str, str]]:
    """File and verdict, in the order in which they were given."""
    return [(Path(row["uri"]).name, row["verdict"]) for row in table.read(scores).to_pylist()]


def test_images_are_gone_through_by_keys(tab, page, scores):
    show(tab, page)
    enlarge(tab)
    assert tab.ask(TEXT.format("judged")) == "Not judged yet"
    for key, number in (("n", 1), ("d", 2), ("u", 3), ("D", 4)):
        tab.key(key, key)
        tab.wait(f"{FILE} === '{number:03d}.png'")
    assert said(scores) == [("000.png", "normal"), ("001.png", "defect"), ("002.png", "unsure"), ("003.png", "defect")]
    assert tab.ask(TEXT.format("kept")) == "003.png: defect."
    tab.key("ArrowLeft")  # another verdict takes its place
    tab.wait(f"{FILE} === '003.png' && {TEXT.format('judged')}.startsWith('Judgeddefectby anna, ')")
    assert tab.ask("document.querySelector('#judge [aria-pressed=true]').dataset.verdict") == "defect"
    tab.key("n", "n")
    tab.wait(f"{FILE} === '004.png'")
    tab.key("Escape")
    tab.wait("document.activeElement.dataset.index === '4'")
    marks = {"000.png": "normal", "001.png": "defect", "002.png": "unsure", "003.png": "normal"}
    assert tab.ask(MARKS) == marks
    assert said(scores)[4:] == [("003.png", "normal")]
    assert tab.errors == []


def test_the_last_image_stays_and_takes_another_verdict(tab, page, scores):
    show(tab, page + "#text=129")
    enlarge(tab)
    tab.key("n", "n")
    tab.wait(f"{TEXT.format('judged')}.startsWith('Judgednormalby anna')")
    tab.key("d", "d")
    tab.wait(f"{TEXT.format('judged')}.startsWith('Judgeddefectby anna')")
    assert said(scores) == [("129.png", "normal"), ("129.png", "defect")]


def before_the_end_of_a_page(tab, page) -> None:
    """Row 59 is shown large, and the next one cannot be fetched yet."""
    show(tab, page)
    tab.ask(HOLD)
    for _ in range(59):
        tab.key("ArrowRight")
    tab.wait("document.activeElement.dataset.index === '59'")
    enlarge(tab)
    assert tab.ask(FILE) == "059.png"


def test_no_verdict_is_given_of_an_image_that_is_on_its_way(tab, page, scores):
    before_the_end_of_a_page(tab, page)
    tab.key("d", "d")
    tab.wait(f"{TEXT.format('kept')} === '059.png: defect.'")
    tab.wait("document.querySelector('[aria-current]').dataset.index === '60'")
    assert tab.ask(FILE) == "059.png"
    tab.key("n", "n")
    tab.ask("document.querySelector('#judge [data-verdict=normal]').click()")
    tab.ask("letGo()")
    tab.wait(f"{FILE} === '060.png' && {ADDED}")
    tab.key("u", "u")
    tab.wait(f"{FILE} === '061.png'")
    assert said(scores) == [("059.png", "defect"), ("060.png", "unsure")]
    assert tab.errors == []


def test_arrows_ask_for_an_image_that_no_verdict_goes_to_before_it_is_shown(tab, page, scores):
    before_the_end_of_a_page(tab, page)
    tab.key("ArrowRight")
    tab.key("ArrowRight")
    tab.key("d", "d")
    tab.key("ArrowLeft")
    tab.key("ArrowLeft")  # back at what is shown
    tab.wait(f"{ADDED} && window.asked === 1")
    tab.key("n", "n")
    tab.wait(f"{TEXT.format('kept')} === '059.png: normal.'")
    tab.key("Escape")  # while row 60 is on its way
    tab.wait("!document.getElementById('row').open")
    tab.ask("letGo()")
    tab.wait("document.querySelector('.tile[data-index=\"60\"]').row !== undefined")
    assert not tab.ask("document.getElementById('row').open")
    assert said(scores) == [("059.png", "normal")]
    assert tab.errors == []


def test_a_note_and_a_place_go_with_a_verdict_and_with_no_other(tab, page, scores):
    show(tab, page)
    enlarge(tab)
    tab.wait("document.getElementById('image').naturalWidth === 40")
    tab.ask("document.getElementById('note').focus()")
    tab.call("Input.insertText", text="und so")  # letters that are keys elsewhere
    tab.key("n", "n")
    tab.key("Enter", "\r")
    tab.ask("document.getElementById('mark').click()")
    left, top, side = tab.ask(
        "(box => [box.left, box.top, box.width])(document.getElementById('image').getBoundingClientRect())"
    )
    places = [(left + side * share, top + side * other) for share, other in ((0.75, 0.5), (0.25, 0.125))]
    for kind, (x, y), button in zip(
        ("mousePressed", "mouseMoved", "mouseReleased"), (places[0], places[1], places[1]), (0, 1, 0), strict=True
    ):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=button, clickCount=1)
    assert tab.ask(TEXT.format("mark")) == "Forget the place"
    assert said(scores) == []
    tab.ask("document.querySelector('#judge [data-verdict=defect]').click()")
    tab.wait(f"{FILE} === '001.png'")
    (row,) = table.read(scores).to_pylist()
    assert (row["verdict"], row["note"]) == ("defect", "und son")
    assert row["region"] == pytest.approx([10, 5, 30, 20], abs=1)
    tab.key("n", "n")
    tab.wait(f"{FILE} === '002.png'")
    assert table.read(scores).to_pylist()[1]["region"] is None
    assert table.read(scores).to_pylist()[1]["note"] is None
    tab.ask("document.getElementById('previous').click()")
    tab.ask("document.getElementById('previous').click()")
    tab.wait(f"{FILE} === '000.png' && {TEXT.format('judged')}.endsWith(': und son')")
    assert tab.ask("document.querySelector('.counting').getBoundingClientRect().width") == pytest.approx(
        side / 2, abs=side / 20
    )
    assert tab.errors == []


def test_a_list_of_what_is_not_judged_loses_nothing_while_it_is_worked_through(tab, page, scores):
    show(tab, page + "#judged=none&sort=uri&descending=false")
    for number in range(65):
        tab.key("n", "n")
        tab.wait(f"document.activeElement.dataset.index === '{number + 1}' && document.activeElement.row !== undefined")
    assert said(scores) == [(f"{number:03d}.png", "normal") for number in range(65)]
    tab.ask(CHOOSE.format("judged", "normal"))
    tab.wait(f"{COUNT}.startsWith('65 of 130 images')")
    tab.ask(CHOOSE.format("judged", "none"))
    tab.wait(f"{COUNT}.startsWith('65 of 130 images') && document.querySelector('.file')?.textContent === '065.png'")
    assert tab.errors == []


def test_one_verdict_is_given_of_several_images(tab, page, scores):
    show(tab, page)
    tab.ask(CLICK.format(2, "ctrlKey"))
    tab.ask(CLICK.format(5, "shiftKey"))
    tab.wait(f"{TEXT.format('how-many')} === '4 chosen'")
    tab.ask(CLICK.format(4, "ctrlKey"))
    assert tab.ask("[...document.querySelectorAll('.tile[aria-pressed]')].map(tile => tile.dataset.index)") == [
        "2",
        "3",
        "5",
    ]
    assert not tab.ask("document.getElementById('row').open")
    assert tab.barriers() == []
    tab.ask("document.querySelector('#chosen [data-verdict=normal]').click()")
    tab.wait(f"{TEXT.format('kept-here')} === '3 images: normal.'")
    assert said(scores) == [("002.png", "normal"), ("003.png", "normal"), ("005.png", "normal")]
    assert len(list((Path(scores) / "verdicts").iterdir())) == 1
    assert tab.ask(MARKS) == {"002.png": "normal", "003.png": "normal", "005.png": "normal"}
    tab.ask(CLICK.format(0, "ctrlKey"))
    tab.key("Escape")
    assert tab.ask("document.getElementById('chosen').hidden")
    tab.ask(CLICK.format(0, "ctrlKey"))
    tab.ask(CLICK.format(1, "ctrlKey"))
    tab.key("d", "d")
    tab.wait(f"{TEXT.format('kept-here')} === '2 images: defect.'")
    assert said(scores)[3:] == [("000.png", "defect"), ("001.png", "defect")]
    assert tab.errors == []


def test_what_is_suggested_is_shown_in_its_order(tab, page, scores):
    show(tab, page)
    assert tab.ask("document.getElementById('of-suggested').hidden")
    told = {"rank": pa.array([2, 1, 3], pa.int32()), "uri": [f"{scores}/{number:03d}.png" for number in (50, 90, 7)]}
    pq.write_table(pa.table(told | {"reason": ["near the threshold"] * 3}), f"{scores}/suggestions.parquet")
    show(tab, page)
    tab.ask(CHOOSE.format("suggested", "true"))
    tab.wait(f"{COUNT}.startsWith('3 of 130 images')")
    files = "[...document.querySelectorAll('.tile .file')].map(each => each.textContent)"
    tab.wait(f"{files}.length === 3")
    assert tab.ask(files) == ["090.png", "050.png", "007.png"]
    tab.ask("document.querySelector('.tile').focus()")
    enlarge(tab)
    assert tab.ask(TEXT.format("suggested")) == "Suggestion 1: near the threshold"
    for key, file in (("n", "050.png"), ("u", "007.png"), ("d", "007.png")):
        tab.key(key, key)
        tab.wait(f"{FILE} === '{file}'")
    tab.wait(f"{TEXT.format('kept')} === '007.png: defect.'")
    assert said(scores) == [("090.png", "normal"), ("050.png", "unsure"), ("007.png", "defect")]
    show(tab, page + "#suggested=true&sort=rank&descending=false&judged=defect")
    tab.wait(f"{COUNT}.startsWith('1 of 130 images')")
    tab.ask("document.getElementById('reset').click()")
    tab.wait(f"{COUNT}.startsWith('130 images')")
    assert tab.ask("document.querySelector('.file').textContent") == "000.png"
    assert tab.errors == []


def test_nobody_gives_verdicts_where_nobody_is_named(tab, scores):
    table.append(scores, table.of([Verdict(f"{scores}/001.png", "defect", "bob", datetime.now(UTC), note="a dent")]))
    for page in served(scores, None):
        show(tab, page)
        assert tab.ask(MARKS) == {"001.png": "defect"}
        tab.key("n", "n")
        tab.key("ArrowRight")
        tab.wait("document.activeElement.dataset.index === '1'")
        enlarge(tab)
        assert tab.ask(TEXT.format("judged")).startswith("Judgeddefectby bob, ")
        assert tab.ask(TEXT.format("judged")).endswith(": a dent")
        assert tab.ask("document.getElementById('judge').hidden")
        tab.key("n", "n")
        tab.key("ArrowRight")
        tab.wait(f"{FILE} === '002.png'")
        assert len(table.read(scores)) == 1
        assert tab.errors == []


def test_a_verdict_that_is_not_kept_or_does_not_count_is_told(tab, page, scores):
    show(tab, page)
    enlarge(tab)
    ahead = datetime.now(UTC) + timedelta(minutes=3)
    table.append(scores, table.of([Verdict(f"{scores}/001.png", "defect", "bob", ahead)]))
    (Path(scores) / "verdicts").rename(Path(scores) / "kept")
    (Path(scores) / "verdicts").write_text("in the way")
    tab.key("n", "n")
    tab.wait(f"{TEXT.format('kept')}.startsWith('The verdict is not kept: ')")
    assert tab.ask(FILE) == "000.png"
    (Path(scores) / "verdicts").unlink()
    (Path(scores) / "kept").rename(Path(scores) / "verdicts")
    tab.key("n", "n")
    tab.wait(f"{FILE} === '001.png'")
    for page_of_bob in served(scores, "anna"):  # which knows bob's
        show(tab, page_of_bob + "#text=001")
        tab.key("n", "n")
        tab.wait(
            f'{TEXT.format("kept-here")} === "001.png: normal. bob\'s verdict of 001.png has a later time and counts."'
        )
        assert tab.ask(MARKS) == {"001.png": "defect"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_barriers_are_found(tab, page, scores, width, scheme):
    given = [("normal", 0), ("defect", 1), ("unsure", 2)]
    rows = [Verdict(f"{scores}/{number:03d}.png", said, "bob", datetime.now(UTC)) for said, number in given]
    table.append(scores, table.of(rows))
    for judged_page in served(scores, "anna"):
        show(tab, judged_page, width, scheme)
        tab.wait("document.querySelectorAll('.tile .image').length >= 3")
        assert tab.ask(f"Object.keys({MARKS}).length") == 3
        assert tab.barriers() == []
        for number in range(3):
            tab.ask(f"document.querySelector('.tile[data-index=\"{number}\"]').click()")
            tab.wait(f"document.getElementById('image').naturalWidth === 40 && {ADDED}")
            assert tab.barriers() == []
            assert tab.ask("document.getElementById('row').scrollWidth") <= width
            facts = "(facts => facts.scrollWidth - facts.clientWidth)(document.querySelector('.row-facts'))"
            assert tab.ask(facts) == 0
            tab.ask("document.getElementById('close').click()")
            tab.wait("!document.getElementById('row').open")
