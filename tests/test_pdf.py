"""The book as one document: every link inside it leads somewhere, and pages find their numbers."""

import build_pdf
import pytest
from bs4 import BeautifulSoup


@pytest.fixture(scope="module")
def book(strict_build):
    source, _ = strict_build
    patch = pytest.MonkeyPatch()
    patch.setattr(build_pdf, "HTML", source / "_build" / "html")
    yield BeautifulSoup(build_pdf.joined(), "html.parser")
    patch.undo()


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


def test_places_know_their_pages(browser, tmp_path):
    page = browser.new_page()
    page.set_content(
        '<a href="#one">1</a><a href="#two">2</a><section id="one">first</section>'
        '<section id="two" style="break-before: page">second</section>'
    )
    page.pdf(path=str(tmp_path / "two.pdf"), tagged=True, outline=True)
    page.close()
    assert build_pdf.page_numbers(tmp_path / "two.pdf") == {"one": 1, "two": 2}
