"""Fine-tuning: rows of the label table by name, frozen parameters by pattern, and low-rank adapters."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit_nb import DiT, DiTConfig, SamplingConfig, load_model
from dit_nb.finetune import add_lora, fit_model, freeze, merge_lora, save_lora
from dit_nb.model import BLOCKS
from dit_nb.pretrained import save_model
from support import model_inputs, raises_input_error, relative, same_weights, tiny_model

ANIMALS = ("cat", "dog", "fox", "hen", "owl")  # the classes of `tiny_model`


def table(model):
    return model.y_embedder.embedding_table.weight


def test_classes_keep_their_rows_by_name_and_the_null_class_its_own():
    model, names = tiny_model(), ("ant", "owl", "cat", "emu")
    fitted, news = fit_model(model, class_names=names, known=ANIMALS)
    assert fitted.config.num_classes == 4 and fitted.null_class == 4 and not fitted.training
    assert torch.equal(table(fitted)[[1, 2, 4]], table(model)[[4, 0, 5]])
    assert not torch.isclose(table(fitted)[[0, 3]][:, None], table(model)).all(-1).any()
    assert len(news) == 1 and "2 of 4 classes are new" in news[0] and "ant, emu" in news[0]
    others = [{k: v for k, v in m.state_dict().items() if "y_embedder" not in k} for m in (fitted, model)]
    assert others[0].keys() == others[1].keys()
    assert all(torch.equal(others[0][k], others[1][k]) for k in others[0])


def test_same_classes_and_size_change_nothing():
    model = tiny_model()
    fitted, news = fit_model(model, (4, 6), ANIMALS, ANIMALS)
    assert same_weights(fitted, model) and not news
    assert same_weights(fit_model(model)[0], model)
    fitted, news = fit_model(model, class_names=tuple("abcde"))  # classes without names: taken in order
    assert same_weights(fitted, model) and "in order" in news[0]
    fitted, news = fit_model(
        model, class_names=tuple("abc")
    )  # another number of them: only the null class is known
    assert torch.equal(table(fitted)[3], table(model)[5]) and "3 of 3 classes" in news[0]


@pytest.mark.parametrize(
    "fields", [{"num_classes": 0}, {"class_dropout_prob": 0.0}], ids=["no classes", "no null class"]
)
def test_tables_without_some_rows(fields):
    model = tiny_model(**fields)
    known = ANIMALS if model.config.num_classes else None
    fitted, _ = fit_model(model, class_names=("owl", "emu"), known=known)
    assert fitted.config.num_classes == 2 and (fitted.null_class is None) == bool(known)
    if known:
        assert torch.equal(table(fitted)[0], table(model)[4])
    fitted, _ = fit_model(model, class_names=(), known=known)
    assert fitted.y_embedder is None and fitted.config.num_classes == 0


def test_another_size_gets_the_positions_of_a_new_model():
    model = tiny_model()
    fitted, news = fit_model(model, 8)
    assert "position embeddings are computed again" in news[0]
    assert torch.equal(fitted.pos_embed, DiT(fitted.config).pos_embed) and fitted.grid == (4, 4)
    assert torch.equal(fitted.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    assert fitted(torch.zeros(1, 3, 8, 8), torch.tensor([3]), torch.tensor([1])).shape == (1, 6, 8, 8)


# Frozen parameters


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_backbone():
    model = tiny_model()
    everything = trained(model)
    count = freeze(model, "backbone")
    wanted = {n for n in everything if "adaLN" in n or n.endswith("bias") or n.startswith("y_embedder")}
    assert trained(model) == wanted and 0 < len(wanted) < len(everything) and "pos_embed" not in wanted
    assert count == sum(model.get_parameter(name).numel() for name in wanted)
    assert freeze(tiny_model("in_context", num_classes=0), "backbone")  # no modulation, no table


def test_patterns():
    model = tiny_model()
    everything = trained(model)
    freeze(model, ["blocks.*", "x_embedder.proj.*"], ["blocks.1.mlp.*"])
    frozen = {n for n in everything if n.startswith(("blocks.", "x_embedder")) and "blocks.1.mlp" not in n}
    assert trained(model) == everything - frozen
    with raises_input_error(r"freeze is 'block\.\*'.*x_embedder"):
        freeze(model, ["block.*"])
    with raises_input_error("unfreeze is 'mlp'"):
        freeze(model, "blocks.*", "mlp")
    with raises_input_error(r"^freeze is \*,"):
        freeze(model, "*")


# Low-rank adapters


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


def adapted(block="adaln_zero", **options):
    """A model with adapters that are no longer zero, as after training."""
    model = tiny_model(block)
    add_lora(model, **{"rank": 3, **options})
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.normal_(std=0.2)
    return model


@pytest.mark.parametrize("block", list(BLOCKS))
@torch.no_grad()
def test_adapters_change_nothing_at_first_and_are_merged(peft, block):
    model, plain = tiny_model(block), tiny_model(block)
    count, inputs = add_lora(model, rank=3, alpha=6), model_inputs(plain)
    assert trained(model) and all("lora_" in name for name in trained(model))
    assert count == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert torch.equal(model(*inputs), plain(*inputs))
    model = adapted(block, alpha=6)
    merged = merge_lora(model)
    assert type(merged) is DiT and merged.state_dict().keys() == plain.state_dict().keys()
    assert relative(merged(*inputs), model(*inputs)) < 1e-5
    assert relative(merged(*inputs), plain(*inputs)) > 0.01
    qkv, layer = merged.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert relative(qkv, plain.blocks[0].attn.qkv.weight + 2 * b @ a) < 1e-5
    assert merge_lora(plain) is plain


def test_a_saved_model_holds_the_merged_weights(peft, tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path)
    assert same_weights(DiT.from_pretrained(tmp_path), merge_lora(model))


@torch.no_grad()
def test_saved_adapters_open_in_peft(peft, tmp_path):
    model, inputs = adapted(alpha=1.5), model_inputs(tiny_model())
    save_lora(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    theirs = peft.PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
    assert torch.equal(theirs(*inputs), model(*inputs))
    assert theirs.merge_and_unload()(*inputs).shape == model(*inputs).shape
    with raises_input_error("^model .*add_lora"):
        save_lora(tiny_model(), tmp_path)


def test_a_checkpoint_with_adapters_is_a_model(peft, tmp_path):
    from dit_nb.finetune import _save_adapter_config

    model = adapted(alpha=2)
    tiny_model().save_pretrained(tmp_path)
    save_file(copy.deepcopy(model).state_dict(), tmp_path / "model.safetensors")
    _save_adapter_config(model, tmp_path)
    assert "blocks.0.attn.qkv.lora_A.default.weight" in load_file(tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path, device="cpu")
    assert same_weights(loaded, merge_lora(model)) and not hasattr(loaded, "peft_config")
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 4, "target_modules": ["attn.qkv"]}'
    )
    with raises_input_error(r"model\.safetensors .* 40 tensors .*blocks\.0\.attn"):
        load_model(tmp_path)


LORA = {"peft_type": "LORA", "r": 3, "target_modules": ["attn.qkv"]}
DAMAGED = ["", "{", "[]", "null", "[" * 100_000, '"text"', "{}", '{"peft_type": "LORA", "r": "x"}']
DAMAGED += [
    json.dumps({**LORA, **wrong}) for wrong in ({"r": -1}, {"r": "3"}, {"r": 10**15}, {"peft_type": 5})
]
DAMAGED += [json.dumps({**LORA, "target_modules": other}) for other in (["nowhere"], 5, {"a": 1})]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_settings_of_adapters(peft, tmp_path, monkeypatch, content):
    from dit_nb.finetune import _save_adapter_config

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = adapted()
    model_folder = tmp_path / "model"
    save_model(tiny_model(), model_folder, SamplingConfig())
    save_file(copy.deepcopy(model).state_dict(), model_folder / "model.safetensors")
    _save_adapter_config(model, model_folder)
    load_model(model_folder, device="cpu")
    (model_folder / "adapter_config.json").write_text(content)
    with raises_input_error(
        f"{model_folder}/(adapter_config.json cannot be used|model.safetensors does not fit)"
    ):
        load_model(model_folder, device="cpu")


def test_settings_of_adapters_are_written_completely_or_not(peft, tmp_path, monkeypatch):
    model = adapted()
    save_lora(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError):
        save_lora(adapted(rank=5), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_wrong_calls(peft):
    model = tiny_model()
    for options, pattern in (
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2.5}, "rank is 2.5"),
        ({"alpha": -1}, "alpha is -1"),
        ({"targets": ["attn.q"]}, "targets is 'attn.q'.*linear layer"),
        ({"targets": "attn.qkv"}, "targets is 'attn.qkv'.*list"),
    ):
        with raises_input_error(pattern):
            add_lora(model, **options)


def test_without_peft(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match="dit_nb.finetune"):
        add_lora(tiny_model())
    assert SamplingConfig()


def test_models_of_another_kind_are_refused():
    from dit_nb.pretrained import text_emoji_model

    with raises_input_error("model is a MMDiT"):
        fit_model(text_emoji_model("cpu")[0])


def test_backbone_leaves_the_modulation_of_modern_blocks():
    shape = dict(input_size=8, hidden_size=32, depth=1, num_heads=2, num_classes=3)
    model = DiT(DiTConfig(**shape, block="modern"))
    freeze(model, ("backbone",))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {"shared_modulation.1.weight", "blocks.0.table"} <= trained
    assert "blocks.0.attn.qkv.weight" not in trained
