"""Run notebooks in a kernel and store their outputs, cleaned and folded.

Usage: python tools/execute.py [nbs/1_tokens/03_patchify.ipynb ...]   (all lessons and guides if none is named)

Two runs on one machine give the same bytes, except where a cell prints a time.
"""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from fold import tidy

ROOT = Path(__file__).resolve().parent.parent


def shrink(png: str, limit: int = 8_000) -> str:
    """Reduce a large picture to 256 colors: a third of the bytes, with no visible difference."""
    from PIL import Image

    data = base64.b64decode(png)
    if len(data) < limit:
        return png
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").quantize(256).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def run(nb, folder: Path) -> None:
    """Execute all cells, with the notebook's folder as working directory."""
    from nbclient import NotebookClient

    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(
        nb, timeout=600, kernel_name="python3", coalesce_streams=True, resources=resources
    ).execute()


def is_progress_bar(output) -> bool:
    """Whether an output is a progress bar of tqdm: a widget, of which only its first text could be stored."""
    return "%|" in "".join(output.get("data", {}).get("text/plain", ""))


def keep_outputs(nb) -> None:
    """Drop what differs from run to run: widget state, progress bars, warnings."""
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and not is_progress_bar(o)]
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)
            if "image/png" in data:
                data["image/png"] = shrink(data["image/png"])


def execute(path: Path) -> None:
    """Run one notebook and write it back, cleaned."""
    import nbformat

    nb = nbformat.read(path, as_version=4)
    run(nb, path.parent)
    keep_outputs(nb)
    nbformat.write(nb, path)
    tidy(path)
    subprocess.run(["nbdev_clean", "--fname", str(path)], check=True)


def main() -> None:
    """Execute the notebooks that are named, or all."""
    os.environ.setdefault("PYTHONHASHSEED", "0")
    named = [Path(a).resolve() for a in sys.argv[1:]]
    for path in named or [*sorted((ROOT / "nbs").glob("*/*.ipynb")), ROOT / "index.ipynb"]:
        execute(path)
        cells = json.loads(path.read_text())["cells"]
        images = sum("image/png" in o.get("data", {}) for cell in cells for o in cell.get("outputs", []))
        print(f"{path.relative_to(ROOT)}: {images} figures, {path.stat().st_size // 1024} kB", flush=True)


if __name__ == "__main__":
    main()
