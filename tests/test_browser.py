"""Every page of the book in a real browser: on a phone and on a desk, in dark and in light."""

import gzip
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe

from notebooks import ROOT

PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
DESK = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"}
LOCAL = ("file:", "data:", "blob:", "http://localhost", "http://127.0.0.1")

# What a reader would see of an equation that was not set, and everything that sticks out.
LOOK = r"""
() => {
  const complaints = [];
  const quote = node => JSON.stringify(node.textContent.trim().slice(0, 80));
  for (const node of document.querySelectorAll("mjx-merror, mjx-mtext[style*='red']"))
    complaints.push(`an equation was not understood: ${quote(node.closest("mjx-container"))}`);
  for (const node of document.querySelectorAll(".math"))
    if (!node.querySelector("mjx-container"))
      complaints.push(`an equation was not set: ${quote(node)}`);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (node.parentElement.closest("pre, code, script, style, noscript, mjx-container")) continue;
    if (/\\[([]|\$[^$\n]+\$|\\(?:bar|frac|sqrt|alpha|beta|epsilon|hat|tilde)\b/.test(node.data))
      complaints.push(`raw TeX: ${quote(node)}`);
  }
  for (const node of document.querySelectorAll("div.math")) {
    const scrolls = /auto|scroll/.test(getComputedStyle(node).overflowX);
    if (node.scrollWidth > node.clientWidth + 1 && !scrolls)
      complaints.push(`a derivation is cut off: ${quote(node)}`);
    const start = node.querySelector("mjx-container")?.getBoundingClientRect().left;
    if (start < node.getBoundingClientRect().left - 1)
      complaints.push(`a derivation does not begin at its beginning: ${quote(node)}`);
  }
  for (const node of document.images)
    if (node.complete && node.naturalWidth === 0)
      complaints.push(`a picture is missing: ${node.src}`);
  const wide = document.documentElement.scrollWidth;
  if (wide > window.innerWidth)
    complaints.push(`the page is ${wide} pixels wide on ${window.innerWidth}`);
  return complaints;
}
"""
PLAIN_CODE = """
() => { for (const code of document.querySelectorAll("pre")) code.textContent = code.textContent; }
"""
TYPESET = """
async () => {
  if (window.MathJax) await MathJax.startup.promise;
  await document.fonts.ready;
}
"""


# Pages that have between them all that has a colour. Contrast takes axe-core long to tell, so
# it is told for these, in light and in dark; all else for every page.
COLOURS = ("index", "map", "paths", "notation", "10_eta", "samplers", "teaching", "upkeep", "page")
HEAVIEST = 1_500_000  # bytes that a page and all it loads may take on the way to a reader


@cache
def weight(path: Path) -> int:
    """The bytes of a file as a web server sends them: texts are compressed."""
    content = path.read_bytes()
    is_text = path.suffix in (".html", ".css", ".js", ".svg")
    return len(gzip.compress(content)) if is_text else len(content)


def barriers(context, path, contrast):
    """What axe-core finds that keeps somebody out.

    Formulas are not set here, which would take it a minute a page: MathJax hides what it draws and
    offers the same as MathML. Where colours do not matter, those of code are taken away.
    """
    page = context.new_page()
    page.route("**/tex-chtml.js*", lambda route: route.abort())
    page.goto(path.as_uri())
    page.evaluate("document.fonts.ready")
    if not contrast:
        page.evaluate(PLAIN_CODE)
    rules = {"color-contrast": {"enabled": contrast}}
    options = {"resultTypes": ["violations"], "preload": False, "rules": rules}
    for found in Axe().run(page, options=options).response["violations"]:
        if found["impact"] in ("serious", "critical"):
            example = found["nodes"][0]["html"]
            yield f"{found['impact']} barrier {found['id']}: {found['help']}: {example:.200}"
    page.close()


def listen(page, wrong):
    """Note every request that leaves this machine and every error in the console."""

    def on_request(request):
        if not request.url.startswith(LOCAL):
            wrong.append(f"asks for {request.url}")

    def on_console(message):
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: wrong.append(f"console: {error}"))


