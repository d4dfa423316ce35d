"""Models from elsewhere and to elsewhere: official files, the real classes of diffusers, its samplers, the Hub's folders."""

import argparse
import json
import os
import pickle
import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.cli import main
from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier
from dit_nb.guidance import Guided
from dit_nb.interop.convert import convert, load_any, load_diffusers, save_diffusers
from dit_nb.interop.diffusers import (
    from_diffusers,
    make_scheduler,
    pad_labels,
    scheduler_sample,
    set_frequencies,
    to_diffusers,
    trim_labels,
)
from dit_nb.interop.official import (
    LATENTS,
    infer_config,
    load_official,
    official_state,
    read_checkpoint,
    save_official,
)
from dit_nb.pretrained import SAMPLING, digit_model, load_model, push_model, save_model
from dit_nb.sampling import ddim_sample, ddpm_sample
from support import randomise


@contextmanager
def complains(pattern):
    """Expect a ValueError of one sentence that fits the pattern."""
    with pytest.raises(ValueError, match=pattern) as caught:
        yield
    message = str(caught.value)
    assert caught.type is ValueError and message.endswith(".") and "\n" not in message, message


def make(seed=0, **changes):
    """A tiny model in which no weight is zero."""
    fields = dict(
        input_size=8, patch_size=2, in_channels=4, hidden_size=32, depth=2, num_heads=2, num_classes=10
    )
    return randomise(DiT(DiTConfig(**{**fields, **changes})), seed, 0.2).eval()


def same(a, b):
    """Whether two models have the same weights."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k].cpu(), b[k].cpu()) for k in a)


X = torch.randn(6, 4, 8, 8, generator=torch.manual_seed(0))
T = torch.tensor([0, 1, 10, 300, 700, 999])
Y = torch.tensor([0, 9, 3, 10, 10, 5])  # 10 is the null class


# Official files


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"learn_sigma": False}, {"class_dropout_prob": 0.0}, {"mlp_ratio": 2.0}, {"patch_size": 4}],
    ids=str,
)
def test_official_files_come_back(tmp_path, training, changes):
    model = make(**changes)
    save_official(model, tmp_path / "a.pt", SAMPLING, training)
    known = {} if training else {"num_heads": 2, "num_classes": 10}
    again, sampling = load_official(tmp_path / "a.pt", **known)
    assert again.config == model.config and same(again, model) and not again.training
    assert sampling["clip_x0"] is training  # known from the training form alone
    assert os.listdir(tmp_path) == ["a.pt"]


def test_the_training_form_is_what_the_official_script_writes(tmp_path):
    model, ema = make(0), make(1)
    save_official(model, tmp_path / "a.pt", training=True, ema=ema)
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content.keys() == {"model", "ema", "opt", "args"} and content["args"].num_classes == 10
    assert content["opt"]["param_groups"][0]["lr"] == 1e-4
    assert same(load_official(tmp_path / "a.pt")[0], ema)
    assert same(load_official(tmp_path / "a.pt", weights="model")[0], model)


def test_a_file_from_a_training_run_elsewhere(tmp_path):
    """Nothing but the script's own arguments in args, an optimizer that has stepped, bfloat16 weights."""
    model = make(hidden_size=384, num_heads=6, depth=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(X, T, Y).square().mean().backward()
    optimizer.step()
    state = {k: v.bfloat16() for k, v in model.state_dict().items()}
    args = argparse.Namespace(model="DiT-S/2", image_size=64, num_classes=10, vae="ema", global_seed=0)
    content = {"model": {}, "ema": state, "opt": optimizer.state_dict(), "args": args}
    torch.save(content, tmp_path / "0000100.pt")
    again, sampling = load_official(tmp_path / "0000100.pt")
    assert again.config == model.config and sampling == {**LATENTS, "variance": "learned"}
    assert all(torch.equal(v, state[k].float()) for k, v in again.state_dict().items())


@pytest.mark.parametrize("name", ["DiT-S/8", "DiT-B/4", "DiT-L/2", "DiT-XL/2"])
def test_the_papers_sizes_are_read_from_shapes(name):
    with torch.device("meta"):
        model = DiT(replace(DiTConfig.named(name), depth=1))
    assert infer_config(model.state_dict()) == model.config


class Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def trapped(path, trap, kind):
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"model": trap}, protocol=2))
    else:
        state = {k: v.clone() for k, v in make().state_dict().items()}
        content = {"args": {"ema": state, "args": trap}, "bare": {**state, "x": trap}, "old": {"ema": trap}}[
            kind
        ]
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old")


