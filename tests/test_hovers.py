"""Words and symbols explain themselves, from the glossary and the notation page alone."""

import re

import hovers
import pytest
from test_browser import TYPESET

PAGE = (hovers.BOOK / "glossary.md").read_text("utf-8")


def test_every_entry_of_the_glossary_is_read_and_they_are_in_order():
    words = re.findall(r"^(\w.*)\n  ", PAGE.split("```")[1], re.M)
    assert list(hovers.glossary()) == words
    assert words == sorted(words, key=str.lower)


@pytest.mark.parametrize(
    ("symbol", "meaning"),
    [
        (r"\bar\alpha", "what \\(t\\) steps keep of the variance"),
        (r"\tilde\beta", "variance of the posterior"),
        ("x_0", "data"),
        ("x_T", "the noisy end"),
        (r"\epsilon_\theta", "the network's estimate of"),
    ],
)
def test_a_symbol_means_what_the_notation_page_says(symbol, meaning):
    assert f": {meaning}" in dict(hovers.symbols())[symbol]


def test_letters_that_mean_several_things_explain_nothing():
    assert not {"a", "b", "v", "z"} & dict(hovers.symbols()).keys()


def test_the_first_use_of_a_word_is_a_link_and_no_other(strict_build):
    source, _ = strict_build
    html = (source / "_build/html/notebooks/03_posterior.html").read_text("utf-8")
    links = re.findall(r'<a class="[^"]*" href="([^"]+)"[^>]*><span class="word">(.+?)<', html)
    words = [word.lower() for _, word in links]
    assert "posterior" in words
    assert len(words) == len(set(words))
    assert all(href.startswith("../book/glossary.html#term-") for href, _ in links)


def test_pointing_and_tabbing_show_meanings_and_escape_hides_them(browser, strict_build):
    source, _ = strict_build
    page = browser.new_page()
    page.goto((source / "_build/html/notebooks/03_posterior.html").as_uri())
    page.evaluate(TYPESET)
    box = page.locator("#meaning")
    assert box.is_hidden()
    page.locator("a:has(> .word)", has_text="posterior").first.focus()
    box.wait_for(state="visible")
    assert "It is a Gaussian, with mean" in box.inner_text()
    page.keyboard.press("Escape")
    assert box.is_hidden()
    page.evaluate("document.activeElement.blur()")
    page.locator("article mjx-container", has=page.locator("mjx-mover")).first.hover()  # x_0 hat
    box.wait_for(state="visible")
    assert "the estimate of the data" in box.inner_text()
    page.close()
