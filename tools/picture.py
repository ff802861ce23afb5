"""Take the picture of the front page's widget that README.md shows, from the built book.

    make book && python tools/picture.py           book/assets/speak.png
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def take(page: Path, path: Path) -> None:
    """Wait until the widget of a page has computed its clip, and save what it looks like."""
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--headless"])
        shown = window.new_page(viewport={"width": 1000, "height": 1400})
        shown.goto(page.as_uri())
        widget = shown.locator(".dsn-speak").first
        widget.locator("[role=status]", has_text="MMAC/s").wait_for(timeout=120_000)
        widget.screenshot(path=path)
        window.close()


if __name__ == "__main__":
    take(ROOT / "_build" / "html" / "index.html", ROOT / "book" / "assets" / "speak.png")
    sys.exit(0)