@pytest.mark.parametrize("kind", ["args", "bare", "old", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, kind):
    trapped(tmp_path / "kind.pt", Trap(tmp_path / "sprung"), kind)
    with complains("kind.pt wants posix.mkdir to be called when it is opened: refused"):
        load_any(tmp_path / "kind.pt")
    assert not (tmp_path / "sprung").exists()
    if kind == "pickle":  # the trap is a real one
        pickle.loads((tmp_path / "kind.pt").read_bytes())
        assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.7, 0.99, 0.9999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file(tmp_path, share, zipped):
    torch.save(make().state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(whole[: int(len(whole) * share)])
    with complains(
        r"b.pt (is no PyTorch checkpoint, or was cut short|wants torch\._)"
    ):  # a name may be cut, too
        load_official(tmp_path / "b.pt", num_heads=2)


def test_official_files_that_do_not_fit(tmp_path):
    state, path = make().state_dict(), tmp_path / "a.pt"

    def tried(pattern, content, **known):
        torch.save(content, path)
        with complains(pattern):
            load_official(path, **{"num_heads": 2, **known})

    tried("width 32.*pass num_heads", state, num_heads=None)
    tried("num_heads", state, num_heads=3)
    tried("num_classes is 12.*11 rows", state, num_classes=12)
    tried("lacks 2 tensors.*blocks.1.mlp.fc1.bias", {k: v for k, v in state.items() if "1.mlp.fc1" not in k})
    tried("holds 1 tensors that the model has not.*extra", {**state, "extra": torch.ones(1)})
    tried("another shape.*blocks.1.attn.proj.bias", {**state, "blocks.1.attn.proj.bias": torch.ones(31)})
    tried("no official DiT.*pos_embed", {})
    tried("no official DiT.*x_embedder", {"pos_embed": state["pos_embed"]})
    tried("15 positions", {**state, "pos_embed": state["pos_embed"][:, :15]})
    tried("no official DiT.*adaLN", make(block="in_context").state_dict())
    tried("another shape", make(block="adaln").state_dict())
    tried("neither a state dict nor one under the name 'ema'", {"model": state, "step": 3})
    tried("neither a state dict", [1, 2])
    with complains("'best'.*ema, model"):
        load_official(path, weights="best")
    with complains("nowhere.pt is not a file"):
        load_official(tmp_path / "nowhere.pt")


def test_what_the_official_format_cannot_hold(tmp_path):
    for changes, pattern in (
        ({"block": "adaln"}, "adaLN-Zero.*adaln"),
        ({"input_size": (8, 4)}, "square.*8x4"),
    ):
        with complains(pattern):
            save_official(make(**changes), tmp_path / "a.pt")
    assert os.listdir(tmp_path) == []
    plain = make(num_classes=0)
    save_official(plain, tmp_path / "a.pt")
    again, _ = load_official(tmp_path / "a.pt", num_heads=2)
    assert again.config.num_classes == 1 and torch.equal(again(X, T, 0 * T), plain(X, T))


# diffusers


@torch.no_grad()
def gap(model, transformer, y=Y):
    """Largest difference of the outputs, relative to the largest output."""
    ours = model(X[:, : model.config.in_channels], T, y if model.config.num_classes else None)
    theirs = transformer(X[:, : model.config.in_channels], T, Y).sample
    return float((ours - theirs).abs().max() / ours.abs().max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learn_sigma": False},
        {"patch_size": 4, "num_heads": 8},
        {"in_channels": 3, "depth": 1},
        {"num_classes": 0},
    ],
    ids=str,
)
def test_diffusers_computes_the_same(changes):
    model = make(**changes)
    transformer = to_diffusers(model)
    assert gap(model, transformer) < 1e-5
    for module in transformer.modules():  # as diffusers builds it
        if hasattr(module, "downscale_freq_shift"):
            module.downscale_freq_shift = 1
    assert gap(model, transformer) > 1e-3
    set_frequencies(transformer)
    assert gap(model, transformer) < 1e-5
    again = from_diffusers(transformer)
    config = model.config if model.config.num_classes else replace(model.config, class_dropout_prob=0.1)
    assert again.config == config and same(again, model)


def test_null_class_and_labels_beyond():
    model = make()
    transformer = to_diffusers(model)
    assert gap(model, transformer) < 1e-5  # label 10 is the null class
    y = torch.where(Y == 10, 1000, Y)  # as the pipeline calls it
    with torch.no_grad():
        assert torch.equal(transformer(X, T, y).sample, transformer(X, T, Y).sample)
    table = torch.randn(11, 4)
    assert pad_labels(table).shape == (1001, 4) and torch.equal(trim_labels(pad_labels(table)), table)
    full = torch.randn(1001, 4)
    assert torch.equal(pad_labels(full), full) and torch.equal(trim_labels(full), full)


def vae(channels=4, **changes):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    sizes = dict(block_out_channels=(8,), norm_num_groups=4, latent_channels=channels, scaling_factor=0.5)
    return AutoencoderKL(**{**sizes, **changes}).eval()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm++"])
def test_a_pipeline_there_and_back(tmp_path, scheduler, schedule):
    from diffusers import DiTPipeline

    model, names = make(), [f"class {k}" for k in range(10)]
    sampling = {**LATENTS, "schedule": schedule, "class_names": names, "bins": 17}
    save_diffusers(model, tmp_path, sampling, vae(), scheduler)
    pipe = DiTPipeline.from_pretrained(tmp_path)
    set_frequencies(pipe)
    assert gap(model, pipe.transformer) < 1e-5 and pipe.labels == {name: k for k, name in enumerate(names)}
    ours = Diffusion(schedule).alphas_cumprod
    assert torch.allclose(pipe.scheduler.alphas_cumprod.double(), ours, atol=1e-5)
    again, told = load_diffusers(tmp_path)
    assert same(again, model) and again.config == model.config and told == sampling
    (tmp_path / "sampling.json").unlink()  # as a pipeline made elsewhere
    _, told = load_diffusers(tmp_path)
    assert told == {**sampling, "bins": 256}


@torch.no_grad()
def test_the_pipeline_draws_what_we_draw(tmp_path):
    """DiTPipeline itself, guidance and decoder included, against our sampler and the same decoder."""
    from diffusers import DiTPipeline

    model, decoder = make(), vae()
    save_diffusers(model, tmp_path, LATENTS, decoder)
    pipe = DiTPipeline.from_pretrained(tmp_path)
    set_frequencies(pipe)
    pipe.set_progress_bar_config(disable=True)
    options = dict(class_labels=[3, 7], num_inference_steps=10, guidance_scale=1.5, output_type="pt")
    theirs = pipe(**options, generator=torch.manual_seed(5)).images
    steps, y = Diffusion().respaced("ddim10"), torch.tensor([3, 7])
    latents = ddim_sample(
        steps, Guided(model, 1.5), (2, 4, 8, 8), y, generator=torch.manual_seed(5), progress=False
    )
    ours = (decoder.decode(latents / 0.5).sample / 2 + 0.5).clamp(0, 1)
    assert (ours - theirs).abs().max() < 1e-4 and ours.std() > 0.01


def test_what_diffusers_cannot_express(tmp_path):
    for changes, pattern in (
        ({"block": "adaln"}, "diffusers knows adaLN-Zero.*adaln"),
        ({"block": "cross_attention"}, "cross_attention"),
        ({"input_size": (8, 4)}, "square.*8x4"),
        ({"mlp_ratio": 2.0}, "mlp_ratio 4.*2"),
        ({"num_classes": 1200}, "1000 as the null class.*1200"),
        ({"class_dropout_prob": 0.0}, "null class.*class_dropout_prob"),
    ):
        with complains(pattern):
            save_diffusers(make(**changes), tmp_path / "x", LATENTS)
    with complains("vae has 3 latent channels.*4"):
        save_diffusers(make(), tmp_path / "x", LATENTS, vae(3))
    with complains("shifts its latents by 0.1"):
        save_diffusers(make(), tmp_path / "x", LATENTS, vae(shift_factor=0.1))
    assert not (tmp_path / "x").exists()


def test_transformers_that_are_not_ours(tmp_path):
    from diffusers import DiTTransformer2DModel

    sizes = dict(
        num_attention_heads=2,
        attention_head_dim=16,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=5,
    )
    native = DiTTransformer2DModel(**sizes)
    with complains("blocks differ in t_embedder.mlp.0.weight.*trained in diffusers"):
        from_diffusers(native)
    with complains("activation_fn.*geglu.*gelu-approximate"):
        from_diffusers(DiTTransformer2DModel(**sizes, activation_fn="geglu"))
    with complains("holds no DiT"):
        load_diffusers(tmp_path)
    transformer = to_diffusers(make())
    transformer.save_pretrained(tmp_path)  # a transformer alone
    model, sampling = load_diffusers(tmp_path)
    assert same(model, make()) and sampling == LATENTS
    config = json.loads((tmp_path / "config.json").read_text())  # published models name an older class
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "Transformer2DModel"}))
    assert same(load_any(tmp_path)[0], make())
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with complains("holds no DiT that diffusers can open"):
        load_diffusers(tmp_path)


