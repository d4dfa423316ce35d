"""Options of `dit-nb`, a dataclass for each command. Docstrings and comments are the help. Imports no torch."""

import os
from dataclasses import dataclass, replace
from types import NoneType
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_args

from tyro import conf
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from dit_nb.config import DiTConfig, TrainConfig

__all__ = []

_registry = ConstructorRegistry()


@_registry.primitive_rule
def _read_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    "How tyro reads an option of type X | None: as an X, or `none`."
    kind, *rest = get_args(info.type) or [None]
    if rest != [NoneType] or conf.DisallowNone in info.markers:
        return None
    spec: Any = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    return replace(
        spec,
        metavar=f"{spec.metavar}|none",
        choices=spec.choices and (*spec.choices, "none"),
        instance_from_str=lambda words: None if words == ["none"] else spec.instance_from_str(words),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["none"] if value is None else spec.str_from_instance(value),
    )


def _hint(text: str) -> Any:
    return conf.arg(help_behavior_hint=text)


def _read_resume(words: list[str]) -> str:
    if words in (["auto"], ["no"], []):
        return words[0] if words else "yes"
    raise ValueError(f"resume is {' '.join(words)}, but must be auto, or have no value.")


_ResumeSpec = PrimitiveConstructorSpec(
    nargs="*",  # --resume or --resume auto
    metavar="[auto]",
    instance_from_str=_read_resume,
    is_instance=lambda value: isinstance(value, str),
    str_from_instance=lambda value: [value],
)
_Resume = Annotated[Literal["no", "yes", "auto"], _ResumeSpec]
_T = TypeVar("_T")
_OfModel = Annotated[_T, _hint("(default: that of --model)")]
_Saved = Annotated[_T, _hint("(default: as saved with the model)")]
_ClassFolder = Literal["first", "last", "path"] | None
_Names = Annotated[conf.Positional[tuple[str, ...]], _hint("(required)")]
_Objective = Annotated[Literal["diffusion", "flow", "mean_flow"], _hint("(default: diffusion)")]
_Target = Annotated[Literal["velocity", "image", "noise"], _hint("(default: velocity)")]
_Density = Annotated[Literal["logit_normal", "uniform"], _hint("(default: logit_normal)")]
_Source = Annotated[_T, conf.create_mutex_group(required=True, title="data"), conf.DisallowNone, _hint("")]


@dataclass(frozen=True)
class DigitsModel(DiTConfig):
    "A DiTConfig whose checks are left to the command. The data fix three fields, which are no options."

    input_size: conf.Suppress[int] = 8
    in_channels: conf.Suppress[int] = 1
    num_classes: conf.Suppress[int] = 10

    def __post_init__(self): ...


@dataclass(frozen=True)
class Digits:
    "train on handwritten digits, sample new ones, and evaluate them"

    out: str = "runs/digits"  # output folder
    seconds: float = 60.0  # training time in seconds
    steps: int | None = None  # number of updates, instead of a time: repeats exactly
    seed: int = 0  # seed of training and sampling
    batch_size: int = 128  # images per update
    lr: float = 7e-3  # learning rate of AdamW
    warmup_steps: int = 50  # updates over which the learning rate rises from 0
    ema_decay: float = 0.99  # decay of the averaged weights (EMA), after its warm-up
    model: DigitsModel = DigitsModel(8, 4, 1, 128, 2, 4, init="scaled")  # size and blocks
    command: conf.Suppress[str] = ""  # the command line, for the model card


@dataclass(frozen=True)
class EmojiModel(DigitsModel):
    "A DiTConfig for emoji. The data fix three fields, which are no options."

    input_size: conf.Suppress[int] = 32
    in_channels: conf.Suppress[int] = 3
    num_classes: conf.Suppress[int] = 16


@dataclass(frozen=True)
class Emoji:
    "train on emoji, sample new ones of each category and style, and evaluate them"

    out: str = "runs/emoji"  # output folder
    categories: tuple[str, ...] = ("smileys",)  # categories of emoji to train on
    all: bool = False  # train on all eight categories instead: give --steps for a night, such as 100000
    seconds: float = 480.0  # training time in seconds, unless --steps is given
    steps: int | None = None  # number of updates, instead of a time: repeats exactly
    seed: int = 0  # seed of training and sampling
    batch_size: int = 16  # images per update
    lr: float = 1e-3  # learning rate of AdamW
    warmup_steps: int = 100  # updates over which the learning rate rises from 0
    ema_decay: float = 0.998  # decay of the averaged weights (EMA), after its warm-up
    save_every: int | None = None  # updates between checkpoints in --out; none: no checkpoints
    resume: bool = False  # continue from the last checkpoint in --out
    compile: bool = False  # use torch.compile: slow to start, then faster
    model: EmojiModel = EmojiModel(32, 4, 3, 192, 6, 6, init="scaled")  # size and blocks
    command: conf.Suppress[str] = ""  # the command line, for the model card


