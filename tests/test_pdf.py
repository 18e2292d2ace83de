"""The book as one document: every link inside it leads somewhere, and pages find their numbers."""

import re

import build_pdf
import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader


@pytest.fixture(scope="module")
def html(strict_build):
    source, _ = strict_build
    patch = pytest.MonkeyPatch()
    patch.setattr(build_pdf, "HTML", source / "_build" / "html")
    yield build_pdf.HTML
    patch.undo()


@pytest.fixture(scope="module")
def book(html):
    return BeautifulSoup(build_pdf.joined(), "html.parser")


def test_every_page_is_there_once_and_in_the_contents(book):
    pages = [build_pdf.name_of(page) for _, files in build_pdf.pages() for page in files]
    assert [section["id"] for section in book.select("section.page[id]")] == pages
    assert [line["data-for"] for line in book.select(".contents [data-for]")] == pages


def test_every_link_inside_leads_to_a_place(book):
    names = {element["id"] for element in book.find_all(id=True)}
    inside = [a["href"] for a in book.find_all("a", href=True) if a["href"].startswith("#")]
    assert len(inside) > 500
    assert {href for href in inside if href[1:] not in names} == set()
    assert not [a for a in book.find_all("a", href=True) if a["href"].startswith(("file:", ".."))]


def test_solutions_are_open_and_the_code_of_figures_is_left_out(book):
    assert all(details.has_attr("open") for details in book.find_all("details"))
    assert book.select(".tag_hide-cell pre")
    assert not book.select(".tag_hide-input .cell_input pre")


def test_pictures_are_files(book):
    assert book.select("img")
    for image in book.select("img"):
        assert image["src"].startswith(("file:", "data:"))


def test_the_contents_say_on_which_page_a_part_begins(browser, html, monkeypatch, tmp_path):
    """Three short pages in print: the numbers are right, links jump, formulas are set."""
    titles = {"book/paths": "Ways", "book/glossary": "Glossary", "book/notation": "Notation"}
    parts = [("", ["book/paths"]), ("Reference", ["book/glossary", "book/notation"])]
    monkeypatch.setattr(build_pdf, "pages", lambda: iter(parts))
    build_pdf.print_book(browser, tmp_path / "book.pdf")
    reader = PdfReader(tmp_path / "book.pdf")
    texts = [page.extract_text() for page in reader.pages]
    starts = build_pdf.page_numbers(tmp_path / "book.pdf")
    for page, title in titles.items():
        number = starts[build_pdf.name_of(page)]
        assert re.search(rf"{title}.*\s{number}\b", texts[1])
        assert texts[number - 1].lstrip().startswith(title)
        assert texts[number - 1].rstrip().endswith(str(number))  # the footer
    assert not any("\\bar" in text for text in texts)
    outline = [entry["/Title"] for entry in reader.outline if not isinstance(entry, list)]
    assert outline[1:] == ["Contents", "Ways through the book", "Glossary", "Notation"]
    assert not list(html.glob("whole-book.html"))
