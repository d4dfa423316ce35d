"""Print the oldest version of each package that settings.ini allows, as constraints for pip.

Usage: python tools/oldest.py [torch==2.13.0 ...] > constraints.txt   (a named package gets that version instead)
"""

import re
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

SETTINGS = Path(__file__).parents[1] / "settings.ini"
GROUPS = ("requirements", "lab_requirements")


def oldest(settings: str, instead: Sequence[str] = ()) -> list[str]:
    """One constraint per package: `einops>=0.7` becomes `einops==0.7.0`."""
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read_string(settings)
    bounds = {}
    for group in GROUPS:
        bounds |= re.findall(r"([\w-]+)>=([\d.]+)", config["DEFAULT"][group])
    named = dict(words.split("==") for words in instead)
    exact = {name: version + ".0" * (version.count(".") < 2) for name, version in bounds.items()}
    return [f"{name}=={version}" for name, version in (exact | named).items()]


if __name__ == "__main__":
    print("\n".join(oldest(SETTINGS.read_text(encoding="utf-8"), sys.argv[1:])))
