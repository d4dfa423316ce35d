"""Options: what tyro reads into them, and that names, types and help agree with the settings they stand for."""

from dataclasses import asdict, fields
from typing import get_args, get_type_hints

import pytest

from dit_nb.cli import _read_options
from dit_nb.commands.digits import _DIGITS_MODEL, digits_config
from dit_nb.commands.options import Build, Diffusion, Digits, DigitsModel, Sampling, Shape, Training
from dit_nb.config import DiTConfig, SamplingConfig, TrainConfig
from dit_nb.lab.benchmark_jobs import _MODELS

TRAIN = "train --data digits --out x"


def read(line: str):
    return _read_options(line.split())


def refused(line: str, capsys) -> str:
    """What the command line prints about invalid options."""
    with pytest.raises(SystemExit) as stop:
        read(line)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_fields_are_options_without_a_prefix():
    options = read(
        f"{TRAIN} --steps 5 --lr 2e-3 --hidden-size 32 --grad-accum-steps 2 --num-workers 1 --bins 5"
    )
    assert options.data == "digits" and options.latents is None and options.diffusion == {"bins": 5}
    training = TrainConfig(**vars(options.training))
    assert (training.steps, training.lr, training.grad_accum_steps, training.num_workers) == (5, 2e-3, 2, 1)
    assert (training.save_every, training.sample_every, training.keep) == (1000, 1000, 3)


def test_only_what_is_given_overrides():
    assert read(TRAIN).shape == {} and read("sample m").sampling == {}
    assert read(f"{TRAIN} --no-learn-sigma --depth 3").shape == {"learn_sigma": False, "depth": 3}
    given = read("sample m --guided-channels none --clip-x0 --cfg-scale -1 --steps 10,15,20").sampling
    assert given == {"guided_channels": None, "clip_x0": True, "cfg_scale": -1.0, "steps": "10,15,20"}


def test_none_is_accepted_where_the_field_allows_it(capsys):
    assert read(f"{TRAIN} --save-every none --grad-clip none").training.save_every is None
    assert read("sample m --preset none --class none").label is None
    assert read("sample m --class 3").label == "3" and read("digits --steps 7").steps == 7
    assert "--lr" in refused(f"{TRAIN} --lr none", capsys)


def test_lists_and_actions():
    bench = read("bench growth --config S/2 B/2 --job train sample --compile")
    assert (bench.what, bench.config, bench.job) == ("growth", ("S/2", "B/2"), ("train", "sample"))
    assert bench.compile and read("bench").job == ("train",)
    assert read("assignment build a1 a2 --out c").action == Build(("a1", "a2"), "c")


@pytest.mark.parametrize(
    "line, named",
    [
        ("train --lrr 3", "--lrr"),
        ("train --lrr 3", "--out"),
        ("train --data x --out y --lr abc", "'abc'"),
        ("train --data x --latents y --out z", "--latents"),
        ("train --out z", "--data"),
        ("digits --steps 1.5", "'1.5'"),
        (f"{TRAIN} --schedule round", "'round'"),
        ("sample m --preset mine", "'mine'"),
        ("digit", "digits"),
        ("", "digits"),
    ],
)
def test_invalid_options_are_named(line, named, capsys):
    assert named in refused(line, capsys)


def test_options_agree_with_the_settings_they_change():
    """Same names; the type of an option is one of the types of its field."""
    for options, config in ((Shape, DiTConfig), (Diffusion, SamplingConfig), (Sampling, SamplingConfig)):
        wanted = get_type_hints(config)
        for name, kind in get_type_hints(options).items():
            kinds = {
                type(choice) if isinstance(choice, str) else choice for choice in get_args(kind) or [kind]
            }
            choices = get_args(wanted.get(name))
            inner = (part for choice in choices for part in get_args(choice))  # of tuple[str, ...] | None
            known = {wanted.get(name), *choices, *inner, *(type(choice) for choice in choices)}
            assert name in ("num_samples", "vae") or kinds <= known, name
    assert {f.name for f in fields(DiTConfig)} - set(Shape.__annotations__) == {
        "input_size",
        "in_channels",
        "num_classes",
    }
    for subclass in (Training, DigitsModel):
        assert [f.name for f in fields(subclass)] == [f.name for f in fields(subclass.__mro__[1])]


def test_defaults_of_digits_are_those_of_its_function():
    options, config = Digits(), digits_config()
    for name in ("seconds", "seed", "batch_size", "lr", "warmup_steps", "ema_decay"):
        assert getattr(options, name) == getattr(config, name), name
    assert DiTConfig(**asdict(options.model)) == _DIGITS_MODEL


def test_help_names_the_models_of_the_benchmark(capsys):
    with pytest.raises(SystemExit):
        read("bench --help")
    assert ", ".join(_MODELS) in " ".join(capsys.readouterr().out.replace("│", "").split())