@dataclass(frozen=True)
class Training(TrainConfig):
    "A TrainConfig with the defaults of the command. Its checks are left to the command."

    save_every: int | None = 1000
    sample_every: int | None = 1000
    validate_every: int | None = 1000

    def __post_init__(self): ...


class Shape(TypedDict, total=False):  # of a TypedDict that is not total, tyro fills only what is given
    "shape of the model, where it differs from --model"

    patch_size: _OfModel[int]  # side of a patch, p
    hidden_size: _OfModel[int]  # width of a token, D; a multiple of num_heads and of 4
    depth: _OfModel[int]  # number of blocks
    num_heads: _OfModel[int]  # attention heads, h
    mlp_ratio: _OfModel[float]  # hidden width of an MLP, in units of hidden_size
    class_dropout_prob: _OfModel[float]  # probability of the null class or text in training; 0: no guidance
    learn_sigma: _OfModel[bool]  # predict the variance too, in C more output channels
    block: _OfModel[str]  # conditioning block: in_context, cross_attention, adaln, adaln_zero or modern
    init: _OfModel[Literal["paper", "scaled"]]  # initialization; scaled: small widths, short runs (lesson 19)
    switches: _OfModel[tuple[str, ...]]  # parts of the modern block that are on; all if not given (lesson 31)


@dataclass(frozen=True)
class FineTuning:
    "fine-tuning: which parameters are trained"

    freeze: tuple[str, ...] = ()  # patterns of names; backbone: all but modulation, biases and labels
    unfreeze: tuple[str, ...] = ()  # patterns of names of parameters to train all the same
    lora_rank: int | None = None  # rank of low-rank adapters (LoRA; needs peft); none: no adapters
    lora_alpha: float | None = None  # numerator of the adapters' scale alpha / rank; none: the rank
    lora_targets: tuple[str, ...] = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # layers to adapt


class Diffusion(TypedDict, total=False):
    "diffusion process or flow; the defaults are those of --init-from, if given"

    objective: _Objective  # diffusion predicts noise, flow the velocity (lesson 30); mean_flow: lesson 35
    time_density: _Density  # density of the flow times in training
    time_shift: Annotated[float, _hint("(default: 1)")]  # factor of noise over signal at the flow times
    predicts: _Target  # what the network of a flow predicts (lesson 32)
    schedule: Annotated[Literal["linear", "cosine"], _hint("(default: linear)")]  # noise schedule
    num_timesteps: Annotated[int, _hint("(default: 1000)")]  # timesteps of training, T
    bins: Annotated[int, _hint("(default: 256; 17 for digits)")]  # number of values that a pixel can take


@dataclass(frozen=True)
class Captions:
    "captions: a model of texts (MM-DiT with flow, lesson 33) instead of classes"

    captions: bool = False  # train on captions: of a table, of text files beside the images, or of emoji
    caption_column: str | None = None  # column of the table with the captions; none: text, caption or prompt
    text_length: int | None = None  # most words of a text; none: the longest caption's, but 16 to 64
    min_count: int = 1  # how often a word must occur in the captions to be known
    word_dropout: float = 0.05  # probability of reading a word as an unknown one, in training
    prompt: tuple[str, ...] = ()  # texts of the sample images; none: some of the captions


