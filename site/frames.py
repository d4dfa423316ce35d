"""Frames of the explorers for pages without a kernel: each explorer's most telling controls, at most 40 pictures."""

import io
import json
from collections.abc import Iterable, Iterator
from html import escape
from itertools import product
from pathlib import Path

from PIL import Image

from dit_nb.teach.explore.core import Explorer, _all_explorers

T = [0, 50, 100, 200, 300, 400, 600, 800, 999]
CONTROLS = {  # explorer -> control -> values; None: all that it offers
    "explore_range": {"t": [0, 100, 200, 400, 600, 999], "scale": None, "wrong": [False, True]},
    "explore_crop": {"size": [16, 32, 64, 128], "place": [-1.0, 0.0, 1.0]},
    "explore_ideal_denoiser": {"t": T, "digit": [0, 3, 7, 8]},
    "explore_patchify": {"p": [2, 4, 8, 16], "wrong": [False, True]},
    "explore_positions": {"token": [0, 5, 15, 86, 95, 176, 191], "wrong": [False, True]},
    "explore_timestep": {"t": T[::2], "max_period": None},
    "explore_attention": {"block": None, "head": None},
    "explore_block": {"blocks": [0, 1, 2, 4, 8, 12, 18, 24], "norm": None},
    "explore_in_context": {"t": None, "source": None},
    "explore_cross_attention": {"digit": list(range(10)), "head": None},
    "explore_modulate": {"shift": [-2.0, -1.0, 0.0, 1.0, 2.0], "scale": [-2.0, -1.0, 0.0, 1.0, 2.0]},
    "explore_gate": {"step": None, "gate": None},
    "explore_model": {"size": None, "patch": None},
    "explore_cost": {"size": None, "pixels": None},
    "explore_noise": {"t": T, "schedule": None},
    "explore_variance": {"t": [1, 10, 100, 500, 999], "v": [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]},
    "explore_sampler": {"steps": None, "variance": None},
    "explore_few_steps": {"steps": None, "solver": None},
    "explore_guidance": {"w": None, "bug": None},
    "explore_training": {"decay": None, "schedule": None},
    "explore_latents": {"t": T[::2], "ablated": None},
    "explore_frechet": {"kind": None, "n": None},
    "explore_compute": {"size": None, "steps_k": None},
    "explore_modulation": {"quantity": None, "branch": None},
    "explore_attention_maps": {"t": T[::2], "patch": [0, 5, 6, 10, 15]},
    "explore_lens": {"k": list(range(7)), "t": [100, 300, 600, 900]},
    "explore_ablation": {"block": list(range(6)), "branch": None},
    "explore_budget": {"size": None, "batch": None},
    "explore_ranks": {"world_size": None, "micro_batches": None, "wrong": [False, True]},
    "explore_denoising": {"percent": list(range(0, 101, 10)), "guidance": [1.0, 2.0, 4.0]},
    "explore_flow": {"alpha": None, "steps": None},
    "explore_plane": {
        "target": ["two moons", "ring"],
        "steps": [1, 2, 8, 64],
        "t": [1.0, 0.75, 0.5, 0.25, 0.0],
    },
    "explore_modern_blocks": {"row": [0, 3, 7], "column": [0, 4, 8, 11], "theta": [10.0, 100.0, 10000.0]},
    "explore_targets": {"dimensions": None, "width": None},
    "explore_mmdit": {"prompt": None, "time": None},
    "explore_guidance_today": {"method": None, "w": None},
    "explore_meanflow": {"kind": None, "steps": None},
}
WIDTH = 900  # of a frame, in pixels


def write_frames(folder: Path, names: Iterable[str] = tuple(CONTROLS)) -> None:
    """Draw the frames of explorers into `folder/NAME/`: 0.webp, 1.webp, ... and what they show, frames.json."""
    makers = _all_explorers()
    for name in names:
        explorer, own = makers[name](), folder / name
        own.mkdir(parents=True, exist_ok=True)
        controls = [_values(explorer, control, values) for control, values in CONTROLS[name].items()]
        facts = {
            "title": explorer.title,
            "others": _labels(explorer, set(explorer.controls) - set(CONTROLS[name])),
        }
        facts["controls"] = [
            {"label": label, "texts": [text for text, _ in options]} for label, options in controls
        ]
        facts["start"] = [
            _index(explorer, name, options) for name, (_, options) in zip(CONTROLS[name], controls)
        ]
        facts["words"] = list(
            _draw(explorer, list(CONTROLS[name]), [options for _, options in controls], own)
        )
        (own / "frames.json").write_text(json.dumps(facts))


def _values(explorer: Explorer, name: str, values: list | None) -> tuple[str, list[tuple[str, object]]]:
    "Label of a control, and its values with their texts."
    control = explorer.controls[name]
    offered = [o if isinstance(o, tuple) else (str(o), o) for o in getattr(control, "options", None) or []]
    texts = {repr(value): text for text, value in offered}
    if values is None:
        return _label(control), offered
    words = {"True": "yes", "False": "no"}
    return _label(control), [(texts.get(repr(v)) or words.get(str(v)) or f"{v:g}", v) for v in values]


def _label(control) -> str:
    text = control.description if hasattr(control, "description") else control.children[0].value
    return text.replace("</b>", "").rpartition("<b>")[2].partition("</span>")[0].strip() or "value"


def _labels(explorer: Explorer, names: set) -> list[str]:
    return [_label(control) for name, control in explorer.controls.items() if name in names]


def _index(explorer: Explorer, name: str, options: list) -> int:
    "Place of the control's default among the values, or the middle."
    values = [value for _, value in options]
    default = explorer.controls[name].value
    return values.index(default) if default in values else len(values) // 2


def _draw(explorer: Explorer, names: list[str], options: list, folder: Path) -> Iterator[str]:
    "Draw all combinations, and yield the words of each."
    combinations = list(product(*([value for _, value in values] for values in options)))
    assert len(combinations) <= 40, f"{folder.name} has {len(combinations)} frames"
    for k, values in enumerate(combinations):
        explorer.set(**dict(zip(names, values)))
        picture = Image.open(io.BytesIO(explorer.png)).convert("RGB")
        picture.thumbnail((WIDTH, 10_000))
        picture.save(folder / f"{k}.webp", quality=70)
        yield explorer.figure.alt_text


def frames_html(folder: Path, name: str, up: str) -> str:
    """The sliders and the picture of an explorer, for a page that is `up` from the root of the site."""
    facts = json.loads((folder / name / "frames.json").read_text())
    sliders = "".join(
        f'<label>{escape(c["label"])} <input type="range" min="0" max="{len(c["texts"]) - 1}" value="{start}">'
        f"<output>{escape(c['texts'][start])}</output></label>"
        for c, start in zip(facts["controls"], facts["start"])
    )
    first = facts["start"][0]
    for control, start in zip(facts["controls"][1:], facts["start"][1:]):
        first = first * len(control["texts"]) + start
    more = f", and has more controls ({'; '.join(facts['others'])})" if facts["others"] else ""
    return (
        f'<div class="frames" id="{name}" data-frames="{escape(json.dumps(facts), quote=True)}" data-path="{up}frames/{name}/">'
        f'<div class="sliders">{sliders}</div>'
        f'<img loading="lazy" src="{up}frames/{name}/{first}.webp" alt="{escape(facts["words"][first], quote=True)}">'
        f"<p>Stored pictures. In Jupyter the explorer is live: it takes any value{escape(more)}.</p></div>"
    )
