"""The page in a real browser. SERVE_SCREENSHOTS=docs writes its pictures there; then
SERVE_CHECKPOINT and SERVE_VIDEO may name what they show, in place of an untrained model's.
"""

import io
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .serving import NAMES, checkpoint, proxying, serving

__all__ = ["checkpoint"]  # a fixture

DESKTOP, PHONE = {"width": 1000, "height": 860}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def client(checkpoint, tmp_path_factory):
    with serving(checkpoint, tmp_path_factory.mktemp("room"), max_upload_mb=1) as client:
        yield client
        assert client.files() == []


@pytest.fixture(scope="module")
def film(make_video, index_frames, tmp_path_factory):
    """Two seconds whose second half is another picture, so that the scores change."""
    frames_THWC = np.concatenate([index_frames(30), 255 - index_frames(30)[:, :, ::-1]])
    folder = tmp_path_factory.mktemp("film")
    return make_video(folder / "two halves é.mp4", frames_THWC.repeat(4, 1).repeat(4, 2))


@contextmanager
def visit(browser, client, viewport=DESKTOP, *, url="", **more):
    """Open the page; whatever it says on the console or asks elsewhere fails the test."""
    url = url or client.service.url
    context = browser.new_context(viewport=viewport, **more)
    said, asked = [], []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(30_000)
    try:
        page.goto(url)
        wait_until(page, "document.querySelectorAll('#classes li').length > 0")
        yield page
        origin = "/".join(url.split("/")[:3])
        ours = (url, f"blob:{origin}")
        assert [url for url in asked if not url.startswith(ours)] == []
        # The browser itself notes each answer that is an error.
        assert [words for words in said if "Failed to load resource" not in words] == []
    finally:
        context.close()


def wait_until(page, expression):
    """Ask again and again from outside: the page's own policy forbids to do so inside."""
    give_up_at = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < give_up_at, expression
        page.wait_for_timeout(30)


def bars(page, where="#now"):
    """The names and shares that a list of bars shows, and how long its bars are, of 1."""
    return page.evaluate(
        """(where) => [...document.querySelectorAll(where + ' li')].map((item) => [
            item.querySelector('.name').textContent,
            item.querySelector('.share').textContent,
            item.querySelector('.fill').getBoundingClientRect().width /
              item.querySelector('.track').getBoundingClientRect().width,
        ])""",
        where,
    )


def seek(page, time):
    page.evaluate(
        """(time) => new Promise((done) => {
            const video = document.querySelector('video');
            video.pause();
            video.addEventListener('seeked', () => requestAnimationFrame(done), {once: true});
            video.currentTime = time;
        })""",
        time,
    )
    page.wait_for_timeout(250)  # bars glide


def is_wider_than_the_screen(page):
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_a_video_is_watched_with_its_classes(browser, client, film):
    with visit(browser, client) as page:
        assert page.title() == "hiera_video: try a model"
        assert page.inner_text("#classes").split("\n")[-1] == "<b>c"  # no markup
        page.set_input_files("#file", film)
        page.wait_for_selector("#verdict:visible")
        whole = bars(page, "#whole")
        assert len(whole) == 5
        best, share, _ = whole[0]
        assert page.inner_text("#verdict") == f"{best}, {share}"
        assert best in [name.replace("_", " ") for name in NAMES]
        assert "two halves é.mp4: 2.0 s, seen in " in page.inner_text("#facts")
        # It plays, and by itself.
        wait_until(page, "document.querySelector('video').currentTime > 0.2")
        assert page.evaluate("document.querySelector('video').videoWidth") == 256
        seek(page, 0.3)
        early = bars(page)
        seek(page, 1.8)
        late = bars(page)
        assert early != late
        assert page.inner_text("#clock") == "1.8 s"
        for rows in (early, late, whole):
            for _, words, length in rows:
                assert length == pytest.approx(float(words.split()[0]) / 100, abs=0.02)
        assert [row[2] for row in late] == sorted((row[2] for row in late), reverse=True)


