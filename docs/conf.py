"""Sphinx's settings. The build needs no network: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

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
autodoc_class_signature = "separated"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "dagsterpipes"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


def resolve_by_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element
) -> Element | None:
    """Find `PipesContext.close` or `InvalidReportError` from whichever module names it."""
    domain: Any = env.get_domain("py")
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].rpartition("dagsterpipes.")[2]
    found = {name for name in domain.objects if name == target or name.endswith("." + target)}
    if len(found) != 1:
        return None
    [name] = found
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)


def setup(app: Sphinx) -> None:
    """Register what is above with Sphinx."""
    app.connect("missing-reference", resolve_by_last_name)
