"""The inspection page in a real browser, before the service without Ray; tests/test_serving.py has it before Serve."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import browser
import numpy as np
import pytest
from conftest import calibrated_model, made_images, with_defect
from PIL import Image

import raydiff
from raydiff import cluster
from raydiff.images.decode import decode
from raydiff.scoring import service as module
from raydiff.scoring.service import Arguments, Service
from raydiff.scoring.tokens import TOKEN, hashed_token

pytestmark = pytest.mark.browser

ROWS = """[...document.querySelectorAll('#list li')].map(
    row => [row.querySelector('.file').textContent, row.querySelector('.chip').textContent])"""
DONE = "document.querySelectorAll('#list li').length && !document.querySelector('.chip.waiting')"


@contextlib.contextmanager
def site(folder: str, token_hash: str | None = None, **limits) -> Iterator[str]:
    """The service of a model, in this process; its address."""
    service = Service(Arguments(model=folder, **limits), token_hash)
    with browser.served(service.__serve_build_asgi_app__()) as place:
        yield place


@pytest.fixture(scope="module", autouse=True)
def _on_cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "use_assigned_device", lambda: "cpu")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return calibrated_model(tmp_path_factory.mktemp("model"), "bolt", "cloth")


@pytest.fixture(scope="module")
def page(folder):
    with site(folder) as url:
        yield url


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def files(tmp_path):
    """A normal image, one with a defect, a TIFF (which the browser does not show) and one that is no image."""
    (normal,) = made_images(1, 40, seed=9)
    (odd,) = with_defect(made_images(1, 40, seed=9))
    found = []
    for name, image in (("normal.png", normal), ("odd.png", odd), ("scan.tif", odd)):
        Image.fromarray(image).save(tmp_path / name)
        found.append(tmp_path / name)
    (tmp_path / "notes.png").write_bytes(b"no image")
    return [*found, tmp_path / "notes.png"]


def shown(tab) -> dict:
    """What the page shows of the image that is chosen."""
    return tab.ask(
        """(() => { const at = id => document.getElementById(id);
        return {name: at('name').textContent, verdict: at('verdict').textContent, because: at('because').textContent,
            numbers: at('numbers').innerText, image: at('image').naturalWidth, heat: at('heat').naturalWidth,
            warm: !at('heat').hidden, plot: !!document.querySelector('#standing:not([hidden]) svg')}; })()"""
    )


def test_chosen_images_are_shown_with_verdict_and_heat_map(tab, page, folder, files):
    tab.size(1280, 800)
    tab.open(page)
    tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
    tab.choose("#files", *files)
    tab.wait(DONE)
    model = raydiff.load(folder, "cpu")
    rows = tab.ask(ROWS)
    assert [name for name, _ in rows] == [file.name for file in files]
    for number, (file, (_, words)) in enumerate(zip(files[:3], rows, strict=False)):
        scored = model.score([decode(file.read_bytes())], [""])
        own = model.calibration.of(scored.guessed[0])
        alarm = scored.scores[0] > own.threshold
        assert words == ("anomalous" if alarm else "normal")
        tab.ask(f"document.querySelectorAll('#list button')[{number}].click()")
        tab.wait("document.getElementById('image').complete && document.getElementById('heat').complete")
        told = shown(tab)
        assert (told["name"], told["verdict"]) == (file.name, "Anomalous" if alarm else "Normal")
        assert told["image"] == 40
        assert told["heat"] == model.image_size
        assert told["warm"]
        assert told["plot"]
        assert f"{float(f'{scored.scores[0]:.4g}'):,}" in told["because"]
        assert "guess" in told["numbers"]
    assert rows[3][1] == "not scored"
    tab.ask("document.querySelectorAll('#list button')[3].click()")
    told = shown(tab)
    assert (told["verdict"], told["warm"], told["plot"]) == ("Not scored", False, False)
    assert "no PNG" in told["because"]
    assert "1 not scored" in tab.ask("document.getElementById('summary').textContent")
    asked = tab.ask("performance.getEntriesByType('resource').map(each => each.name)")
    assert all(each.startswith((page, "blob:", "data:")) for each in asked)
    assert [each for each in tab.errors if "422" not in each] == []  # of what is no image


def test_dropped_images_are_gone_through_by_keys(tab, page, files):
    tab.size(1280, 800)
    tab.open(page)
    content = list(files[1].read_bytes())
    tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
    tab.ask(
        f"""(() => {{ const carried = new DataTransfer(), bytes = new Uint8Array({content});
        for (const name of ["a", "b", "c"]) carried.items.add(new File([bytes], name + ".png", {{type: "image/png"}}));
        dispatchEvent(new DragEvent("drop", {{dataTransfer: carried, cancelable: true}})); }})()"""
    )
    tab.wait(DONE)
    tab.ask("document.querySelector('#list button').focus()")
    tab.key("ArrowDown")
    assert shown(tab)["name"] == "b.png"
    assert tab.ask("document.activeElement.textContent").startswith("b.png")
    tab.key("h")
    assert tab.ask("document.getElementById('heat').style.opacity") == "0"
    tab.key("h")
    assert tab.ask("document.getElementById('heat').style.opacity") == "0.75"
    tab.ask("document.getElementById('stage').focus()")
    before = tab.ask("document.getElementById('percent').value")
    tab.key("+", "+")
    assert tab.ask("document.getElementById('percent').value") != before
    tab.key("0", "0")
    assert tab.ask("document.getElementById('percent').value") == before
    tab.ask("document.getElementById('clear').click()")
    assert tab.ask("document.getElementById('work').hidden")
    assert tab.ask("document.querySelectorAll('#list li').length") == 0


def test_a_page_of_several_can_be_named(tab, page, folder, tmp_path):
    pages = made_images(3, 40, seed=2)
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    tab.open(page)
    tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
    tab.choose("#files", tmp_path / "stack.tif")
    tab.wait(DONE)
    assert "holds 3 pages" in shown(tab)["because"]
    tab.ask("document.getElementById('page').value = 2; document.querySelector('#pages button').click()")
    tab.wait("document.getElementById('because').textContent.includes('score')")
    score = float(raydiff.load(folder, "cpu").score([pages[1]], [""]).scores[0])
    assert f"{float(f'{score:.4g}'):,}" in shown(tab)["because"]


def test_a_category_can_be_named(tab, page, folder, files):
    tab.open(page)
    tab.wait("document.querySelectorAll('#category option').length == 3")
    tab.ask("document.getElementById('category').value = 'cloth'")
    tab.choose("#files", files[0])
    tab.wait(DONE)
    threshold = raydiff.load(folder, "cpu").calibration.of("cloth").threshold
    assert f"{float(f'{threshold:.4g}'):,}" in shown(tab)["because"]
    assert "guess" not in shown(tab)["numbers"]


def test_a_phone_shows_it_without_scrolling_sideways(tab, page, files):
    tab.size(390, 844, phone=True)
    tab.open(page)
    tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
    assert tab.ask("document.documentElement.scrollWidth") <= 390
    tab.choose("#files", *files)
    tab.wait(DONE)
    assert tab.ask("document.documentElement.scrollWidth") <= 390
    stage = tab.ask(
        "(({left, right, width}) => [left, right, width])(document.getElementById('stage').getBoundingClientRect())"
    )
    assert stage[0] >= 0
    assert stage[1] <= 390
    assert stage[2] > 330


def test_the_api_is_described_without_a_network(tab, page):
    tab.size(1280, 800)
    tab.open(page + "docs")
    tab.wait("[...document.querySelectorAll('h2')].some(each => each.textContent === 'POST /v1/score')")
    assert f"{page}v1/score" in tab.ask("document.getElementById('shell').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_barriers_are_found(tab, page, files, width, scheme):
    tab.open_at(width, scheme, page)
    tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
    assert tab.barriers() == []
    tab.choose("#files", *files)
    tab.wait(DONE)
    tab.wait("document.getElementById('heat').complete && !document.getElementById('heat').hidden")
    assert tab.barriers() == []
    tab.ask("document.querySelectorAll('#list button')[3].click()")  # which is not scored
    assert tab.barriers() == []
    tab.open(page + "docs")
    tab.wait("[...document.querySelectorAll('h2')].some(each => each.textContent === 'What is in the answers')")
    assert tab.barriers() == []


def test_the_token_is_asked_for_and_kept_in_this_tab_alone(tab, folder, files, monkeypatch):
    monkeypatch.setenv(TOKEN, "horse-battery")
    give = """(() => {{ document.getElementById('token').value = '{}';
        document.querySelector('#key button').click(); }})()"""
    with site(folder, hashed_token()) as page:
        tab.open(page)
        tab.wait("document.getElementById('door')?.open")
        tab.ask(give.format("wrong"))
        tab.wait("document.getElementById('door-told').textContent.includes('not its token')")
        assert tab.barriers() == []
        tab.ask(give.format("horse-battery"))
        tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
        tab.choose("#files", files[0])
        tab.wait(DONE)
        assert shown(tab)["verdict"] in ("Anomalous", "Normal")
        assert tab.ask("[Object.values(sessionStorage), localStorage.length, document.cookie]") == [
            ["horse-battery"],
            0,
            "",
        ]


def test_it_waits_while_the_service_is_busy(tab, folder, files, monkeypatch):
    monkeypatch.setattr(module, "PLACES", 1)
    with site(folder) as page:
        tab.open(page)
        tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
        tab.choose("#files", *files[:3])
        told = tab.wait("document.querySelector('.chip.waiting')?.getBoundingClientRect().toJSON()")
        assert 0 < told["width"] < 200  # in its row
        tab.wait(DONE)
        assert tab.ask("document.getElementById('told').textContent").startswith("All done: ")
        assert {words for _, words in tab.ask(ROWS)} <= {"normal", "anomalous"}


def test_a_file_that_is_too_large_is_not_sent(tab, folder, tmp_path):
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)).save(sink, "PNG")
    (tmp_path / "large.png").write_bytes(sink.getvalue())
    with site(folder, max_bytes=20_000) as page:
        tab.open(page)
        tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
        tab.choose("#files", tmp_path / "large.png")
        tab.wait(DONE)
        assert "20,000" in shown(tab)["because"]