def test_it_works_behind_a_proxy_that_strips_a_prefix(browser, client, film):
    with proxying(client.address, "/tools/hiera/") as url, visit(browser, client, url=url) as page:
        page.set_input_files("#file", film)
        page.wait_for_selector("#verdict:visible")
        assert len(bars(page, "#whole")) == 5
        assert page.evaluate("document.querySelector('link[rel=icon]').href") == f"{url}favicon.svg"
        assert page.locator("#chart polyline").count() == 5


def test_bars_move_while_it_plays(browser, client, film):
    with visit(browser, client) as page:
        page.set_input_files("#file", film)
        page.wait_for_selector("#verdict:visible")
        seek(page, 0.4)
        page.evaluate("document.querySelector('video').play()")
        seen = set()
        for _ in range(12):
            seen.add(str(bars(page)))
            page.wait_for_timeout(80)
        assert len(seen) > 3


def test_the_slider_and_the_chart_move_through_time_by_keyboard_and_pointer(browser, client, film):
    with visit(browser, client) as page:
        page.set_input_files("#file", film)
        page.wait_for_selector("#verdict:visible")
        seek(page, 0.5)
        page.focus("#scrub")
        page.keyboard.press("End")
        wait_until(page, "document.querySelector('video').currentTime > 1.9")
        page.keyboard.press("Home")
        wait_until(page, "document.querySelector('video').currentTime < 0.1")
        box = page.locator("#chart").bounding_box()
        page.mouse.click(box["x"] + 34 + (box["width"] - 42) / 2, box["y"] + 40)
        wait_until(page, "Math.abs(document.querySelector('video').currentTime - 1) < 0.05")
        label = page.get_attribute("#chart svg", "aria-label")
        assert label.startswith("The leading class over time: ")
        lines = page.locator("#chart polyline")
        assert lines.count() == 5


def test_all_of_it_can_be_reached_by_keyboard(browser, client, film):
    with visit(browser, client) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        assert page.evaluate("getComputedStyle(document.querySelector('.drop')).outlineStyle") == (
            "solid"
        )
        page.set_input_files("#file", film)
        page.wait_for_selector("#verdict:visible")
        reached = set()
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id"))
        assert {"again", "video", "scrub"} <= reached
        page.focus("#again")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "file"
        assert page.is_visible("#drop")
        assert page.is_hidden("#result")


def test_a_bad_file_gets_a_message_and_the_next_one_an_answer(browser, client, bad_videos, film):
    with visit(browser, client) as page:
        for name, message in (
            ("noise.mp4", "noise.mp4: This file is not a readable video"),
            ("empty.mp4", "empty.mp4: The file is empty"),
            ("sound.wav", r"sound.wav: This file is audio/\S+, not a video\."),
        ):
            page.set_input_files("#file", bad_videos[name])
            page.wait_for_selector("#error:visible")
            said = page.inner_text("#error-text")
            assert re.match(message, said), said
            assert page.is_visible("#drop")
        page.set_input_files(
            "#file",
            {"name": "large.mp4", "mimeType": "video/mp4", "buffer": bytes(1_200_000)},
        )
        wait_until(page, "document.querySelector('#error-text').textContent.includes('1.2 MB')")
        page.set_input_files("#file", film)
        page.wait_for_selector("#verdict:visible")
        assert page.is_hidden("#error")


def test_a_file_that_the_browser_cannot_play_is_shown_by_the_slider(browser, client, videos):
    with visit(browser, client) as page:
        page.set_input_files("#file", videos["mpeg4.avi"])
        page.wait_for_selector("#unplayable:visible")
        assert page.is_hidden("video")
        before = bars(page)
        page.focus("#scrub")
        page.keyboard.press("End")
        page.wait_for_timeout(250)
        assert bars(page) != before
        assert page.inner_text("#clock") != "0.0 s"


