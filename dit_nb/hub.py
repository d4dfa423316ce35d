"""Saved models: config.json, model.safetensors and a model card, in a folder or on the Hugging Face Hub."""

import json
import re
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dit_nb.config import DiTConfig

CARD = """---
{{ card_data }}
---

# A diffusion transformer

A [DiT]({{ paper_url }}) of {{ "{:,}".format(weights) }} weights.

- Blocks: {{ config.block }}, depth {{ config.depth }}, width {{ config.hidden_size }}, heads {{ config.num_heads }}
- Inputs: channels {{ config.in_channels }}, size {{ config.input_size }}, patch {{ config.patch_size }}
- Classes: {{ config.num_classes or "none" }}
- Variance: {{ "learned" if config.learn_sigma else "fixed" }}

{% if source %}
Converted from {{ source }}, whose licence holds.
{% endif %}
## Use

    import torch
    from dit_nb.pretrained import load_model, sample_images

    model, sampling = load_model("{{ model_id or "this folder" }}")
    labels = {{ "torch.tensor([0])" if config.num_classes else None }}
    images = sample_images(model, sampling, labels, 1)

## Training

{% if data %}Data: {{ data }}.

{% endif %}{% if command %}    {{ command }}
{% endif %}{% if not data and not command %}How it was trained is not recorded.
{% endif %}{% if metrics %}
## Metrics

| | |
|---|---|
{% for name, value in metrics.items() %}| {{ name }} | {{ value }} |
{% endfor %}{% endif %}"""


SAVED = ("config.json", "model.safetensors")  # what `save_pretrained` writes, beside a README.md
PAPER_URL = "https://arxiv.org/abs/2212.09748"


def model_card(
    model: nn.Module,  # a DiT
    **facts,  # data, command, metrics, source, model_id
) -> ModelCard:
    "The README of a saved model."
    data = ModelCardData(library_name="dit_nb", tags=["dit", "diffusion"])
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = {"config": model.config, "weights": weights, "paper_url": PAPER_URL, **facts}
    return ModelCard.from_template(data, template_str=CARD, **facts)


def save_pretrained(
    model: nn.Module,  # a DiT
    folder: str | Path,  # created if missing
    **facts,  # for the model card: data, command, metrics, source, model_id
) -> None:
    "Write config.json, model.safetensors and README.md."
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SAVED[0]).write_text(json.dumps(asdict(model.config), indent=2), encoding="utf-8")
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / SAVED[1], metadata={"format": "pt"})
    model_card(model, **facts).save(folder / "README.md")


def saved_file(
    source: str | Path,  # a folder, or an id on the Hub
    name: str,  # one of the saved files
    **download,  # for the Hub
) -> Path:
    "A file of a saved model: in a folder here, or fetched from the Hub where `source` reads 'user/name'."
    folder = Path(source)
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/[\w.-]+", source) and not folder.is_dir():
        try:
            return Path(hf_hub_download(source, name, **download))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{source} is no folder here, and {name} did not come from the Hub ({type(error).__name__})."
            ) from None
    if not (folder / name).is_file():
        raise ValueError(f"{source} {f'has no {name}' if folder.is_dir() else 'is not a folder'}.")
    return folder / name


def read_config(path: Path) -> DiTConfig:
    "The configuration in a config.json. Raises ValueError where a field is missing or unknown."
    try:
        fields = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise ValueError(f"{path} is not a JSON object.") from None
    # How weights were drawn does not matter any more when they are loaded.
    wrong = (fields.keys() | {"init"}) ^ DiTConfig.__dataclass_fields__.keys()
    if wrong:
        raise ValueError(
            f"{path} lacks or does not know these fields of a DiTConfig: {', '.join(sorted(wrong))}."
        )
    return DiTConfig(**fields)


def load_weights(model: nn.Module, path: Path) -> None:
    "Fill the model from a file. Raises ValueError unless names and shapes are the model's own, all of them."
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from None
    got, wanted = ({k: v.shape for k, v in w.items()} for w in (weights, model.state_dict()))
    wrong = sorted(k for k in got.keys() | wanted.keys() if got.get(k) != wanted.get(k))
    if wrong:
        raise ValueError(
            f"{path} does not fit its config.json: {len(wrong)} tensors are missing, unknown or of another shape, "
            f"the first is {wrong[0]}."
        )
    model.load_state_dict(weights)
