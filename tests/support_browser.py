"""A file server and a browser for the tests of web pages."""

import functools
import http.server
import shutil
import threading
from contextlib import contextmanager

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class _WithoutLog(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): ...


@contextmanager
def serve(folder):
    """A plain file server over a folder: its address."""
    handler = functools.partial(_WithoutLog, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@contextmanager
def chromium():
    """A browser, or the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium was found: `apt-get install chromium`")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def watched_page(browser, base: str, **options):
    """A page whose errors, and requests to other hosts, fail the test at its end."""
    page, faults = browser.new_page(**options), []
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((base, "data:", "blob:")) else faults.append(r.url))
    yield page
    page.close()
    assert not faults, faults
