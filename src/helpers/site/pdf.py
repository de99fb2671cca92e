"""The report on paper: one PDF of all pages, by the Chromium or Chrome that is there."""

import json
import os
import posixpath
import shutil
import subprocess
from pathlib import Path

from bs4 import BeautifulSoup, Tag

from helpers.errors import StudyError
from helpers.files import unfinished, write_whole
from helpers.site.archive import to_send

#: Names of programs that print, and where macOS keeps them.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
MACOS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
#: Nothing of what a browser does besides.
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync", "extensions")


#: Pages that are for checking, to be searched and followed: not printed.
ON_SCREEN = {f"{page}.html" for page in ("validation", "changes", "reporting_standards", "provenance")}


def find_chromium() -> str | None:
    """Where Chromium or a browser made of it is, if there is one."""
    on_path = (shutil.which(name) for name in BROWSERS)
    return next(filter(None, (*on_path, *(place for place in MACOS if Path(place).is_file()))), None)


def print_report(name: str) -> Path:
    """Print a report to ``reports/<study>/<study>-report.pdf``."""
    report = to_send(name)
    target = report.packed(".pdf")
    if (browser := find_chromium()) is None:
        fix = "install Chromium or Chrome; or open the report in any browser and print page by page"
        raise StudyError("no browser that prints is on PATH", expected=" or ".join(BROWSERS[:3]), fix=fix)
    with unfinished(target) as work:
        page, printed = ((work / f"report.{kind}").resolve() for kind in ("html", "pdf"))
        write_whole(page, joined(report.html))
        options = [f"--disable-{what}" for what in QUIET] + ["--no-sandbox"] * (os.name == "posix" and os.getuid() == 0)
        options += ["--headless", "--no-first-run", f"--user-data-dir={(work / 'profile').resolve()}"]
        options += ["--no-pdf-header-footer", "--generate-pdf-document-outline", f"--print-to-pdf={printed}"]
        done = subprocess.run([browser, *options, page.as_uri()], capture_output=True, text=True)
        if not printed.is_file():
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise StudyError("[pdf] the browser failed", found=said[-1] if said else f"exit code {done.returncode}")
        printed.replace(target)
    return target


def joined(site: Path) -> str:
    """All pages of a site as one, in their order, as HTML, without what leads out of it but to the web.

    The result belongs into a folder beside that of the pages.
    """
    whole = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    linked = [str(link["href"]).partition("#")[0] for link in whole.select("nav.bd-links a[href]")]
    pages = [page for page in dict.fromkeys(["index.html", *linked]) if page and page not in ON_SCREEN]
    articles = [_article(site, page, pages) for page in pages]
    place = whole.select_one("article")
    assert place is not None
    place.replace_with(*articles)
    for part in whole.find_all("script"):
        part.decompose()
    for part in whole.select("link[href], img[src]"):
        attribute = "href" if part.name == "link" else "src"
        part[attribute] = f"../{site.name}/{part[attribute]}"
    banner = whole.select_one(".bd-header-announcement")
    told = json.dumps(" ".join(banner.get_text().split()) if banner else "", ensure_ascii=False)
    style = whole.new_tag("style")  # on every sheet, since sheets get parted
    style.string = f"@page {{ @top-center {{ content: {told.replace('<', chr(92) + '3c ')}; font-size: 8pt; }} }}"
    assert whole.head is not None
    whole.head.append(style)
    return str(whole)


def _from(page: str, address: str) -> str:
    """An address as the site's first page would have it."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), address))


def _part(page: str) -> tuple[bool, bool]:
    """Whether a page is a card, a chapter, or neither: on paper these three begin a sheet."""
    return "/" in page, page[:2].isdigit()


def _article(site: Path, page: str, pages: list[str]) -> Tag:
    """A page's content, its ids and links made to fit among those of all the pages."""
    found = BeautifulSoup((site / page).read_text(encoding="utf-8"), "html.parser").select_one("article")
    assert found is not None
    found["id"] = page
    for part in found.find_all(id=True):
        part["id"] = f"{page}-{part['id']}"
    for picture in found.find_all("img", src=True):
        picture["src"] = _from(page, str(picture["src"]))
    for link in found.find_all("a", href=True):
        address, _, anchor = str(link["href"]).partition("#")
        if "://" not in address:
            address = _from(page, address) if address else page
        if address in pages:
            link["href"] = f"#{address}" + (f"-{anchor}" if anchor else "")
        elif "://" not in address:
            link.unwrap()  # a download: on paper it would name a folder of this machine
    before = pages[max(pages.index(page) - 1, 0)]
    found["style"] = "break-before: page" if _part(page) != _part(before) else ""
    return found