@dataclass(frozen=True)
class Train:
    "train a DiT on images or latents, from scratch or from a trained model"

    out: str  # output folder: checkpoints, samples and the model
    shape: Shape  # shape of the model, where it differs from --model
    diffusion: Diffusion  # diffusion process or flow; the defaults are those of --init-from, if given
    data: _Source[str | None] = None  # folder of images or of subfolders by class; hub:NAME; digits; or emoji
    latents: _Source[str | None] = None  # folder of latents that dit-nb encode wrote
    resume: _Resume = "no"  # continue from the last checkpoint in --out; auto: if there is one
    change: tuple[str, ...] = ()  # settings that may differ from the checkpoint's on --resume, such as lr
    init_from: str | None = None  # folder of a model, run or checkpoint, .pt file, or Hub id to start from
    init_weights: Literal["ema", "model"] = "ema"  # weights of a checkpoint to start from: averaged or raw
    image_size: str | None = None  # side to crop images to, or HEIGHTxWIDTH, in pixels; needed for folders
    channels: int = 3  # image channels: 3, or 1 for grayscale
    crop: Literal["center", "random"] = "center"  # part of each image; random: another one each time
    split: str | None = None  # split of the data; none: train, if there are splits
    class_folder: _ClassFolder = None  # which of nested folders names the class
    label_column: str | None = None  # column of the table with the classes; none: label, labels or class
    categories: tuple[str, ...] = ()  # categories of emoji; all if not given
    balanced: bool = False  # use as many images of each class, by repeating those of smaller classes
    val_fraction: float = 0.0  # part of the images to hold out of training, for the validation loss
    val_split: str | None = None  # split of the data for the validation loss, instead of a fraction
    skip_bad: bool = False  # skip images that cannot be read
    model: str | None = None  # DiT-S/8 to DiT-XL/2 of the paper; none: DiT-S/4; small for digits, emoji
    variance: Literal["fixed_small", "fixed_large"] = "fixed_small"  # for --no-learn-sigma
    finetuning: FineTuning = FineTuning()  # which parameters are trained
    texts: Captions = Captions()  # captions instead of classes: a text-to-image model (lesson 33)
    training: Training = Training()  # exactly one of --steps and --seconds is required
    tf32: bool = False  # let GPUs multiply float32 numbers as TF32: faster, 10 bits of precision
    command: conf.Suppress[str] = ""  # the command line, for the model card


class Sampling(TypedDict, total=False):
    "sampling settings; the defaults are those saved with the model"

    num_samples: Annotated[int, _hint("(default: 16)")]  # number of images
    sampler: _Saved[Literal["ddpm", "ddim", "dpm++", "euler", "heun", "stochastic"]]  # last three: of a flow
    steps: _Saved[str]  # sampling steps: 250, or 10,15,20, or ddim50; for dpm++ 20 if not given
    cfg_scale: _Saved[float]  # guidance scale; 1 is no guidance
    guided_channels: _Saved[int | None]  # number of eps channels to guide; official code: 3; none: all
    variance: _Saved[Literal["learned", "fixed_small", "fixed_large"]]  # variance of a DDPM step
    clip_x0: _Saved[bool]  # clip the predicted clean image to [-1, 1]
    time_shift: _Saved[float]  # factor of noise over signal at the times of a flow
    vae: _Saved[str]  # folder or Hub id of the autoencoder of a latent model


@dataclass(frozen=True)
class Sample:
    "sample images from a trained model"

    sampling: Sampling  # override the preset, and what is saved with the model
    model: conf.Positional[str] = ""  # folder, file or Hub id; or digits, emoji, few-step-emoji, text-emoji
    label: Annotated[str | None, conf.arg(name="class")] = None  # class name, number or random; none: in turn
    prompt: tuple[str, ...] = ()  # texts, in turn, for a model of texts
    out: str = "samples.png"  # image, .npz file or folder to write
    overwrite: bool = False  # replace an existing file
    weights: Literal["ema", "model"] = "ema"  # weights of a checkpoint: averaged or raw
    seed: int = 0  # seed of the noise and of random classes
    preset: Literal["paper"] | None = None  # 50,000 images of random classes, 250 steps, guidance 1.5
    precision: Literal["fp32", "bf16"] = "fp32"  # number format; bf16 is faster if the hardware supports it
    batch_size: int = 64  # images per process and batch
    tf32: bool = False  # let GPUs multiply float32 numbers as TF32: faster, 10 bits of precision