def test_a_folder_of_diffusers_with_a_hole(tmp_path):
    from safetensors.torch import load_file, save_file

    save_diffusers(make(), tmp_path, LATENTS)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if k != "proj_out_2.bias"}, weights, metadata={"format": "pt"})
    with complains("1 tensors.*proj_out_2.bias"):
        load_diffusers(tmp_path)
    save_file(state, weights, metadata={"format": "pt"})
    (tmp_path / "sampling.json").unlink()
    settings = tmp_path / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "beta_schedule": "scaled_linear"}))
    with complains("scaled_linear.*none of linear, cosine"):
        load_diffusers(tmp_path)
    settings.write_text("[")
    with complains("scheduler_config.json.*not a JSON object"):
        load_diffusers(tmp_path)


# Schedulers of diffusers


def start(shape, seed=1):
    return torch.randn(shape, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("clip", [False, True])
def test_ddim_is_ours(schedule, clip):
    model, diffusion, x_T = make(), Diffusion(schedule), start((6, 4, 8, 8))
    scheduler = make_scheduler({**SAMPLING, "schedule": schedule, "clip_x0": clip}, "ddim")
    guided = Guided(model, 1.5)
    known = dict(x_T=x_T, progress=False)
    ours = ddim_sample(diffusion.respaced("ddim10"), guided, x_T.shape, Y % 10, clip_x0=clip, **known)
    theirs = scheduler_sample(diffusion, guided, x_T.shape, Y % 10, scheduler=scheduler, steps=10, **known)
    assert (ours - theirs).abs().max() / ours.abs().max() < 1e-4 and not ours.isnan().any()


@pytest.mark.parametrize("variance", ["learned", "fixed_small", "fixed_large"])
def test_ddpm_is_ours(variance):
    """The learned variance reaches the one scheduler that takes it; the noise is drawn in the same order."""
    model, diffusion = make(learn_sigma=variance == "learned"), Diffusion(variance=variance)
    scheduler = make_scheduler({**SAMPLING, "variance": variance}, "ddpm")
    known = dict(progress=False, y=Y)
    ours = ddpm_sample(
        diffusion.respaced("ddim10"), model, X.shape, clip_x0=True, generator=torch.manual_seed(3), **known
    )
    theirs = scheduler_sample(
        diffusion, model, X.shape, scheduler=scheduler, steps=10, generator=torch.manual_seed(3), **known
    )
    # Random weights are a rough terrain, and diffusers keeps its tables in float32: hence not 1e-5.
    assert (ours - theirs).abs().max() < 1e-3 and 0.3 < ours.std()
    if variance == "learned":
        known["variance"] = "fixed_small"
        options = dict(clip_x0=True, generator=torch.manual_seed(3), **known)
        other = ddpm_sample(diffusion.respaced("ddim10"), model, X.shape, **options)
        assert (ours - other).abs().max() > 0.05


@pytest.fixture(scope="module")
def judge():
    return DigitClassifier(digits())


@pytest.mark.parametrize("steps,even", [(10, True), (20, True), (20, False)])
def test_dpm_solver_draws_digits(judge, steps, even):
    model, sampling = digit_model()
    labels = torch.arange(10).repeat(8)
    fast = make_scheduler(sampling, "dpm++", use_lu_lambdas=even)
    images = scheduler_sample(
        Diffusion(),
        model.cpu(),
        (80, 1, 8, 8),
        labels,
        scheduler=fast,
        steps=steps,
        generator=torch.manual_seed(0),
        progress=False,
    )
    assert judge.accuracy(images, labels) > 0.95
    assert judge.accuracy(images, (labels + 1) % 10) < 0.1
    assert images.view(8, 10, -1).std(0).mean() > 0.2  # and not one digit eight times


def test_other_schedulers_run():
    import diffusers

    model, x_T, noise = make(), start((2, 4, 8, 8)), {"beta_start": 1e-4, "beta_end": 0.02}
    ends = {}
    for name in (
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "UniPCMultistepScheduler",
        "PNDMScheduler",
    ):
        scheduler, seen = getattr(diffusers, name)(**noise), []
        ends[name] = scheduler_sample(
            Diffusion(),
            model,
            x_T.shape,
            Y[:2],
            scheduler=scheduler,
            steps=8,
            x_T=x_T,
            progress=False,
            callback=lambda i, t, x, seen=seen: seen.append(t),
        )
        assert seen[0] > 850 and seen[-1] < 200 and ends[name].isfinite().all()


def test_schedulers_that_do_not_fit():
    import diffusers

    def tried(pattern, scheduler, diffusion=None):
        with complains(pattern):
            scheduler_sample(diffusion or Diffusion(), make(), X.shape, Y, scheduler=scheduler)

    tried("another noise schedule", diffusers.DDIMScheduler(beta_schedule="scaled_linear"))
    tried("another noise schedule", make_scheduler(SAMPLING), Diffusion().respaced("50"))
    tried("prediction_type", diffusers.DDIMScheduler(prediction_type="v_prediction"))
    tried("FlowMatch.*predicted noise", diffusers.FlowMatchEulerDiscreteScheduler())
    tried("variance_type to None", make_scheduler(SAMPLING, "dpm++", variance_type="learned_range"))
    with complains("scheduler is 'euler'.*ddim, ddpm, dpm"):
        make_scheduler(SAMPLING, "euler")
    with complains("train"):
        scheduler_sample(Diffusion(), make().train(), X.shape, Y, scheduler=make_scheduler(SAMPLING))


# The Hub


def test_revisions_of_a_hub_folder(tmp_path):
    """The real reader of the Hub, on a cache laid out as the Hub's client lays it out; nothing is fetched."""
    place, models = tmp_path / "models--user--name", {"main": make(0), "v1": make(1)}
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        save_model(models[revision], place / "snapshots" / commit, {**SAMPLING, "bins": len(revision)})
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit)
    cached = dict(cache_dir=tmp_path, local_files_only=True)
    for revision, wanted in ((None, "main"), ("v1", "v1"), ("b" * 40, "v1")):
        assert same(DiT.from_pretrained("user/name", revision=revision, **cached), models[wanted])
        model, sampling = load_model("user/name", revision=revision, **cached)
        assert same(model, models[wanted]) and sampling["bins"] == len(wanted)
    with complains("user/name.*Hub"):
        DiT.from_pretrained("user/name", revision="v2", **cached)


