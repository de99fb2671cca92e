"""Every page of the demo's and of the real study's report, read in headless Chromium from the file system."""

import functools
import math
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from toy import ROOT

from helpers.claims import claims_of, load_claims
from helpers.output import SMALLEST
from helpers.site.pdf import QUIET, find_chromium, print_report
from helpers.study import load_study

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: browser tests not run"),
]

WIDTHS = (390, 768, 1440)
#: The fewest draws that the settings allow: what is read here is pages, not numbers.
FAST = "permutations=99 bootstraps=100 rarefactions=1 robustness=light"
REAL = ROOT.parent / "shared" / "studies" / "khadka2021"


@pytest.fixture(scope="module", params=["demo", "khadka2021"])
def html(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a study, built by `make report` in a copy of the project."""
    study, root = request.param, tmp_path_factory.mktemp(request.param)
    for part in ("notebooks", f"data/{study}"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("raw", ".*"))
    for part in ("data/demo/validation.tsv", "data/demo/study.yaml", "Makefile", "requirements.lock", "pyproject.toml"):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, root / part)
    (root / "src").symlink_to(ROOT / "src")
    if study == "khadka2021":
        if not REAL.is_dir():
            pytest.skip("../shared/studies/khadka2021 is not there: the real study's pages were not read")
        shutil.copytree(REAL, root / "data" / study / "raw")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "report", f"STUDY={study}", f"SET={FAST}", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    return root / "reports" / study / "html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = [*(f"--disable-{what}" for what in QUIET), "--no-first-run", *["--no-sandbox"] * (os.getuid() == 0)]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


def pages(html: Path) -> list[Path]:
    found = [*sorted(html.glob("*.html")), *sorted(html.glob("claims/*.html"))]
    assert {"index", "01_ingest", "05_treatment_comparison", "search"} <= {page.stem for page in found}
    return found


@functools.cache
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


#: In a page: how wide it is with every fold open, and its images, each after it was scrolled to.
IMAGES = """async () => {
  document.querySelectorAll("article details").forEach(fold => fold.open = true);
  const images = [...document.querySelectorAll("article img")].filter(image => image.checkVisibility());
  for (const image of images) {
    image.scrollIntoView();
    await image.decode().catch(() => {});
  }
  const column = document.querySelector("article")?.getBoundingClientRect().toJSON();
  return {
    wide: document.documentElement.scrollWidth,
    cut: [...document.querySelectorAll(".report-table")].filter(frame => frame.scrollWidth > frame.clientWidth + 1)
      .map(frame => frame.getAttribute("aria-label")),
    images: images.map(image => ({
      source: image.getAttribute("src"), alt: image.alt, drawn: image.complete && image.naturalWidth > 0,
      box: image.getBoundingClientRect().toJSON(), column, natural: image.naturalWidth,
      frame: image.closest(".picture")?.getBoundingClientRect().toJSON(),
    })),
  };
}"""


class Visit(NamedTuple):
    """What a reader finds who opens every page, and looks at it at every width."""

    wrong: list[str]
    seen: dict[tuple[str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def visit(html: Path, browser: Any) -> Visit:
    wrong: list[str] = []
    tab, seen = browser.new_page(), {}
    tab.on("console", lambda m: wrong.append(f"{tab.url}: {m.text}") if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(f"{tab.url}: {error}"))
    tab.on("requestfailed", lambda r: wrong.append(f"{tab.url}: {r.url} failed"))
    tab.on("request", lambda r: None if r.url.startswith((html.as_uri(), "data:")) else wrong.append(r.url))
    for page in pages(html):
        tab.set_viewport_size({"width": WIDTHS[0], "height": 900})
        tab.goto(page.as_uri())
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            seen[page.relative_to(html).as_posix(), width] = tab.evaluate(IMAGES)
    tab.close()
    return Visit(wrong, seen)


def test_pages_load_without_error_and_ask_nothing_of_the_network(visit: Visit) -> None:
    assert visit.wrong == []


def test_links_lead_somewhere_and_downloads_are_there(html: Path) -> None:
    texts = {page: soup(page) for page in pages(html)}
    ids = {name: [tag["id"] for tag in text.find_all(id=True)] for name, text in texts.items()}
    broken, downloads = [], 0
    for name, text in texts.items():
        assert len(ids[name]) == len(set(ids[name])), f"{name}: ids that are there twice"
        for link in text.find_all("a", href=True):
            address, anchor = urldefrag(unquote(str(link["href"])))
            if address.startswith(("https://", "mailto:")):
                continue
            target = (name.parent / address).resolve() if address else name
            there = target.is_file() and target.stat().st_size > 0
            downloads += there and "files/" in address
            if not there or (anchor and anchor not in ids[target]):
                broken.append(f"{name}: {link['href']}")
    assert broken == []
    assert downloads > 100


def test_claims_link_to_their_cards_and_these_to_the_evidence(html: Path) -> None:
    rows = soup(html / "index.html").select(".claims tbody tr[id]")
    claims, families = load_claims(demo := load_study(ROOT / "data" / "demo")), claims_of(demo).families
    assert [row["id"] for row in rows] == sorted(claims, key=lambda name: families.index(claims[name].family))
    for row in rows:
        (link,) = row.find_all("a")
        assert link["href"] == f"claims/{row['id']}.html"
        (to,) = (a for a in soup(html / str(link["href"])).select("#evidence a[href*='.html#']"))
        address, anchor = urldefrag(str(to["href"]))
        assert soup((html / "claims" / address).resolve()).find(id=anchor) is not None, row["id"]


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_are_seen_whole_and_pages_do_not_scroll_sideways(html: Path, visit: Visit, width: int) -> None:
    figures = 0
    for page, found in ((page, found) for (page, at), found in visit.seen.items() if at == width):
        assert found["wide"] <= width, page
        assert width < 1440 or found["cut"] == [], (page, "tables that are cut")
        for image in found["images"]:
            box, column = image["box"], image["column"]
            assert image["alt"], f"{page}: an image without alternative text"
            assert image["drawn"], image["source"]
            frame = image["frame"]  # in which a figure is moved where the window is small
            assert frame["x"] >= column["x"] - 1, image["source"]
            assert frame["right"] <= column["right"] + 1, image["source"]
            assert box["x"] >= frame["x"] - 1, image["source"]
            assert width < 768 or box["right"] <= frame["right"] + 1, image["source"]
            with Image.open((html / page).parent / image["source"]) as picture:
                inches = image["natural"] / picture.info["dpi"][0]
            assert box["width"] / inches * SMALLEST / 72 >= 9, (page, image["source"], "lettering under 9 px")
            figures += 1
    assert figures >= 20


def test_figures_have_captions_their_data_and_their_code(html: Path) -> None:
    for page in pages(html):
        for figure in soup(page).select("figure.report-figure"):
            links = {str(a.text): str(a["href"]) for a in figure.select("figcaption a")}
            assert {"PNG", "data"} <= set(links), (page.name, figure["id"])
            assert len(figure.get_text(strip=True)) > 40, (page.name, figure["id"])
            if page.stem[:2].isdigit():
                assert links["code"].startswith("#cell-"), (page.name, figure["id"])


def test_the_index_answers_in_one_screen(html: Path, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    tab.goto((html / "index.html").as_uri())
    for what in (".in-short", *(f"#C{i}" for i in range(1, 18))):
        box = tab.locator(what).bounding_box()
        assert box["y"] + box["height"] <= 900, what
    told = tab.locator(".in-short").inner_text()
    assert "(C12)" in told
    assert "(C13)" in told
    banner = tab.locator(".bd-header-announcement").inner_text()
    assert ("SIMULATED DATA" in banner) == ("demo" in html.parts)
    tab.close()


def open_text(page: Path) -> tuple[list[str], int]:
    """The words that stand open in a page, long tables aside; and how many p-values do."""
    article = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select_one("article")
    assert article is not None
    for aside in article.select("details, .files, script, style, .toctree-wrapper, .long, .interactive .chart"):
        aside.decompose()
    tables = 0
    for table in article.select("table"):
        heads = [head.get_text().strip() for head in table.select("thead th")]
        columns = [head for head in heads if re.match(r"[pq]($| \(|,)", head)]
        tables += len(columns) * len(table.select("tbody tr"))
    text = article.get_text(" ")
    return re.findall(r"[^\W_]\S*", text), tables + len(re.findall(r"\b[pq] [=<>]", text))


def test_pages_are_short_and_have_few_p_values(html: Path) -> None:
    for page in pages(html):
        if page.stem == "search":
            continue
        words, p_values = open_text(page)
        most = 600 if page.stem == "index" else 1200 if page.stem[:2].isdigit() else math.inf
        assert len(words) <= most, (page.name, len(words))
        assert p_values <= 40, (page.name, p_values)


def on_scale(claim: pd.Series) -> list[float]:
    """A claim's effect and its interval as its card is to tell them, from what `claims.tsv` has."""
    numbers = [claim[c] for c in ("estimate", "ci_low", "ci_high")]
    if claim["contrast"] == "severity" or claim["scale"] not in ("fold change", "SD of controls"):
        return numbers
    return [math.exp(n) for n in numbers] if claim["scale"] == "fold change" else [n / claim["sd"] for n in numbers]


def test_numbers_of_a_card_are_those_of_its_table(html: Path) -> None:
    claims = pd.read_csv(html / "files" / "claims.tsv", sep="\t").dropna(subset=["estimate", "sd"])
    assert len(claims) > 10
    for _, claim in claims.iterrows():
        card, number = soup(html / "claims" / f"{claim['id']}.html"), r"[−-]?\d[\d,]*\.?\d*(?:e[−-]?\d+)?"
        (told, *_) = (cell.text for cell in card.select("#how-large-how-sure tbody td"))
        shown = [float(n.replace("−", "-").replace(",", "")) for n in re.findall(number, told)]
        expected = on_scale(claim)
        assert shown[:3] == pytest.approx(expected, rel=5e-3), claim["id"]
        sentence = card.select(".answer p")[1].text
        words = {float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", sentence)}
        folds = claim["scale"] == "fold change"  # which are told from one upwards
        for size in (max(abs(n), 1 / abs(n)) if folds else abs(n) for n in expected[1:]):
            assert any(word == pytest.approx(size, rel=0.06) for word in words), (claim["id"], sentence)


#: In a chart: where the first point of a specification is, as shares of its width and height.
MARK = """canvas => {
  const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] === 255 && [[213, 94, 0], [138, 138, 138]].some(c => c.every((v, j) => data[i + j] === v)))
      return [((i / 4) % width) / width, Math.floor(i / 4 / width) / height];
}"""


def test_a_curve_tells_its_choices_and_is_filtered_by_them(html: Path, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 1440, "height": 1000})
    tab.goto((html / "claims" / "C1.html").as_uri())
    tab.wait_for_selector(".interactive .chart canvas")
    canvas = tab.locator(".interactive .chart canvas").first
    canvas.scroll_into_view_if_needed()
    box, (x, y) = canvas.bounding_box(), canvas.evaluate(MARK)
    tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    tip = tab.locator("#vg-tooltip-element.visible")
    assert "verdict" in tip.inner_text()
    choice = tab.locator(".interactive .chart select").first
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    choice.select_option(index=1)
    tab.wait_for_timeout(300)
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    tab.get_by_role("button", name="Show the drawn figure").click()
    assert not canvas.is_visible()
    assert tab.locator(".interactive figure img").first.is_visible()
    tab.close()


def test_a_long_table_is_sorted_and_searched(html: Path, browser: Any) -> None:
    tab = browser.new_page()
    page = next(page for page in pages(html) if soup(page).select(".report-table.long table"))
    tab.goto(page.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    table = tab.locator(".report-table.long").first
    heads = table.locator("thead th")
    heads.first.click()
    cells = table.locator("tbody tr > :first-child")
    up = cells.all_inner_texts()
    heads.first.click(delay=300)
    tab.wait_for_timeout(300)
    assert cells.all_inner_texts() != up
    table.locator("input[type=search]").fill("no such word")
    assert table.locator("tbody tr").count() == 1, "what says that there is none"
    tab.close()


def test_without_a_script_every_picture_is_there(html: Path, browser: Any) -> None:
    plain = browser.new_context(java_script_enabled=False)
    tab = plain.new_page()
    for page in ("index", "patients", "claims/C1", "claims/C12"):
        tab.goto((html / f"{page}.html").as_uri())
        images = tab.locator("article figure img")
        assert images.count() >= 1, page
        assert all(image.is_visible() for image in images.all()), page
    plain.close()


def test_the_site_is_small(html: Path) -> None:
    assert sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) <= 25e6


def test_search_finds_a_word_from_the_file_system(html: Path, browser: Any) -> None:
    tab = browser.new_page()
    tab.goto(f"{(html / 'search.html').as_uri()}?q=aureus")
    tab.wait_for_selector("#search-results li a[href*='03_taxa.html']")
    tab.close()


def test_code_unfolds_by_click_and_by_key(html: Path, browser: Any) -> None:
    tab = browser.new_page()
    tab.goto((html / "02_diversity.html").as_uri())
    code = tab.locator("details .highlight pre").last
    assert not code.is_visible()
    summary = tab.locator("details:has(.highlight pre) > summary").last
    summary.click()
    assert code.is_visible()
    summary.focus()
    tab.keyboard.press("Enter")
    assert not code.is_visible()
    tab.close()


def test_headings_are_in_order_and_tables_have_headers(html: Path) -> None:
    for page in pages(html):
        article = soup(page).find("article") or soup(page)
        levels = [int(heading.name[1]) for heading in article.find_all(["h1", "h2", "h3", "h4"])]
        assert levels.count(1) == 1, page.name
        assert all(b <= a + 1 for a, b in pairwise(levels)), (page.name, levels)
        for table in article.find_all("table"):
            heads = table.select("thead th")
            assert heads, page.name
            assert all(head.get("scope") == "col" or "head" in (head.get("class") or []) for head in heads), page.name
            if region := table.find_parent(class_="report-table"):
                assert (region["tabindex"], region["role"]) == ("0", "region")
                assert region["aria-label"]


#: In a page: of all texts that are seen, one of each look. The ratio of contrast is the same for those that have the
#: same colour, size and weight on the same backgrounds; what covers what does not depend on the theme.
LOOKS = """() => {
  const looks = new Set();
  return [...document.querySelectorAll("body *")].filter(element => {
    const own = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (element.matches("input, select, textarea, button")) return true;
    if (!own || !element.checkVisibility({visibilityProperty: true})) return false;
    const {color, fontSize, fontWeight, textShadow} = getComputedStyle(element);
    const look = [color, fontSize, fontWeight, textShadow];
    for (let part = element; part; part = part.parentElement) {
      const {backgroundColor, backgroundImage, opacity} = getComputedStyle(part);
      if (backgroundColor !== "rgba(0, 0, 0, 0)" || backgroundImage !== "none" || opacity !== "1")
        look.push(backgroundColor, backgroundImage, opacity);
    }
    return looks.size < looks.add(look.join()).size;
  });
}"""


def test_pages_are_accessible_in_light_and_in_the_dark(html: Path, browser: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tab, wrong = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light"), {}
    every = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    contrast = {"type": "rule", "values": ["color-contrast"]}  # the rest is as in light
    for page in pages(html):
        if page.parent.name == "claims" and page.stem not in ("C1", "C10", "C12"):
            continue  # made as these are
        tab.goto(page.as_uri())
        tab.add_style_tag(content="* { transition: none !important }")  # no colours on their way from one to the other
        for scheme, rules in (("light", every), ("dark", contrast)):
            tab.evaluate(f"document.documentElement.dataset.theme = '{scheme}'")
            only = {"runOnly": rules, "resultTypes": ["violations"]}  # to tell in full; where all is well takes as long
            if scheme == "light":
                found = Axe().run(tab, options=only).response
            else:
                found = tab.evaluate(f"only => axe.run({{include: ({LOOKS})()}}, only)", only)
            for violation in found["violations"]:
                where = [node["target"][0] for node in violation["nodes"]]
                wrong[page.name, scheme, violation["id"]] = (violation["help"], len(where), where[:3])
    tab.close()
    assert wrong == {}


def test_who_prefers_the_dark_gets_it(html: Path, browser: Any) -> None:
    tab = browser.new_page(color_scheme="dark")
    tab.add_init_script("localStorage.setItem('mode', 'auto')")
    tab.goto((html / "index.html").as_uri())
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    colour = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(colour[:3]) < 80
    tab.close()


def test_the_whole_report_becomes_one_pdf_that_names_no_folder(html: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, study = html.parents[2], html.parent.name
    monkeypatch.chdir(root)
    pdf = print_report(study).read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 20 < len(re.findall(rb"/Type /Page\b", pdf)) <= 45
    streams = re.findall(rb"/FlateDecode[^>]*>>\s*stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    content = pdf + b"".join(zlib.decompressobj().decompress(stream) for stream in streams)
    assert len(content) > 2 * len(pdf)
    assert b"file:" not in content
    assert str(root).encode() not in content
    assert [p.name for p in html.parent.iterdir() if p.name.startswith(".pdf")] == []


#: In a page: of those elements, the ones that are seen.
SEEN = """selector => [...document.querySelectorAll(selector)].filter(element => {
  const {width, height} = element.getBoundingClientRect();
  return width > 0 && height > 0 && getComputedStyle(element).visibility === "visible";
})"""


def test_on_paper_there_is_the_banner_and_no_navigation_and_no_code(html: Path, browser: Any) -> None:
    tab = browser.new_page()
    tab.emulate_media(media="print")

    def shown(selector: str) -> int:
        return int(tab.evaluate(f"selector => ({SEEN})(selector).length", selector))

    for page in pages(html):
        tab.set_viewport_size({"width": 1300, "height": 1000})  # where the screen would show all navigation
        tab.goto(page.as_uri())
        for hidden in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header-article", "details", ".files"):
            assert shown(hidden) == 0, (page.name, hidden)
        assert shown(".bd-header-announcement") == 1, page.name
        tab.set_viewport_size({"width": 720, "height": 1000})  # a sheet
        assert tab.evaluate("document.documentElement.scrollWidth") <= 720, page.name
        assert shown("h1") >= 1, page.name
        for unbroken in ("figure.report-figure", ".report-table tr"):
            broken = tab.evaluate(
                "selector => [...document.querySelectorAll(selector)].map(e => getComputedStyle(e).breakInside)",
                unbroken,
            )
            assert set(broken) <= {"avoid"}, (page.name, unbroken)
    tab.close()