@dataclass(frozen=True)
class Encode:
    "encode images, and their mirror images, into latents of an autoencoder"

    images: conf.Positional[str]  # folder of images or of subfolders by class; hub:NAME; digits; or emoji
    out: str  # output folder; an interrupted run is resumed
    vae: str = "stabilityai/sd-vae-ft-ema"  # folder or Hub id of an autoencoder of diffusers
    image_size: str | None = None  # side to crop images to, or HEIGHTxWIDTH; none: 256 pixels or the data's
    split: str | None = None  # split of the images; none: train, if there are splits
    class_folder: _ClassFolder = None  # which of nested folders names the class
    label_column: str | None = None  # column of the table with the classes; none: label, labels or class
    scale: str | None = None  # factor of the latents, or channels: measure each; none: the autoencoder's own
    batch_size: int = 32  # images per batch
    num_workers: int = 0  # processes that load images
    dtype: Literal["fp32", "bf16"] = "fp32"  # number format of the autoencoder; bf16 is faster on a GPU
    tf32: bool = False  # let GPUs multiply float32 numbers as TF32: faster, 10 bits of precision
    tiling: bool = False  # encode large images in tiles: less memory, faint seams
    skip_bad: bool = False  # skip images that cannot be read


@dataclass(frozen=True)
class Evaluate:
    "compare samples with real images: Fréchet distances, inception score, precision, recall"

    samples: conf.Positional[str]  # folder of images, .npz file, digits, emoji, or a model or checkpoint
    reference: conf.Positional[str]  # real images in the same forms, or an .npz file with ADM's statistics
    features: Literal["inception", "digits", "emoji"] | None = None  # none: digits for images of 1x8x8
    weights: str | None = None  # local file of Inception's weights; none: downloaded once
    image_size: str | None = None  # side to crop images in folders to, or HEIGHTxWIDTH; none: as the samples
    split: str | None = None  # split of the reference; none: train, if there are splits
    batch_size: int = 64  # images per batch of feature extraction
    max_features: int = 10_000  # features kept for precision, recall and intervals; ADM keeps 50000
    k: int = 3  # k for the k-NN radii of precision and recall
    resamples: int = 200  # random halves for the intervals, for Inception 5 s of a core each; 0: none
    level: float = 0.95  # confidence level of the intervals
    num_samples: int = 1000  # images to sample if samples is a model; the distance depends on their number
    model_weights: Literal["ema", "model"] = "ema"  # weights of a checkpoint: averaged or raw
    seed: int = 0  # seed of the kept features, the random halves, and the samples of a model
    tf32: bool = False  # let GPUs multiply float32 numbers as TF32: faster, 10 bits of precision
    json: bool = False  # print JSON instead of a table


@dataclass(frozen=True)
class Convert:
    "convert a model from or to the official format or diffusers"

    source: conf.Positional[str]  # folder of a model, run, checkpoint or pipeline, .pt file, or Hub id
    target: conf.Positional[str]  # output: a .pt file for official, else a folder; must not exist yet
    to: Literal["official", "diffusers", "dit_nb"]  # format to write
    vae: str | None = None  # folder or Hub id of an AutoencoderKL to add to a diffusers pipeline
    training: bool = False  # write an official checkpoint with model, ema, opt and args
    num_heads: int | None = None  # heads of an official checkpoint whose width is not that of S, B, L or XL
    num_classes: int | None = None  # number of classes of an official checkpoint without a null class
    weights: Literal["ema", "model"] = "ema"  # weights of a checkpoint: averaged or raw
    revision: str | None = None  # branch, tag or commit of a Hub id; none: main


@dataclass(frozen=True)
class Export:
    "export a model for other programs than PyTorch"

    model: conf.Positional[str]  # folder such as runs/digits/model, official .pt file, or Hub id
    target: conf.Positional[str]  # file to write; must not exist yet
    format: Literal["onnx", "browser"] = "onnx"  # onnx: the network; browser: weights for site/live/dit.js
    weights: Literal["ema", "model"] = "ema"  # weights of a checkpoint: averaged or raw


@dataclass(frozen=True)
class List:
    "list all assignments: titles, exercises, points, minutes"


@dataclass(frozen=True)
class Build:
    "build an nbgrader course: sources, and releases to hand out"

    names: _Names  # names of assignments, such as a1 a2, or all
    out: str  # output folder of the course
    install: str | None = None  # URL of a version of dit_nb that the notebook installs, as on Colab
    colab: str | None = None  # address on GitHub of the notebook, for a button that opens it in Colab


@dataclass(frozen=True)
class Release:
    "make the notebook to hand out from a source that was edited"

    name: conf.Positional[str]  # name of an assignment, such as a1
    course: str  # folder of the course that build wrote


_From = Annotated[Literal["folder", "moodle", "canvas"], conf.arg(name="from")]
_Roster = Annotated[_T, _hint("(default: roster.csv of the course, if there is one)")]


