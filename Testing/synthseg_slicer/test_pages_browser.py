"""Pages in a real browser: headless Chromium, driven by Playwright, judged by axe-core."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from browser import chromium, why_not
from reports import head_lesions, head_scan, head_segmentation

from synthseg_slicer.pages import CohortEntry, write_cohort_page, write_scan_page

EVIL = '<script>window.hacked = 1</script>"><img src=x onerror="window.hacked = 2">'
PAGES = ("brain", "stroke", "cohort")


@pytest.fixture(scope="module")
def browser():
    if why_not():
        pytest.skip(why_not())
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three kinds of pages, about scans with names that would like to be markup."""
    folder = tmp_path_factory.mktemp("pages")
    scan = head_scan(name=EVIL)
    write_scan_page(folder / "brain.html", scan, head_segmentation(scan, (f"{EVIL}: left or right?",)))
    write_scan_page(folder / "stroke.html", scan, head_lesions(scan))
    entries = [
        CohortEntry(
            f"sub-{i:02d}",
            "done",
            volumes={"Left-Hippocampus": 4000.0 + i, "Brain-Stem": 20000.0 - 9 * i + 9000 * (i == 4)},
            quality=(0.7 + i / 100) if i else None,
            page=f"sub-{i:02d}.html",
            intracranial=float(1e6 + i % 7 * 1e5),
        )
        for i in range(12)
    ]
    write_cohort_page(folder / "cohort.html", [*entries, CohortEntry(EVIL, "failed", EVIL)])
    return folder


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core; the package that brings it cannot be imported where the locale's encoding is ASCII."""
    package = importlib.util.find_spec("axe_playwright_python")
    if package is None:
        pytest.skip("axe-playwright-python is not installed")
    return Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def visit(browser, folder):
    """Open a page; at the end of the test fail if it asked for anything or raised an error."""
    contexts, troubles = [], []

    def visit(name: str, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        address = (folder / f"{name}.html").as_uri()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("request", lambda request: _own(request.url, address) or troubles.append(request.url))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not troubles


def _own(url: str, address: str) -> bool:
    return url == address or url.startswith("data:")


def shown(page) -> list[str]:
    """Return the places of the slices that can be seen, one a plane."""
    return page.locator("figure:visible figcaption").all_text_contents()


@pytest.mark.parametrize("name", PAGES)
def test_names_do_not_run_and_nothing_is_asked_for(visit, name):
    page = visit(name)
    assert page.evaluate("window.hacked") is None
    assert EVIL in page.inner_text("main")


def test_a_script_that_slipped_in_would_not_run(browser, folder):
    """The policy itself is tried, without the fixture that fails upon messages of the console."""
    page = browser.new_page()
    page.goto((folder / "brain.html").as_uri())
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.hacked = 3';
            document.body.append(script);
            document.querySelector('h1').insertAdjacentHTML('beforeend', '<img src=x onerror="window.hacked = 4">');
        }"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in message for message in messages)
    page.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_fault(visit, axe, name, width, scheme):
    page = visit(name, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.evaluate(axe)
    violations = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    assert violations == [], [(fault["help"], [node["html"] for node in fault["nodes"]]) for fault in violations]
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out sideways


def test_the_keyboard_moves_through_the_slices(visit):
    page = visit("brain")
    slider = page.get_by_role("slider", name="Coronal slice")
    before = shown(page)
    assert len(before) == 3
    for _ in range(40):  # by Tab alone
        page.keyboard.press("Tab")
        if slider.evaluate("element => element === document.activeElement"):
            break
    else:
        pytest.fail("Tab never reaches the slider")
    page.keyboard.press("ArrowRight")
    after = shown(page)
    assert [old == new for old, new in zip(before, after)] == [True, False, True]
    assert slider.get_attribute("aria-valuetext") == after[1] == page.locator("output").nth(1).inner_text()
    page.keyboard.press("End")
    last = page.locator(".plane").nth(1).locator("figcaption").last.text_content()
    assert shown(page)[1] == last


def test_finding_highlights_one_structure_and_moves_there(visit):
    page = visit("brain")
    page.get_by_role("combobox", name="Find").select_option(label="Right-Hippocampus")
    found = page.locator("figure:visible path.found")
    assert found.count() == 3
    assert {one.get_attribute("class").split()[0] for one in found.all()} == {"structures-53"}
    dimmed = page.locator("figure:visible path.structures-41").first
    strength = "element => getComputedStyle(element).strokeOpacity"
    assert float(dimmed.evaluate(strength)) < 0.5 < float(found.first.evaluate(strength))
    page.get_by_role("combobox", name="Find").select_option("")
    assert page.locator(".found").count() == 0 and float(dimmed.evaluate(strength)) == 1


def test_layers_fill_and_lines_can_be_switched(visit):
    page = visit("stroke")
    structure = page.locator("figure:visible .structures").first
    assert structure.is_visible()
    page.get_by_role("checkbox", name="Structures").uncheck()
    assert structure.is_hidden() and page.locator("figure:visible .lesions").first.is_visible()
    lesion = page.locator("figure:visible .lesions path").first
    assert lesion.evaluate("element => getComputedStyle(element).fillOpacity") == "0"
    page.get_by_role("checkbox", name="Fill").check()
    assert lesion.evaluate("element => getComputedStyle(element).fillOpacity") == "0.35"
    assert page.locator("line").count() == 0
    page.get_by_role("checkbox", name="Lines where").check()
    assert page.locator("line").count() == 6


def test_lines_cross_where_the_planes_cut(visit):
    """The lesion that the page opens on lies under the crossing of the lines in each plane."""
    page = visit("stroke")
    page.get_by_role("checkbox", name="Lines where").check()
    for figure in page.locator("figure:visible").all():
        lesion = figure.locator(".lesions-1").bounding_box()
        upright, level = (line.bounding_box() for line in figure.locator("line").all())
        if upright["height"] < level["height"]:
            upright, level = level, upright
        assert lesion["x"] < upright["x"] < lesion["x"] + lesion["width"]
        assert lesion["y"] < level["y"] < lesion["y"] + lesion["height"]


def test_outlines_are_painted_on_the_picture_at_its_borders(visit):
    page = visit("brain")
    for figure in page.locator("figure:visible").all():
        frame, image = (figure.locator(one).first.bounding_box() for one in ("svg", "image"))
        for side in ("x", "y", "width", "height"):
            assert image[side] == pytest.approx(frame[side], abs=1)
        brain = figure.locator(".structures").bounding_box()
        assert brain["width"] < image["width"] and brain["x"] > image["x"]


def test_without_scripts_every_slice_can_be_seen_and_no_dead_control(visit):
    page = visit("brain", java_script_enabled=False)
    assert page.locator("figure:visible").count() == page.locator("figure").count() > 30
    assert page.locator("input:visible, select:visible").count() == 0
    assert visit("cohort", java_script_enabled=False).locator("button, input:visible").count() == 0


def test_on_paper_some_slices_and_no_controls(visit):
    page = visit("brain")
    page.emulate_media(media="print")
    assert page.locator("figure:visible").count() == 18
    assert page.locator("input:visible, select:visible").count() == 0
    display = page.locator("thead").first.evaluate("element => getComputedStyle(element).display")
    assert display == "table-header-group"  # repeated on each page
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_tables_sort_by_click_and_by_key_and_what_is_missing_comes_last(visit):
    page = visit("cohort")
    names = page.locator("#all tbody th")
    quality = page.get_by_role("button", name="Quality")
    quality.click()
    assert names.all_inner_texts()[:2] == ["sub-01", "sub-02"]
    assert names.all_inner_texts()[-2:] == ["sub-00", EVIL]
    quality.press("Enter")
    assert names.all_inner_texts()[:2] == ["sub-11", "sub-10"] and names.all_inner_texts()[-2:] == ["sub-00", EVIL]
    assert page.locator("#all th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Intracranial").click()
    numbers = [float(text) for text in page.locator("#all tbody tr td:nth-child(4)").all_inner_texts()[:12]]
    assert numbers == sorted(numbers) and page.locator("#all th[aria-sort]").count() == 1
    page.get_by_role("button", name="Scan").click()
    assert names.all_inner_texts()[-1] == "sub-11"


def test_rows_can_be_sifted(visit):
    page = visit("cohort")
    page.get_by_label("Show rows that contain").fill("SUB-1")
    assert page.locator("#all tbody tr:visible th").all_inner_texts() == ["sub-10", "sub-11"]
    assert page.locator("#shown").inner_text() == "2 of 13"
    page.emulate_media(media="print")
    assert page.locator("#all tbody tr:visible").count() == 13
