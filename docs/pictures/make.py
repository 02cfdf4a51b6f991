"""The picture of a report page in the README, taken by Chromium without a window.

    python docs/pictures/make.py runs/quickstart/report.html docs/pictures/report.png

Needs `chromium` (Debian: apt install chromium). Playwright or Selenium would bring a browser of their own for one call.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

WIDTH, HEIGHT = 1200, 900
"""Of the window, in CSS pixels: the head of the page, with its table and the first curves."""


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="report.html of a run")
    parser.add_argument("picture", type=Path, help="PNG to write")
    asked = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        parser.error("there is no chromium on the path: apt install chromium")
    if not asked.page.is_file():
        parser.error(f"there is no page {asked.page}: run `make quickstart` first")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={asked.picture.absolute()}"]
        subprocess.run([*command, asked.page.absolute().as_uri()], check=True, capture_output=True, timeout=120)
    print(f"{asked.picture}: {asked.picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