def test_a_video_can_be_dropped_and_an_upload_be_given_up(browser, client, film):
    content = list(Path(film).read_bytes())
    drop = """([content, name]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], name, {type: 'video/mp4'}));
        for (const kind of ['dragenter', 'dragover', 'drop']) {
            document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true}));
        }
    }"""
    with visit(browser, client) as page:
        page.route("**/predict?*", lambda route: None)  # an upload that gets no answer
        page.evaluate(drop, [content, "dropped.mp4"])
        page.wait_for_selector("#cancel:visible")
        assert page.inner_text("#working-name") == "dropped.mp4"
        page.click("#cancel")
        assert page.is_visible("#drop")
        page.unroute("**/predict?*")
        page.evaluate(drop, [content, "dropped.mp4"])
        page.wait_for_selector("#verdict:visible")


def test_progress_is_shown_while_a_large_model_looks(browser, client, film, monkeypatch):
    predictor = client.service.analyst.predictor
    usual = predictor.probabilities
    monkeypatch.setattr(predictor, "probabilities", lambda x: (time.sleep(0.7), usual(x))[1])
    with visit(browser, client) as page:
        page.set_input_files("#file", film)
        said = "document.querySelector('#stage').innerText"
        wait_until(page, f"/[1-9]\\d* of \\d+ windows$/.test({said})")
        assert 0 < page.evaluate("document.querySelector('#progress').position") < 1
        page.wait_for_selector("#verdict:visible")


def test_a_server_that_is_gone_is_told(browser, client, film):
    with visit(browser, client) as page:
        page.route("**/predict?*", lambda route: route.abort())
        page.set_input_files("#file", film)
        page.wait_for_selector("#retry:visible")
        assert "The server does not answer" in page.inner_text("#error-text")
        page.unroute("**/predict?*")
        page.click("#retry")
        page.wait_for_selector("#verdict:visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(browser, client, film, scheme):
    with visit(browser, client, PHONE, color_scheme=scheme) as page:
        assert not is_wider_than_the_screen(page)
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (light == "rgb(246, 247, 249)") == (scheme == "light")
        page.set_input_files("#file", film)
        page.wait_for_selector("#verdict:visible")
        assert not is_wider_than_the_screen(page)
        assert worst_contrast(page) >= 4.5


def worst_contrast(page):
    """The least contrast of any text to what is behind it (WCAG 2: 4.5 is asked for)."""
    return page.evaluate(
        """() => {
            const parse = (words) => words.match(/[\\d.]+/g).map(Number);
            const light = (words) => {
                const part = parse(words).slice(0, 3).map((value) => {
                    value /= 255;
                    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
            };
            const behind = (node) => {
                for (; node; node = node.parentElement) {
                    const colour = getComputedStyle(node).backgroundColor;
                    if ((parse(colour)[3] ?? 1) > 0.99) return colour;
                }
                return 'rgb(255, 255, 255)';
            };
            let worst = 21;
            for (const node of document.querySelectorAll('body *')) {
                const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
                if (!own || !node.checkVisibility()) continue;
                const style = getComputedStyle(node);
                const ink = node instanceof SVGElement ? style.fill : style.color;
                const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
                worst = Math.min(worst, (a + 0.05) / (b + 0.05));
            }
            return worst;
        }"""
    )


def picture(page, path):
    """Save the whole page, in 256 colours: less than half the size."""
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    shot.convert("RGB").quantize(256).save(path, optimize=True)


@pytest.mark.skipif("SERVE_SCREENSHOTS" not in os.environ, reason="made on request")
def test_pictures_for_the_docs(browser, checkpoint, film, tmp_path):
    folder = Path(os.environ["SERVE_SCREENSHOTS"])
    video = os.environ.get("SERVE_VIDEO", film)
    with serving(os.environ.get("SERVE_CHECKPOINT", checkpoint), tmp_path) as client:
        with visit(browser, client) as page:
            picture(page, folder / "serve_empty.png")
            page.set_input_files("#file", video)
            page.wait_for_selector("#verdict:visible")
            seek(page, 1.2)
            picture(page, folder / "serve.png")
        with visit(browser, client, PHONE, color_scheme="dark") as page:
            page.set_input_files("#file", video)
            page.wait_for_selector("#verdict:visible")
            seek(page, 1.2)
            picture(page, folder / "serve_phone.png")
