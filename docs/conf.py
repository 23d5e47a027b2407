# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sphinx's configuration of the documentation site. Nothing is fetched while it is built."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = title = html_short_title = "cloudrepo.slices"
copyright = "2026, cloudrepo contributors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
default_role = "any"
nitpicky = True
# Headings of the Markdown pages can be linked to.
myst_heading_anchors = 2
html_theme = "sphinx_ansible_theme"
html_theme_options = {"documentation_home_url": "index.html", "topbar_links": {}}
html_copy_source = False
html_show_sphinx = False
html_use_index = False
html_use_modindex = False

_ELSEWHERE = re.compile(r"ansible_collections\.(ansible)\.(builtin)\.(\w+)$")
_URL = "https://docs.ansible.com/ansible/latest/collections/{}/{}/{}.html"


def _ansible(
    _app: Sphinx, _env: BuildEnvironment, xref: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Link to what is documented by Ansible itself, without an inventory that would have to be fetched."""
    found = _ELSEWHERE.match(xref["reftarget"])
    return nodes.reference("", "", text, refuri=_URL.format(*found.groups())) if found else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", _ansible)
