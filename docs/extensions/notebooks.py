"""Show a notebook as a page: its text, its code, and what it has printed and drawn."""

import json
import re

from myst_parser.parsers.sphinx_ import MystParser


def markdown(text: str) -> str:
    """Translate the cells of a notebook."""
    return "\n\n".join(_cell(cell) for cell in json.loads(text)["cells"])


def _cell(cell) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source
    outputs = [_output(output) for output in cell["outputs"]]
    return "\n\n".join([f"```python\n{source}\n```", *filter(None, outputs)])


def _output(output) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        picture = re.sub(r"\s", "", "".join(data["image/png"]))
        return f"![The figure that this cell draws](data:image/png;base64,{picture})"
    text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
    return f"```text\n{text}\n```" if text else ""


class NotebookParser(MystParser):
    """Read the Markdown of a notebook."""

    supported = ("ipynb",)

    def parse(self, inputstring, document):
        """Translate a notebook, then parse."""
        super().parse(markdown(inputstring), document)


def setup(app):
    """Know files that end with .ipynb."""
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
