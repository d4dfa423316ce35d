"""dit-nb train --captions: a model of texts, resumed, sampled, in two processes, and what is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dit_nb import DiT
from dit_nb.cli import _read_options, main
from dit_nb.commands.captions import _check_caption_options, _read_texts
from dit_nb.commands.data import _open_data
from dit_nb.data import emoji
from dit_nb.pretrained import load_model
from dit_nb.since.mmdit import MMDiT
from dit_nb.speed import _compile_for_training, _SigmoidGELU

TINY = "--patch-size 4 --hidden-size 16 --depth 2 --num-heads 2 --batch-size 4 --precision fp32".split()
COLORS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve squares in three colors; the caption of every other one says on which side it is."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        (color, rgb), side = list(COLORS.items())[i % 3], i % 2
        pixels = np.full((8, 8, 3), 255, np.uint8)
        pixels[2:6, 4 * side : 4 * side + 4] = rgb
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        text = f"A {color} square" + (", at the right, very bright" if side else "")
        (folder / f"{i:02d}.txt").write_text(text)
    return folder


def words(pictures, out, *more) -> list[str]:
    line = ["train", "--data", pictures, "--image-size", 8, "--captions", "--out", out, *TINY, *more]
    return [str(word) for word in line]


RUN = [
    "--lr",
    0.01,
    "--ema-decay",
    0.5,
    "--flip",
    "--word-dropout",
    0.3,
    "--save-every",
    2,
    "--sample-every",
    2,
]
RUN += ["--crop", "random", "--val-fraction", 0.2, "--validate-every", 2]


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert main(words(pictures, out, *RUN, "--steps", 4)) == 0
    return out


def weights(run) -> dict:
    last = run / "checkpoints" / "step-00000004"
    files = [last / "model.safetensors", last / "ema.safetensors", run / "model" / "model.safetensors"]
    return {f"{i} {name}": w for i, file in enumerate(files) for name, w in load_file(file).items()}


def test_a_run_that_was_stopped_is_continued_with_the_same_weights(run, pictures, tmp_path, error_of):
    assert main(words(pictures, tmp_path, *RUN, "--steps", 2)) == 0
    assert main(words(pictures, tmp_path, *RUN, "--steps", 4, "--resume")) == 0
    whole, parts = weights(run), weights(tmp_path)
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert (run / "samples.png").read_bytes() == (tmp_path / "samples.png").read_bytes()
    more = [*RUN, "--steps", 6, "--resume"]
    assert "word_dropout is 0.1" in error_of(*words(pictures, tmp_path, *more, "--word-dropout", 0.1))
    shutil.copytree(pictures, tmp_path / "others")
    (tmp_path / "others" / "00.txt").write_text("square red a")  # the same words
    assert "data has other images" in error_of(*words(tmp_path / "others", tmp_path, *more))
    (tmp_path / "others" / "00.txt").write_text("a pink square")
    assert "captions have other words than in checkpoint" in error_of(
        *words(tmp_path / "others", tmp_path, *more)
    )


def test_what_a_run_writes(run):
    names = sorted(path.name for path in (run / "samples").iterdir())
    assert names == ["step-00000002.png", "step-00000004.png"] and (run / "samples.png").is_file()
    assert len((run / "validation.csv").read_text().splitlines()) == 3
    model, sampling = load_model(run)
    assert type(model) is MMDiT and model.config.text_length == 16 and not model.config.learn_sigma
    assert model.config.vocabulary[:2] == ("a", "square") and "right" in model.config.vocabulary
    assert (sampling.objective, sampling.cfg_scale, sampling.class_names) == ("flow", 3.0, None)
    card = (run / "model" / "README.md").read_text()
    assert "conditioned on texts of" in card and 'model.encode_text(["a ' in card and "--captions" in card


def test_sample_by_prompt(run, tmp_path, error_of):
    few = ["--steps", "2", "--num-samples", "4"]
    for source in (run, run / "model"):
        out = tmp_path / f"{source.name}.npz"
        prompts = ["--prompt", "a red square", "blue square, right"]
        assert main(["sample", str(source), *prompts, *few, "--out", str(out)]) == 0
        assert np.load(out)["arr_0"].shape == (4, 8, 8, 3)
    sample = ["sample", run, *few, "--out", tmp_path / "x.png"]
    assert "'squere', which is not among" in error_of(*sample, "--prompt", "a red squere")
    assert "prompt is missing" in error_of(*sample)
    assert "class is 'red', but must not be given" in error_of(*sample, "--class", "red")


def test_other_commands_refuse_a_model_of_texts(run, tmp_path, error_of):
    assert "a model of texts" in error_of("evaluate", run, "digits")
    for kind in ("official", "diffusers"):
        assert "MMDiT" in error_of("convert", run, tmp_path / kind, "--to", kind)
    assert "MMDiT" in error_of("export", run, tmp_path / "x.onnx")
    assert "MMDiT" in error_of("export", run, tmp_path / "x", "--format", "browser")
    again = ["train", "--data", "digits", "--init-from", run, "--steps", 1, "--out", tmp_path / "y"]
    assert "MMDiT" in error_of(*again) or "channels" in error_of(*again)


def described(pictures, *more) -> list[str]:
    from dit_nb.image_files import open_images

    options = _check_caption_options(_read_options(words(pictures, "x", *more, "--steps", 1)))
    return _read_texts(options, open_images(pictures, 8, captions=True)).describe().splitlines()


def test_what_was_found_is_told(pictures):
    lines = [line.strip() for line in described(pictures)]
    assert lines[:2] == ["12 captions of 3 to 8 words", "10 different words, 0 of them only once"]
    assert lines[2].startswith(
        "to sample: a red square | a green square at the right very bright | a blue square"
    )
    lines = [line.strip() for line in described(pictures, "--text-length", 5, "--min-count", 5, "--flip")]
    assert lines[1:4] == [
        "10 different words, 0 of them only once, 7 of them often enough to be known",
        "6 captions are cut to text_length, 5 words",
        "6 of the images are mirrored, too; 6 are not: their captions tell of a direction or letters",
    ]
    assert described(pictures, "--prompt", "red", "very blue")[-1].strip() == "to sample: red | very blue"


def test_emoji_by_category(tmp_path, capsys):
    line = "train --data emoji --categories travel --captions --flip --text-length 12 --steps 1 --prompt flat"
    line += f" --save-every none --sample-every none --out {tmp_path}"
    assert main([*line.split(), *TINY]) == 0
    model, travel = DiT.from_pretrained(tmp_path / "model"), emoji(["travel"]).train
    text = capsys.readouterr().out
    assert f"{len(travel)} captions of" in text and "to sample: flat" in text
    assert "\nrun: 1 steps of 4 images, no forecast of memory and time: " in text
    assert f"  {len(travel.with_mirror_images()) - len(travel)} of the images are mirrored, too; " in text
    assert model.config.input_size == 32 and set(model.config.vocabulary[:2]) == {"flat", "3d"}


@pytest.mark.parametrize(
    "more, named",
    [
        ("--objective diffusion", "objective is diffusion, but must be flow with captions"),
        ("--block modern", "block is modern, but must not be given with captions"),
        ("--learn-sigma", "learn_sigma is True, but must not be given with captions"),
        ("--init-from digits", "init_from is digits, but must not be given with captions"),
        ("--schedule cosine", "schedule is cosine, but must not be given: the objective is flow"),
        ("--label-column text", "label_column is text, but must not be given with captions"),
        ("--balanced", "data has no classes"),
        ("--text-length 0", "text_length is 0"),
        ("--word-dropout 1", "word_dropout is 1.0"),
        ("--min-count 99", "min_count is 99, but no word"),
        ("--prompt purple", "prompt has the word 'purple'"),
        ("--categories travel", "categories is travel, but must not be given for"),
        ("--no-captions --text-length 3", "text_length is 3, but must not be given without captions"),
    ],
)
def test_options_that_do_not_fit(more, named, pictures, tmp_path, error_of):
    assert named in error_of(*words(pictures, tmp_path, *more.split(), "--steps", 1))


@pytest.mark.parametrize(
    "data, named",
    [
        ("--data digits", "captions is True, but must not be given for digits"),
        ("--data stream:x --image-size 8", "captions is True, but must not be given for a stream"),
        ("--latents x", "captions is True, but latents have none"),
        ("--data emoji --caption-column text", "captions is text, but must not be given for emoji"),
    ],
)
def test_data_without_captions(data, named, tmp_path, error_of):
    assert named in error_of("train", *data.split(), "--captions", "--steps", 1, "--out", tmp_path)


def test_no_null_text_means_no_guidance(pictures, tmp_path):
    few = ["--steps", 1, "--save-every", "none", "--sample-every", "none", "--class-dropout-prob", 0]
    assert main(words(pictures, tmp_path, *few)) == 0
    assert load_model(tmp_path / "model")[1].cfg_scale == 1.0


@pytest.mark.xdist_group("processes")
def test_two_processes_do_what_one_does(run, pictures, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = [Path(sys.executable).with_name("torchrun"), "--nproc_per_node", "2", "-m", "dit_nb.cli"]
    done = subprocess.run(
        [*start, *words(pictures, tmp_path, *RUN, "--steps", 4)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("captions of") == 1, "only the main process prints"
    one, two = weights(run), weights(tmp_path)
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-5


def test_compiled_training_on_a_cpu_has_the_faster_gelu_in_both_streams(run):
    model, _ = load_model(run, device="cpu")
    _compile_for_training(model)
    full, last = model.blocks
    kinds = [type(full.image.mlp.act), type(full.text.mlp.act), type(last.image.mlp.act)]
    assert kinds == [_SigmoidGELU] * 3


def test_texts_to_sample_have_known_words_alone(tmp_path):
    """Also those of the model card: rare words are unknown, and a caption may have none at all."""
    for name, text in {"a": "!!!", "b": "zebra red cat", "c": "red cat", "d": "red dog cat"}.items():
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)
    line = words(tmp_path, tmp_path / "run", "--steps", 1, "--min-count", 2)
    options = _check_caption_options(_read_options(line))
    texts = _read_texts(options, _open_data(options)[0])
    assert texts.prompts == ["red cat"]
