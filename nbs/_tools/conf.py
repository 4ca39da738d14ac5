"How Sphinx lays out the book; site.py prepares the pages and calls it."
project = "lamd_nb"
author = "The lamd_nb authors"
copyright = author  # noqa: A001

extensions = ["myst_nb"]
nb_execution_mode = "off"  # the notebooks carry their outputs
nb_merge_streams = True
nb_code_prompt_show = "Show the {type}"
nb_code_prompt_hide = "Hide the {type}"
myst_enable_extensions = ["dollarmath", "amsmath", "html_image", "colon_fence"]
myst_dmath_double_inline = True
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "myst.xref_missing", "mystnb.mime_priority"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "LaMD, a book that runs"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#c2410c", "color-brand-content": "#c2410c"},
    "dark_css_variables": {"color-brand-primary": "#fb923c", "color-brand-content": "#fb923c"},
}