@dataclass(frozen=True)
class Grade:
    "grade the submissions of a class: points, feedback pages, a table; status 3: some, 4: none could be graded"

    name: conf.Positional[str]  # name of an assignment, such as a1
    course: str  # folder of the course that build wrote
    submissions: str | None = None  # folder of notebooks, or zip file; none: submitted/ of the course
    source: _From = "folder"  # how the files are named: by student, or as a platform's download
    roster: _Roster[str | None] = None  # CSV file of the class: id, name, email; or a platform's export
    student: tuple[str, ...] = ()  # students to grade; all if none are given
    jobs: int = min(2, os.cpu_count() or 1)  # notebooks that run at the same time
    seconds: float = 60.0  # time limit of a cell in seconds
    sandbox: bool = False  # run without network, home folder and course (Linux with bubblewrap)
    memory: float = 8.0  # memory of a notebook in the sandbox, in GiB


@dataclass(frozen=True)
class Publish:
    "write table, feedback pages and class page again, as after grading by hand, and files for a platform"

    name: conf.Positional[str]  # name of an assignment, such as a1
    course: str  # folder of the course
    to: Literal["moodle", "canvas", "none"] = "none"  # platform whose table of grades is written
    roster: _Roster[str | None] = None  # CSV file of the class: id, name, email; or a platform's export


@dataclass(frozen=True)
class Preview:
    "write what a student gets"

    name: conf.Positional[str]  # name of an assignment, such as a1
    out: str | None = None  # file to write; none: NAME.ipynb
    html: bool = False  # write an HTML page instead of a notebook (its formulas need the network)


@dataclass(frozen=True)
class Solution:
    "write an assignment with its solutions, to hand out after the deadline"

    name: conf.Positional[str]  # name of an assignment, such as a1
    out: str | None = None  # file to write; none: NAME-solution.ipynb
    html: bool = False  # write an HTML page instead of a notebook (its formulas need the network)


@dataclass(frozen=True)
class Gradescope:
    "write an autograder for Gradescope: the same checks, with the CPU build of torch"

    name: conf.Positional[str]  # name of an assignment, such as a1
    out: str | None = None  # zip file to write; none: NAME-gradescope.zip
    course: str | None = None  # course whose source is used; none: the package's
    seconds: float = 60.0  # time limit of a cell in seconds


@dataclass(frozen=True)
class Assignment:
    "build and grade assignments for a class, from the lessons"

    action: List | Build | Release | Grade | Publish | Preview | Solution | Gradescope  # what to do


@dataclass(frozen=True)
class Check:
    "run the open checks of an assignment on a notebook; status 1: something is wrong"

    notebook: conf.Positional[str]  # notebook of an assignment
    assignment: str | None = None  # name of the assignment; none: as the notebook says
    seconds: float = 60.0  # time limit of a cell in seconds
    sandbox: bool = False  # run without network and home folder (Linux with bubblewrap)
    json: bool = False  # print JSON instead of lines


@dataclass(frozen=True)
class Bench:
    "measure the speed of training and sampling on this machine"

    what: conf.Positional[Literal["compare", "growth", "curves"]] = "compare"  # by code, by size, or losses
    config: tuple[str, ...] = ("digits/2",)  # models to compare: digits/1, digits/2, S/4, S/2, B/2, XL/2
    job: tuple[Literal["train", "sample"], ...] = ("train",)  # jobs to compare
    baseline: Literal["diffusers", "none"] = "diffusers"  # other code
    compile: bool = False  # also benchmark torch.compile: adds minutes of warm-up
    device: Literal["cpu", "cuda"] = "cpu"  # device
    batch_size: int | None = None  # images per step; none: depends on the model
    rounds: int = 5  # rounds in which all configurations are timed
    json: str | None = None  # file to write all numbers to, as JSON


@dataclass(frozen=True)
class Study:
    "run small experiments on the paper's questions"

    name: conf.Positional[str]  # name of a study; or list: print all of them
    out: str | None = None  # CSV file, whose runs are not repeated; none: runs/studies/NAME.csv
    jobs: int = os.cpu_count() or 1  # processes; as many as cores if not given
    seeds: int | None = None  # seeds of each configuration; none: as the study defines
    fast: bool = False  # smoke test: one seed, few steps
    metric: str | None = None  # metric of the table; none: the first of the study


Command = (
    Digits
    | Emoji
    | Train
    | Sample
    | Encode
    | Evaluate
    | Convert
    | Export
    | Assignment
    | Check
    | Bench
    | Study
)
