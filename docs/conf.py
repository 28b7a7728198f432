"""Sphinx's settings. The build needs no network: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "dagsterpipes"
author = "The dagsterpipes developers"
copyright = author
version = release = version_of("dagsterpipes")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

# Docstrings write `name` for a thing of ours; what is not found stays plain.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "dagsterpipes"
html_copy_source = False
html_show_sphinx = False
