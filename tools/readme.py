"""Make README.md from index.ipynb, as it stands: nothing is executed.

Usage: python tools/readme.py [--check]   (--check writes nothing and fails where the two differ)
"""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
IMAGES = "nbs/images/readme"
HIDDEN = ("#| hide", "#| default_exp", "#|hide")


def absolute(body: str) -> str:
    """Links and images with full addresses, so that the page works on the package index, too."""
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    url, branch = (parser["DEFAULT"][name] for name in ("git_url", "branch"))
    raw = url.replace("github.com", "raw.githubusercontent.com")
    body = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:)", rf"\1{raw}/{branch}/", body)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?![a-z]+:|#)", rf"\1{url}/blob/{branch}/", body)


def render() -> dict[Path, bytes]:
    """The files that index.ipynb should have become."""
    nb = nbformat.read(ROOT / "index.ipynb", as_version=4)
    nb.cells = [cell for cell in nb.cells if not cell.source.startswith(HIDDEN)]
    for cell in nb.cells:
        cell.source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("#|"))
    nb.metadata["language_info"] = {"name": "python"}  # so that code fences say which language
    body, resources = MarkdownExporter().from_notebook_node(nb, {"output_files_dir": IMAGES})
    for output in (o for cell in nb.cells for o in cell.get("outputs", [])):
        if "image/png" in output.get("data", {}):  # what is in a picture, for those who do not see it
            alt = output["metadata"].get("image/png", {}).get("alt", "figure")
            body = body.replace("![png](", f"![{alt}](", 1)
    note = "<!-- Made from index.ipynb by tools/readme.py: edit there, not here. -->\n\n"
    files = {ROOT / name: data for name, data in resources["outputs"].items()}
    return {ROOT / "README.md": (note + absolute(body.strip()) + "\n").encode(), **files}


def main() -> int:
    """Write the files, or compare them."""
    files = render()
    stray = set((ROOT / IMAGES).glob("*")) - set(files)
    if "--check" in sys.argv:
        stale = [p for p, data in files.items() if not p.exists() or p.read_bytes() != data]
        for path in [*stale, *stray]:
            print(f"{path.relative_to(ROOT)} does not follow from index.ipynb: run python tools/readme.py")
        return bool(stale or stray)
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for path in stray:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
