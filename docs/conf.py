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

# What the pages of modules refer to in Ansible's own documentation.
_DOCS = "https://docs.ansible.com/ansible/latest"
_BUILTIN = re.compile(r"ansible_collections\.ansible\.builtin\.(\w+)$")
_ELSEWHERE = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
    "list_of_collections": "collections/index.html",
}


def _ansible(
    _app: Sphinx, _env: BuildEnvironment, xref: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Link to what is documented by Ansible itself, without an inventory that would have to be fetched."""
    target = xref["reftarget"]
    if found := _BUILTIN.match(target):
        page = f"collections/ansible/builtin/{found[1]}.html"
    elif target in _ELSEWHERE:
        page = _ELSEWHERE[target]
    else:
        return None
    return nodes.reference("", "", text, refuri=f"{_DOCS}/{page}")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", _ansible)
