"""Run notebooks in a kernel and store their outputs, cleaned, so that two runs give the same bytes.

Usage: python tools/execute.py [nbs/1_tokens/03_patchify.ipynb ...]   (all of them if none is named)
"""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def shrink(png: str, limit: int = 8_000) -> str:
    """A large picture with 256 colours in place of millions: a third of the bytes, and the eye sees no difference."""
    from PIL import Image

    data = base64.b64decode(png)
    if len(data) < limit:
        return png
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").quantize(256).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def execute(path: Path) -> None:
    """Run one notebook from its own folder, and keep only what a reader should see."""
    import nbformat
    from nbclient import NotebookClient

    nb = nbformat.read(path, as_version=4)
    NotebookClient(
        nb,
        timeout=600,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type == "code":  # progress bars and warnings differ from run to run
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                data = output.get("data", {})
                data.pop("application/vnd.jupyter.widget-view+json", None)
                if "image/png" in data:
                    data["image/png"] = shrink(data["image/png"])
    nbformat.write(nb, path)
    subprocess.run(["nbdev_clean", "--fname", str(path)], check=True)


def main() -> None:
    """Execute the notebooks that are named, or all."""
    os.environ.setdefault("PYTHONHASHSEED", "0")
    named = [Path(a).resolve() for a in sys.argv[1:]]
    for path in named or [*sorted((ROOT / "nbs").glob("*/*.ipynb")), ROOT / "index.ipynb"]:
        execute(path)
        images = sum(
            "image/png" in o.get("data", {})
            for c in json.loads(path.read_text())["cells"]
            for o in c.get("outputs", [])
        )
        print(f"{path.relative_to(ROOT)}: {images} figures, {path.stat().st_size // 1024} kB", flush=True)


if __name__ == "__main__":
    main()