def test_truncated_weights(tmp_path):
    save_model(make(), tmp_path, SAMPLING)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for kept in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:kept])
        with complains("model.safetensors cannot be read"):
            load_model(str(tmp_path))


def test_the_card_says_what_the_model_is(tmp_path):
    facts = {"command": "dit-nb digits --steps 7", "data": "real digits", "metrics": {"accuracy": 0.993}}
    save_model(make(), tmp_path / "a", {**SAMPLING, **facts})
    make(num_classes=0).save_pretrained(tmp_path / "b")
    card, plain = ((tmp_path / name / "README.md").read_text() for name in "ab")
    for words in (
        "arxiv.org/abs/2212.09748",
        "Blocks: adaln_zero, depth 2, width 32, heads 2",
        "Classes: 10",
        *facts.values(),
    ):
        assert str(words) in card or words == facts["metrics"], words
    assert "| accuracy | 0.993 |" in card
    assert "Classes: none" in plain and "not recorded" in plain
    for text in (card, plain):
        assert not re.search("More Information|{{|%}|apache", text) and text.startswith(
            "---\nlibrary_name: dit_nb"
        )


def test_pushing_sends_all_that_sampling_needs(monkeypatch):
    sent = {}

    class Api:
        def __init__(self, token=None):
            sent["token"] = token

        def create_repo(self, repo_id, **options):
            return argparse.Namespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, **options):
            sent.update(options, repo=repo_id, files=sorted(os.listdir(folder_path)))
            sent["card"] = (folder_path / "README.md").read_text()
            return "https://a.hub/commit"

    monkeypatch.setattr("dit_nb.pretrained.HfApi", Api)
    assert (
        push_model(make(), "user/name", {**SAMPLING, "command": "x"}, token="t", revision="v2")
        == "https://a.hub/commit"
    )
    assert sent["files"] == ["README.md", "config.json", "model.safetensors", "sampling.json"]
    assert (sent["repo"], sent["token"], sent["revision"]) == ("user/name", "t", "v2")
    assert 'load_model("user/name")' in sent["card"]


