"""The buttons that lead to the repository and to Colab, once pyproject.toml has its address."""

from __future__ import annotations

import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config


def add_buttons(app: Sphinx, config: Config) -> None:
    project = tomllib.loads((Path(app.srcdir) / "pyproject.toml").read_text("utf-8"))["project"]
    url = project.get("urls", {}).get("Repository", "")
    options = config.html_theme_options
    options["repository_url"] = url
    options["repository_branch"] = "main"
    options["use_repository_button"] = options["use_issues_button"] = bool(url)
    if url:
        options["launch_buttons"]["colab_url"] = "https://colab.research.google.com"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", add_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
