"""The report as people see it, in a real browser without a network.

With REPORT_SCREENSHOTS=docs it writes the pictures of docs/report.md there; of the runs in
REPORT_RUNS (folders, separated by spaces) if that is given, such as those of `make demo`.
"""

import os
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from hiera_video.report.write import write_report

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
NASTY = "<img src=x onerror=alert(1)><script>alert(1)</script>"
SCREENSHOTS = os.environ.get("REPORT_SCREENSHOTS")
_MAX_BYTES = 150_000


@pytest.fixture(scope="module")
def report(make_run, tmp_path_factory):
    """A report on a pretraining and two classifiers."""
    runs = [
        make_run("pretrained", pretraining=True, epochs=6),
        make_run("fine_tuned", right=0.4),
        make_run("from_scratch", right=0.8),
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report([str(run) for run in runs], str(path))
    return path


@pytest.fixture
def show(browser):
    """Open a file offline; return the page, which must stay silent and fetch nothing."""
    contexts, heard = [], []

    def open_page(path, *, viewport=DESKTOP, scheme="light", scale=1):
        context = browser.new_context(
            viewport=viewport, color_scheme=scheme, offline=True, device_scale_factor=scale
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: heard.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    pages = {context.pages[0].url for context in contexts}
    for context in contexts:
        context.close()
    strangers = [
        entry for entry in heard if entry not in pages and not entry.startswith("data:image/")
    ]
    assert strangers == []


def is_seen(item):
    box = item.bounding_box()
    return box is not None and box["width"] > 20 and box["height"] > 20


def overflow(page):
    """How many pixels the page can be scrolled sideways."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def test_it_opens_from_disk_and_all_of_it_is_there(show, report):
    page = show(report)
    assert page.title() == "Report: pretrained, fine_tuned, from_scratch"
    charts = page.locator("figure.chart > svg")
    assert charts.count() == 3 + 5 + 2
    for number in range(charts.count()):
        assert is_seen(charts.nth(number))
        assert charts.nth(number).locator(".line").first.bounding_box()["width"] > 50
    pictures = page.locator(".mistakes img, .strips img")
    assert pictures.count() >= 9 + 2
    for picture in pictures.all():
        assert is_seen(picture)
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
        assert picture.get_attribute("alt")


def test_runs_stand_side_by_side(show, report):
    page = show(report)
    heads = page.locator("#summary-table thead th")
    assert [text.strip() for text in heads.all_inner_texts()] == [
        *("pretrained", "fine_tuned", "from_scratch")
    ]
    boxes = [head.bounding_box() for head in heads.all()]
    assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    assert len({box["y"] for box in boxes}) == 1
    chart = page.locator("figure.chart", has_text="Validation, top-1")
    strokes = {
        group.locator(".line").evaluate("line => getComputedStyle(line).stroke")
        for group in chart.locator("svg > g").all()
    }
    assert len(strokes) == 2


def test_no_page_is_wider_than_a_phone(show, report):
    page = show(report, viewport=PHONE)
    assert overflow(page) == 0
    for details in page.locator("details").all():
        details.evaluate("it => it.open = true")
    assert overflow(page) == 0
    # What is wider than the screen scrolls inside itself.
    table = page.locator("#summary .scroll")
    assert table.evaluate("it => it.scrollWidth > it.clientWidth")
    assert (
        page.locator("figure.chart > svg text").first.evaluate(
            "text => text.getBoundingClientRect().height"
        )
        >= 10
    )
    page.set_viewport_size({"width": 320, "height": 600})
    assert overflow(page) == 0


def test_dark_mode_is_dark_and_reads_well(show, report):
    contrasts = {}
    for scheme in ("light", "dark"):
        page = show(report, scheme=scheme)
        colours = page.evaluate(COLOURS)
        contrasts[scheme] = colours
        ground = luminance(colours["ground"])
        assert (ground < 0.05) == (scheme == "dark")
        for name, colour in colours.items():
            if name != "ground":
                least = 3 if name.startswith("run") else 4.5  # of lines and of texts, by WCAG
                assert contrast(colour, colours["ground"]) >= least, (scheme, name)
    assert all(contrasts["light"][name] != contrasts["dark"][name] for name in contrasts["light"])


COLOURS = """() => {
  const of = (query, what) => getComputedStyle(document.querySelector(query))[what];
  const probe = document.body.appendChild(document.createElement("p"));
  const runs = {};
  for (let n = 0; n < 6; n++) {
    probe.style.color = `var(--run${n})`;
    runs["run" + n] = getComputedStyle(probe).color;
  }
  return { ground: of("body", "backgroundColor"), ink: of("body", "color"),
           quiet: of(".note", "color"), link: of("a", "color"), ...runs };
}"""


def luminance(colour):
    """Relative luminance of `rgb(r, g, b)`, by WCAG 2."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_names_that_are_html_stay_text(show, make_run, tmp_path):
    run = make_run("plain", names=[NASTY, "b", "c", "d"], right=0.1)
    write_report([str(run)], str(tmp_path / "report.html"))
    page = show(tmp_path / "report.html", viewport=PHONE)
    assert page.locator("script").count() == 0
    assert page.locator("table.classes th", has_text="<script>").count() == 1
    assert page.locator("img[src=x]").count() == 0
    assert_headings_nest(page)
    assert overflow(page) == 0


def assert_headings_nest(page):
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(it => +it.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_keys_alone_reach_tables_and_what_is_folded(show, report):
    page = show(report, viewport=PHONE)
    summary = page.locator("figure.chart summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert is_seen(page.locator("figure.chart details table").first)
    assert_headings_nest(page)
    assert all(table.locator("th[scope=col]").count() for table in page.locator("table").all())


def test_a_matrix_of_many_classes_is_a_picture(show, make_run, tmp_path):
    names = [f"class {k}" for k in range(60)]
    run = make_run("many", names=names, paths=[f"/gone/{n}.mp4" for n in range(600)])
    write_report([str(run)], str(tmp_path / "report.html"))
    page = show(tmp_path / "report.html", viewport=PHONE)
    assert is_seen(page.locator("img.matrix"))
    assert page.locator("img.matrix").evaluate("it => it.naturalWidth") == 60
    assert overflow(page) == 0


@pytest.mark.skipif(not SCREENSHOTS, reason="REPORT_SCREENSHOTS does not say where to")
def test_pictures_of_the_docs(show, report, tmp_path):
    if runs := os.environ.get("REPORT_RUNS", "").split():
        report = tmp_path / "report.html"
        write_report(runs, str(report))
    folder = Path(SCREENSHOTS)
    page = show(report)
    save(page.screenshot(), folder / "report.png")
    save(from_there(page, "#training", 1150), folder / "report_training.png")
    save(from_there(page, "#reconstructions", 560), folder / "report_reconstructions.png")
    dark = show(report, scheme="dark")
    save(from_there(dark, "#classes", 900), folder / "report_dark.png")
    phone = show(report, viewport=PHONE)
    shots = [phone.screenshot()]
    for query in ("figure.chart", "#classes table.matrix", ".mistakes"):
        phone.locator(query).first.evaluate("it => it.scrollIntoView({block: 'start'})")
        shots.append(phone.screenshot())
    save(side_by_side(shots), folder / "report_phone.png")


def from_there(page, query, height):
    """A picture of so much of the page, from an element on."""
    page.set_viewport_size({"width": DESKTOP["width"], "height": height})
    page.locator(query).evaluate("it => it.scrollIntoView({block: 'start'})")
    return page.screenshot()


def side_by_side(shots):
    images = [Image.open(BytesIO(shot)).convert("RGB") for shot in shots]
    gap = 24
    whole = Image.new("RGB", (sum(i.width + gap for i in images) - gap, images[0].height), "#888")
    for number, image in enumerate(images):
        whole.paste(image, (number * (image.width + gap), 0))
    return whole


def save(shot, path):
    """Write a picture in few colours, so that the repository stays small."""
    image = shot if isinstance(shot, Image.Image) else Image.open(BytesIO(shot)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < _MAX_BYTES, path
