"""Print the built book as one PDF: contents with page numbers, working links, an outline.

    python tools/build_pdf.py        needs `make book` before it, and a Chromium

All pages are joined into one document in the order of the table of contents, so that a link from
one page to another is a link inside the file. It is printed twice: the first time tells the page
numbers that the contents then show. Interactive figures are their still pictures, solutions are
open, and the code of figures is left out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlparse

import yaml
from bs4 import BeautifulSoup, Tag
from chromium import FLAGS, MISSING, chromium
from playwright.sync_api import Browser, sync_playwright
from pypdf import PdfReader
from tqdm import tqdm

from notebooks import ROOT

HTML = ROOT / "_build" / "html"
PDF = HTML / "diffusion-models-proved.pdf"
MINUTES = 15
LEFT_OUT = (
    ".headerlink, script, .colab-badge, button, .tag_hide-input details, .claims-filter, .pdf-offer"
)
STYLE = """
@page { size: A4; margin: 20mm 18mm 22mm; }
html { font-size: 10.5pt; }
body { background: white; }
main { max-width: none; }
.bd-article { padding: 0; font-size: 1rem; }
section.page { break-before: page; }
.front { padding-top: 30vh; text-align: center; }
.front p { font: 1.1rem var(--pst-font-family-heading); }
.contents ol { list-style: none; padding: 0; }
.contents li { display: flex; gap: 0.5rem; align-items: baseline; }
.contents li::after { content: attr(data-page); }
.contents a { flex: 1; color: inherit; text-decoration: none; }
.contents h2 { margin: 1.2rem 0 0.3rem; font-size: 1.05rem; }
h1, h2, h3 { break-after: avoid; }
img, svg, tr, .claim-card > p, mjx-container[display="true"], pre { break-inside: avoid; }
pre { white-space: pre-wrap; font-size: 0.8rem; }
div.math { overflow: visible !important; }
table { font-size: 0.88rem; }
details > summary { display: none; }
"""
FOOTER = (
    '<div style="width:100%;font:8px sans-serif;color:#666;text-align:center">'
    '<span class="pageNumber"></span></div>'
)


def pages() -> Iterator[tuple[str, list[str]]]:
    """The parts of the book, each a caption and its pages, as paths without a suffix."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    yield "", [contents["root"]]
    for part in contents["parts"]:
        files = []
        for chapter in part["chapters"]:
            files += [
                chapter["file"],
                *(section["file"] for section in chapter.get("sections", [])),
            ]
        yield part["caption"], files


def name_of(page: str, anchor: str = "") -> str:
    """What a page, or a place in it, is called in the joined document."""
    return page.replace("/", "-") + (f"--{anchor}" if anchor else "")


def article(page: str, known: set[str]) -> Tag:
    """The text of a page, its names and links made those of the joined document."""
    path = HTML / f"{page}.html"
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    text = soup.select_one("article.bd-article")
    assert text is not None, f"{path} has no article"
    for element in text.select(LEFT_OUT):
        element.decompose()
    for element in text.find_all(id=True):
        element["id"] = name_of(page, element["id"])
    for details in text.find_all("details"):
        details["open"] = ""
    for link in text.find_all("a", href=True):
        point_inside(link, path, known)
    for image in text.find_all("img"):
        image["src"] = urljoin(path.as_uri(), image["src"])
    section = soup.new_tag("section", attrs={"class": "page", "id": name_of(page)})
    section.append(text)
    return section


def point_inside(link: Tag, path: Path, known: set[str]) -> None:
    """Turn a link to a page of the book into one to its place here; drop what leads nowhere."""
    target = urlparse(urljoin(path.as_uri(), str(link["href"])))
    if target.scheme != "file":
        return
    page = os.path.relpath(target.path, HTML).removesuffix(".html")
    if page in known:
        link["href"] = f"#{name_of(page, target.fragment)}"
    else:
        del link["href"]


def joined() -> str:
    """The whole book as one page."""
    parts = list(pages())
    known = {page for _, files in parts for page in files}
    first = BeautifulSoup((HTML / "book/index.html").read_text(encoding="utf-8"), "html.parser")
    base = HTML / "book" / "index.html"
    styles = "".join(
        f'<link rel="stylesheet" href="{urljoin(base.as_uri(), str(link["href"]))}">'
        for link in first.select('link[rel="stylesheet"]')
    )
    math = "".join(
        str(script).replace("../_static", (HTML / "_static").as_uri())
        for script in first.find_all("script")
        if "mathjax" in str(script).lower()
    )
    sections, lines = [], []
    for caption, files in tqdm(parts, desc="joining", unit="part"):
        if caption:
            lines.append(f"<h2>{caption}</h2>")
        for page in files:
            section = article(page, known)
            heading = section.find("h1")
            title = heading.decode_contents() if isinstance(heading, Tag) else page
            entry = f'<a href="#{name_of(page)}">{title}</a>'
            lines.append(f'<ol><li data-page="" data-for="{name_of(page)}">{entry}</li></ol>')
            sections.append(str(section))
    front = (
        '<section class="front"><h1>Diffusion models, proved</h1>'
        "<p>A book whose formulas are checked by machine, and the library that runs them</p>"
        "</section>"
    )
    contents = f'<section class="page contents"><h1>Contents</h1>{"".join(lines)}</section>'
    return (
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>Diffusion models, proved</title>{styles}<style>{STYLE}</style>{math}</head>"
        f'<body><main class="bd-main"><div class="bd-article">{front}{contents}'
        f"{''.join(sections)}</div></main></body></html>"
    )


def page_numbers(path: Path) -> dict[str, int]:
    """Where each named place of a PDF is, counted from 1."""
    reader = PdfReader(path)
    found = {}
    for name, place in reader.named_destinations.items():
        number = reader.get_destination_page_number(place)
        if number is not None:
            found[name.lstrip("/")] = number + 1
    return found


def print_book(browser: Browser, path: Path) -> None:
    """Print twice: what the contents show is known after the first time."""
    source = HTML / "whole-book.html"
    source.write_text(joined(), encoding="utf-8")
    options = {"display_header_footer": True, "header_template": "<span></span>"}
    options |= {"footer_template": FOOTER, "prefer_css_page_size": True, "outline": True}
    page = browser.new_page()
    try:
        page.set_default_timeout(MINUTES * 60_000)
        page.goto(source.as_uri())
        page.evaluate("MathJax.startup.promise.then(() => document.fonts.ready)")
        for _ in tqdm(range(2), desc="printing", unit="pass"):
            page.pdf(path=str(path), tagged=True, print_background=True, **options)  # type: ignore[arg-type]
            page.evaluate(
                """numbers => document.querySelectorAll("[data-for]").forEach(
                    line => { line.dataset.page = numbers[line.dataset.for] ?? ""; })""",
                page_numbers(path),
            )
    finally:
        page.close()
        source.unlink()


def main() -> int:
    if not (HTML / "book" / "index.html").is_file():
        raise SystemExit("The book is not built; run `make book` first.")
    program = chromium()
    if program is None:
        raise SystemExit(f"The book cannot be printed: {MISSING}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        print_book(browser, PDF)
        browser.close()
    print(f"{PDF}: {len(PdfReader(PDF).pages)} pages, {PDF.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
