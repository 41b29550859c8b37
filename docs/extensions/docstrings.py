"""Read the docstrings of toymodels, which are Google's style with `$...$` and lists of Markdown."""

import re

CODE, DISPLAY, INLINE = r"`[^`]+`\w?", r"\$\$.+?\$\$", r"\$[^$`]+\$"
PIECES = re.compile(f"{CODE}|{DISPLAY}|{INLINE}|[|]", re.DOTALL)
TABLE = re.compile(r"^ *\|.*\|\n *\|[-| ]+\|\n(?: *\|.*\|\n?)+", re.MULTILINE)
NAMES = re.compile(r"(?:^ *\w+ {2,}\S.*\n?)+(?=\n|\Z)", re.MULTILINE)


def process(app, what, name, obj, options, lines) -> None:
    """Rewrite the lines of one docstring as reStructuredText, in place."""
    text = NAMES.sub(_names, TABLE.sub(_table, "\n".join(lines)))
    lines[:] = PIECES.sub(_piece, text).split("\n")


def _piece(match):
    """Rewrite code, an equation or a vertical bar."""
    text = match[0]
    if text.startswith("$$"):
        return f"\n\n.. math:: {' '.join(text[2:-2].split())}\n\n"
    if text.startswith("$"):
        return f":math:`{' '.join(text[1:-1].split())}`"
    if text.startswith("`") and not text.endswith("`"):
        return f"{text[:-1]}\\ {text[-1]}"  # `Site`s
    return text if text.startswith("`") else f"\\{text}"


def _table(match):
    """Rewrite a table of Markdown."""
    head, _, *rows = match[0].splitlines()
    indent = " " * head.index("|")
    lines = [f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    for row in [head, *rows]:
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        lines += [f"{indent}   * - {cells[0]}", *(f"{indent}     - {cell}" for cell in cells[1:])]
    return "\n".join([*lines, ""])


def _names(match):
    """Keep lines as they are where each is a name, some spaces, and what is there."""
    return "::\n\n" + re.sub("^", "    ", match[0], flags=re.MULTILINE)


def skip(app, what, name, obj, skip, options):
    """Leave out what Python and Flax add to every class."""
    named_tuple = str(obj.__doc__).startswith("Alias for field number")
    flax = str(getattr(obj, "__module__", "")).startswith("flax.")
    return True if named_tuple or flax else None


def setup(app):
    """Come before napoleon, which rewrites the sections."""
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