# From the command line


@pytest.mark.parametrize("channels, clipped", [(1, True), (3, True), (4, False)])
def test_official_models_of_pixels_are_clipped(tmp_path, channels, clipped):
    model = DiT(DiTConfig(8, 2, channels, 384, 1, 6, num_classes=10))
    save_official(model, tmp_path / "m.pt")
    assert load_official(tmp_path / "m.pt")[1]["clip_x0"] is clipped


def test_convert_goes_around(tmp_path, capsys):
    home = tmp_path / "home"
    save_model(make(), home, {**LATENTS, "class_names": list("abcdefghij")})
    vae().save_pretrained(tmp_path / "vae")
    steps = (
        [home, "a.pt", "official", "--training"],
        ["a.pt", "b", "diffusers", "--vae", str(tmp_path / "vae")],
        ["b", "c", "dit_nb"],
        ["c", "d.pt", "official"],
    )
    for source, target, to, *rest in steps:
        assert main(["convert", str(tmp_path / source), str(tmp_path / target), "--to", to, *rest]) == 0
    model, sampling = load_any(tmp_path / "c")
    assert same(model, make()) and sampling["class_names"] == list("abcdefghij")
    assert same(load_any(tmp_path / "d.pt", num_heads=2)[0], make())
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "b", "c", "d.pt", "home", "vae"]
    assert "Converted from" in (tmp_path / "c" / "README.md").read_text()
    capsys.readouterr()
    for words, pattern in (
        (["d.pt", "e", "--to", "dit_nb"], "pass num_heads"),
        (["home", "c", "--to", "diffusers"], "there already"),
        (["home", "e", "--to", "diffusers", "--vae", str(tmp_path / "nowhere")], "vae .*cannot be opened"),
        (["home", "e.pt", "--to", "official", "--vae", "nowhere"], "only diffusers"),
    ):
        words[:2] = [str(tmp_path / word) for word in words[:2]]
        assert main(["convert", *words]) == 2
        assert re.search(pattern, capsys.readouterr().err)
    with complains("'jax'.*official, diffusers, dit_nb"):
        convert(home, tmp_path / "e", "jax")
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "b", "c", "d.pt", "home", "vae"]
    assert read_checkpoint(tmp_path / "d.pt").keys() == official_state(make()).keys()
