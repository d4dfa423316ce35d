"""Make dit_nb/emoji_files/emoji.npy.xz and emoji.csv from two npm packages, byte for byte as they are committed.

    npm pack emoji-datasource-google@16.0.0 @lobehub/fluent-emoji-3d@1.1.0
    python tools/build_emoji.py emoji-datasource-google-16.0.0.tgz lobehub-fluent-emoji-3d-1.1.0.tgz

The pictures are put on white and averaged over squares of pixels in integers, so that no library's rounding enters.
Flags, skin tones and components are left out.
"""

import argparse
import csv
import hashlib
import io
import json
import lzma
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SHA256 = {
    "emoji-datasource-google 16.0.0": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "@lobehub/fluent-emoji-3d 1.1.0": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
}
CATEGORIES = {
    "Smileys & Emotion": "smileys",
    "People & Body": "people",
    "Animals & Nature": "animals",
    "Food & Drink": "food",
    "Travel & Places": "travel",
    "Activities": "activities",
    "Objects": "objects",
    "Symbols": "symbols",
}
SIDE = 32
FOLDER = Path(__file__).resolve().parents[1] / "dit_nb" / "emoji_files"


def open_package(path: str, name: str) -> dict[str, bytes]:
    "Files of an npm package, by path, if it is the one that the data set was made from."
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        sys.exit(f"{path} is not {name}: its SHA-256 differs.")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        wanted = ("package/img/google/64/", "package/emoji.json", "package/assets/")
        return {
            member.name.removeprefix("package/"): tar.extractfile(member).read()
            for member in tar
            if member.isfile() and member.name.startswith(wanted)
        }


def shrink(file: bytes) -> np.ndarray:  # (SIDE, SIDE, 3) uint8
    "Put a picture on white and average over squares of pixels, in integers."
    pixels = np.asarray(Image.open(io.BytesIO(file)).convert("RGBA")).astype(np.int64)
    height, width = pixels.shape[:2]
    extra = (height - width) // 2  # four pictures have empty rows above and below
    pixels = pixels[extra : extra + width]
    k = width // SIDE
    color, alpha = pixels[..., :3], pixels[..., 3:]
    total = (color * alpha + 255 * (255 - alpha)).reshape(SIDE, k, SIDE, k, 3).sum((1, 3))
    return ((2 * total + 255 * k * k) // (2 * 255 * k * k)).astype(np.uint8)


def find_3d(entry: dict, files: dict[str, bytes]) -> bytes | None:
    "The 3D picture of an emoji; the packages differ in the variation selector FE0F."
    for code in filter(None, (entry["unified"], entry["non_qualified"])):
        for name in (code.lower(), code.lower().replace("-fe0f", "")):
            if f"assets/{name}.webp" in files:
                return files[f"assets/{name}.webp"]
    return None


def read_entries(table: bytes) -> list[dict]:
    "The emoji in the order of the Unicode charts, with a category and a unique name."
    entries = [entry for entry in json.loads(table) if entry["category"] in CATEGORIES]
    for entry in entries:
        if entry["unified"] == "1F935":  # has the name of the man
            entry["name"] = "PERSON IN TUXEDO"
    return sorted(entries, key=lambda entry: (list(CATEGORIES).index(entry["category"]), entry["sort_order"]))


def assign_splits(rows: list[dict]) -> None:
    """Hold out, of the names in both styles of each category, 8 % in both, 8 % in flat only and 8 % in 3D only."""
    rng = np.random.RandomState(0)  # its stream is fixed for all versions of NumPy
    for category in CATEGORIES.values():
        styles: dict[str, list[dict]] = {}
        for row in rows:
            if row["category"] == category:
                styles.setdefault(row["name"], []).append(row)
        pairs = [pair for pair in styles.values() if len(pair) == 2]
        share = round(0.08 * len(pairs))
        order = rng.permutation(len(pairs))
        for place, i in enumerate(order[: 3 * share]):
            held_out = ((0, 1), (0,), (1,))[place // share]  # flat comes first
            for style in held_out:
                pairs[i][style]["split"] = "held_out"


def build(noto: str, fluent: str) -> tuple[np.ndarray, list[dict]]:
    "Pictures (N, 32, 32, 3) uint8, and a row for each."
    flat, solid = (open_package(path, name) for path, name in zip((noto, fluent), SHA256))
    rows, pictures = [], []
    for entry in read_entries(flat["emoji.json"]):
        files = {"flat": flat[f"img/google/64/{entry['image']}"], "3d": find_3d(entry, solid)}
        for style, file in files.items():
            if file is None:
                continue
            pictures.append(shrink(file))
            rows.append(
                {
                    "name": entry["name"].lower(),
                    "style": style,
                    "category": CATEGORIES[entry["category"]],
                    "subcategory": entry["subcategory"],
                    "split": "train",
                }
            )
    assign_splits(rows)
    order = sorted(range(len(rows)), key=lambda i: rows[i]["style"] == "3d")  # stable; packs better
    return np.stack([pictures[i] for i in order]), [rows[i] for i in order]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("noto", help="emoji-datasource-google-16.0.0.tgz")
    parser.add_argument("fluent", help="lobehub-fluent-emoji-3d-1.1.0.tgz")
    parser.add_argument("--out", default=str(FOLDER), help="folder to write to")
    options = parser.parse_args()
    pictures, rows = build(options.noto, options.fluent)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    array = io.BytesIO()
    np.save(array, pictures)
    (out / "emoji.npy.xz").write_bytes(lzma.compress(array.getvalue(), preset=9))
    with (out / "emoji.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for name in ("emoji.npy.xz", "emoji.csv"):
        content = (out / name).read_bytes()
        print(f"{hashlib.sha256(content).hexdigest()}  {name}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
