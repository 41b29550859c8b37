"""Write equations as MathML, which every browser draws by itself: no script, font or network.

docutils translates LaTeX, and an equation that it does not know is a warning.
"""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml


def mathml(tex: str, *, block: bool) -> str:
    """Translate LaTeX. What docutils has under another name is replaced before."""
    tex = re.sub(r"\\([bB]ig)(?![a-zA-Z])", r"\\\1l", tex).replace(r"\dots", r"\ldots")
    return latex2mathml.tex2mathml(tex, as_block=block)


def visit(self, node) -> None:
    """Write an equation of a line, or one between lines, into a page."""
    block = isinstance(node, nodes.math_block)
    try:
        text = mathml(node.astext(), block=block)
    except MathError as error:
        from sphinx.util import logging  # the tests translate equations without Sphinx

        logging.getLogger(__name__).warning("equation %r: %s", node.astext(), error, location=node)
    else:
        self.body.append(f"<div>{text}</div>" if block else text)
    raise nodes.SkipNode


def setup(app):
    """Make this the way of all equations."""
    app.add_html_math_renderer("mathml", (visit, None), (visit, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