def look_at(browser, pages):
    """Open each page on a phone, then widen it; what is wrong with it, page by page."""
    found = {}
    phone, desk = browser.new_context(**PHONE), browser.new_context(**DESK)
    for path in pages:
        page = phone.new_page()
        wrong = found[path.name] = []
        listen(page, wrong)
        loaded = set()
        page.on("request", lambda request, loaded=loaded: loaded.add(request.url.split("?")[0]))
        page.goto(path.as_uri())
        page.evaluate(TYPESET)
        wrong += page.evaluate(LOOK)
        page.set_viewport_size(DESK["viewport"])
        page.emulate_media(color_scheme=DESK["color_scheme"])
        wrong += page.evaluate(LOOK)
        has_colours = path.stem in COLOURS
        for context in (desk, phone) if has_colours else (desk,):
            wrong += barriers(context, path, contrast=has_colours)
        files = [Path(unquote(urlparse(url).path)) for url in loaded if url.startswith("file:")]
        total = sum(weight(file) for file in files if file.is_file())
        if total > HEAVIEST:
            wrong.append(f"the page weighs {total} bytes")
        page.close()
    phone.close()
    desk.close()
    return {name: wrong for name, wrong in found.items() if wrong}


def test_every_page_is_whole(browser, strict_build):
    source, _ = strict_build
    html = source / "_build" / "html"
    pages = sorted([*(html / "book").rglob("*.html"), *(html / "notebooks").glob("*.html")])
    assert len(pages) > 1
    assert look_at(browser, [*pages, html / "search.html", html / "genindex.html"]) == {}


def test_the_claim_cards_are_set_too(browser, strict_build):
    """The cards come out of the notebooks, and their formulas are set like those of the text."""
    source, _ = strict_build
    page = browser.new_page()
    page.goto((source / "_build" / "html" / "notebooks" / "03_posterior.html").as_uri())
    page.evaluate(TYPESET)
    assert page.locator(".claim-card").count() > 0
    assert page.locator(".claim-card mjx-container").count() > 0
    page.close()


WIDE = "a+b+c+d+e+f+g+h+i+j+k+l+m+n+o+p+q+r+s+t+u+v+w+x+y+z" * 3
REVERSED = "overflow-x: auto; display: flex; flex-direction: row-reverse"


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (r'<p class="math">\(\frac{1}\)</p>', "not understood"),
        (r'<p class="math">\(\nosuchmacro\)</p>', "not understood"),
        (r'<p class="math mathjax_ignore">\(x\)</p>', "not set"),
        ("<p>And so $x_t$ falls.</p>", "raw TeX"),
        ('<img src="http://nowhere.invalid/picture.png">', "asks for http://nowhere.invalid"),
        ("<script>console.error('careful')</script>", "console: careful"),
        ("<script>no_such_function()</script>", "no_such_function"),
        ('<div style="width: 2000px">wide</div>', "pixels wide"),
        (rf'<div class="math" style="overflow: hidden">\[{WIDE}\]</div>', "cut off"),
        (rf'<div class="math" style="{REVERSED}">\[{WIDE}\]</div>', "does not begin"),
        ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "image-alt"),
        ('<p style="color: #aaa; background: #fff">pale</p>', "color-contrast"),
        ('<img alt="" src="heavy.png">', "the page weighs"),
    ],
)
def test_the_look_at_a_page_sees_mistakes(browser, tmp_path, mistake, words):
    mathjax = ROOT / "book" / "_static" / "mathjax" / "tex-chtml.js"
    (tmp_path / "heavy.png").write_bytes(bytes(2_000_000))
    page = tmp_path / "page.html"
    page.write_text(
        f'<!doctype html><meta name="viewport" content="width=device-width">'
        f'<script src="{mathjax.as_uri()}"></script>{mistake}',
        encoding="utf-8",
    )
    found = look_at(browser, [page])
    assert any(words in complaint for complaint in found.get("page.html", [])), found
