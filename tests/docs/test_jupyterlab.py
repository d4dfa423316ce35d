"""Lessons in a real JupyterLab in a real browser: all cells run, and a slider moved by keyboard redraws its figure.

Skipped without Chromium or playwright. Set DIT_NB_SHOTS to a folder to keep the screenshots.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if BROWSER is None:
    pytest.skip("no Chromium was found: `apt-get install chromium`", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [
    "nbs/1_tokens/02_noise.ipynb",
    "nbs/1_tokens/03_patchify.ipynb",
    "nbs/2_transformer/11_adaln_zero.ipynb",
    "nbs/3_diffusion/16_sampling.ipynb",
    "nbs/guides/denoising_viewer.ipynb",
]
PICTURE = ".jupyter-widgets img"
# All notebooks in one worker: two servers on two cores slow each other down.
pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow]


def wait_for(ready, seconds: float, what: str):
    """Poll until `ready()` is true, and return what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ready()
        if answer:
            return answer
        time.sleep(0.2)
    raise TimeoutError(f"{what} did not come in {seconds} s")


def responds(url: str) -> bool:
    """Whether the server responds."""
    try:
        return urllib.request.urlopen(url + "api", timeout=2).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of its own, over a copy of the notebooks: (address, folder, log)."""
    folder, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "nbs", folder / "nbs")
    shutil.copy(ROOT / "index.ipynb", folder)
    own = {
        "JUPYTER_RUNTIME_DIR": home / "run",
        "JUPYTER_CONFIG_DIR": home,
        "JUPYTERLAB_SETTINGS_DIR": home / "s",
    }
    environment = {**os.environ, "IPYTHONDIR": str(home), "PYTHONPATH": str(ROOT)}
    environment |= {name: str(path) for name, path in own.items()}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "w")}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
    ]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    log = home / "log"
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
        try:
            infos = lambda: list((home / "run").glob("jpserver-*.json"))  # noqa: E731
            info = wait_for(infos, 90, "the server's address")[0]
            url = wait_for(
                lambda: info.read_text() and json.loads(info.read_text())["url"], 10, "its address"
            )
            wait_for(lambda: responds(url), 60, "the server's response")
            yield url, folder, log
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A window as wide as a laptop's screen."""
    context = browser.new_context(viewport={"width": 1366, "height": 900})
    yield context.new_page()
    context.close()


def run_all(page, seconds: float = 400) -> None:
    """Run all cells, as from the menu, once the kernel is there; wait until none is left."""
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first
    idle.wait_for(state="attached", timeout=60_000)
    # Before the session exists Lab asks which kernel to use; the status bar shows when it does.
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for(timeout=60_000)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    # While cells wait, Lab shows [*] in their margin.
    waiting = page.locator(".jp-InputPrompt", has_text="[*]:")
    page.wait_for_timeout(1000)
    wait_for(lambda: waiting.count() == 0, seconds, "the end of the last cell")
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for(timeout=60_000)


def open_folded(page) -> None:
    """Show the outputs that are stored folded, such as explorers that answer a question."""
    page.locator(".lm-MenuBar-itemLabel", has_text="View").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Expand All Outputs").first.click()


def saved(page, path: Path) -> list[dict]:
    """The code cells as Lab writes them to disk."""
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    wait_for(lambda: path.stat().st_mtime_ns != before, 30, "the saved notebook")
    time.sleep(0.5)
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def did_run(cell: dict) -> bool:
    return cell["execution_count"] is not None or not "".join(cell["source"]).strip()


def all_saved(page, path: Path) -> list[dict] | None:
    """The code cells once all ran or one failed. Lab draws no [*] of a waiting cell that lies outside the window."""
    cells = saved(page, path)
    failed = any(o["output_type"] == "error" for c in cells for o in c["outputs"])
    return cells if failed or all(map(did_run, cells)) else None


def shoot(page, name: str) -> None:
    """Keep a screenshot if DIT_NB_SHOTS is set."""
    if os.environ.get("DIT_NB_SHOTS"):
        page.screenshot(path=str(Path(os.environ["DIT_NB_SHOTS"]) / f"{name}.png"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_in_lab(lab, page, name):
    url, folder, log = lab
    start = log.stat().st_size
    page.goto(f"{url}lab/workspaces/{Path(name).stem}/tree/{name}?reset")
    run_all(page)
    shoot(page, f"{Path(name).stem}_folded")
    open_folded(page)
    cells = wait_for(lambda: all_saved(page, folder / name), 300, "the end of the last cell")
    assert [o for c in cells for o in c["outputs"] if o["output_type"] == "error"] == []

    picture = page.locator(PICTURE).first
    picture.scroll_into_view_if_needed(timeout=60_000)
    shoot(page, f"{Path(name).stem}_before")
    first = picture.get_attribute("src")
    handle = page.locator(".jupyter-widgets .noUi-handle:visible").first
    handle.focus()
    at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
    wait_for(lambda: picture.get_attribute("src") != first, 60, "the new picture")
    shoot(page, f"{Path(name).stem}_after")
    width = picture.evaluate("image => [image.naturalWidth, image.getBoundingClientRect().width]")
    assert width[0] > 300 and width[1] > 300, "the picture is there, and wide enough to read"
    logged = log.read_text()[start:]
    assert "Traceback" not in logged and "Error" not in logged, logged[-3000:]
