"""The book builds with no warning, and breaks when a reference breaks."""

import re
import shutil
from types import SimpleNamespace

import api_pages
import pytest

from conftest import build_book
from diffusion_lib import figures
from notebooks import LIBRARY, ROOT, notebook_paths

STYLE = (ROOT / "book" / "_static" / "book.css").read_text(encoding="utf-8")


def test_strict_build_passes(strict_build):
    _, result = strict_build
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-6000:]


def test_broken_references_break_the_build(strict_build, tmp_path):
    """One of each kind, each with a name of its own, and every one of them is reported."""
    source, _ = strict_build
    altered = shutil.copytree(source, tmp_path / "book")
    mistakes = "{doc}`no_page` [there](../notebooks/no_file.ipynb) {eq}`no_label` {cite}`no_paper`"
    lines = ["Proved in chapters 03 (claim Z9) and 98."]  # as of a docstring
    api_pages.link_chapters_and_claims(SimpleNamespace(srcdir=ROOT), "", "", None, None, lines)
    with (altered / "book" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n\nSee {mistakes}.\n\n```{{eval-rst}}\n{lines[0]}\n```\n")
    result = build_book(altered)
    assert result.returncode != 0
    for name in ("no_page", "no_file", "no_label", "no_paper", "Z9", "no chapter 98"):
        assert name in result.stdout + result.stderr
    assert "03_posterior" not in result.stderr


def test_every_claim_can_be_linked_to(strict_build):
    source, _ = strict_build
    page = (source / "_build" / "html" / "book" / "ledger.html").read_text(encoding="utf-8")
    ids = re.findall(r'^id = "(\w+)"', (LIBRARY / "claims.toml").read_text("utf-8"), re.M)
    missing = [name for name in ids if f'id="{name}"' not in page]
    assert ids
    assert missing == []


def test_figures_keep_their_alternative_text(strict_build):
    source, _ = strict_build
    for path in notebook_paths(source):
        page = source / "_build" / "html" / "notebooks" / f"{path.stem}.html"
        images = re.findall(r"<img [^>]*>", page.read_text(encoding="utf-8"))
        assert [image for image in images if 'alt=""' in image or "alt=" not in image] == []
        assert not any('alt="../' in image for image in images), "a file name says nothing"


REMOTE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//"""
    r"""|<link\b(?![^>]*\brel="canonical")[^>]*\bhref="(?:https?:)?//"""
    r"""|@import|url\(["']?(?:https?:)?//"""
)


def test_no_page_loads_anything_from_elsewhere(strict_build):
    """The browser test sees what is requested; this one runs where there is no browser."""
    source, _ = strict_build
    for page in (source / "_build" / "html").rglob("*.html"):
        assert not REMOTE.search(page.read_text(encoding="utf-8")), page.name


def test_page_and_figures_share_their_colours():
    for name in ("DATA", "NOISY", "NOISE", "SCHEDULE", "NETWORK", "STEP", "INK"):
        assert f"--hue-{name.lower()}: {getattr(figures, name)};" in STYLE


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["DATA", "NOISY", "NOISE", "SCHEDULE", "NETWORK", "STEP", "INK"])
def test_figures_can_be_read_on_light_and_dark_pages(name):
    grounds = re.findall(r"--pst-color-background: (#\w+);", STYLE)
    assert len(grounds) == 2
    for ground in grounds:
        dark, light = sorted([luminance(getattr(figures, name)), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) > 3.5
