"""Write the notebooks as Google Colab can run them: with a first cell that fetches the project and installs the package.

The chapters themselves do not know where the project lies. The workflow of the book does: it runs this and pushes what it
wrote as the branch that the Colab buttons open.
"""

import argparse
from pathlib import Path

import nbformat

TEXT = """\
*This cell prepares Google Colab: it fetches the project and installs the package. It takes a minute or two, once.*"""

CODE = """\
import os
if not os.path.isdir("/content/project"):
    !git clone --quiet --depth 1 --branch {branch} {url} /content/project
    # what Colab brings stays: PyTorch, NumPy, matplotlib, librosa
    %pip install --quiet --upgrade-strategy only-if-needed "/content/project[evaluate,fast,onnx]" anywidget
%cd -q /content/project/book"""


def with_setup(notebook: nbformat.NotebookNode, url: str, branch: str) -> nbformat.NotebookNode:
    """The notebook with the cells of the setup behind its first one, the title."""
    code = nbformat.v4.new_code_cell(CODE.format(url=url, branch=branch), id="colab-setup")
    text = nbformat.v4.new_markdown_cell(TEXT, id="colab-note")
    notebook.cells[1:1] = [text, code]
    nbformat.validate(notebook)
    return notebook


def main() -> None:
    """Write all chapters of a folder, or one notebook."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, help="folder of the chapters, or one notebook")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--url", required=True, help="address that git clones from")
    parser.add_argument("--branch", default="main", help="what it checks out (default: %(default)s)")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(given.notebooks.glob("*.ipynb")) or [given.notebooks]:
        notebook = with_setup(nbformat.read(path, as_version=4), given.url, given.branch)
        nbformat.write(notebook, given.out / path.name)


if __name__ == "__main__":
    main()
