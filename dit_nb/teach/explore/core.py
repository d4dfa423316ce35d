"""A pure picture, the controls that change it, and one small class that ties them."""

import base64
import gc
import inspect
import io
import time
from collections.abc import Callable, Iterator
from html import escape
from importlib import import_module
from statistics import median

import ipywidgets
import traitlets
from IPython.display import Markdown, display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDE = {"description_width": "initial"}


def slider(
    label: str,  # beside it
    low: float,
    high: float,
    value: float,  # where it starts
    step: float = 1,
) -> ipywidgets.Widget:
    "A number: whole if all that is given is whole."
    whole = all(isinstance(v, int) for v in (low, high, value, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    layout = ipywidgets.Layout(width="330px")
    options = {"description": label, "continuous_update": False, "style": WIDE, "layout": layout}
    return kind(value=value, min=low, max=high, step=step, **options)


def stops(
    label: str,  # beside it
    options: list,  # values, or (text, value) pairs
    value,  # where it starts
) -> ipywidgets.Widget:
    "A slider with a few stops, evenly placed whatever their values."
    layout = ipywidgets.Layout(width="330px")
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=label, continuous_update=False, style=WIDE, layout=layout
    )


def choice(
    label: str,  # beside it
    options: list,  # values, or (text, value) pairs
    value,  # where it starts
) -> ipywidgets.Widget:
    "One of a few things: buttons, or a menu where there are more than six."
    if len(options) > 6:
        return ipywidgets.Dropdown(options=options, value=value, description=label, style=WIDE)
    options = [option if isinstance(option, tuple) else (str(option), option) for option in options]
    style = {**WIDE, "button_width": "auto"}
    layout = ipywidgets.Layout(width="auto")
    return ipywidgets.ToggleButtons(
        options=options, value=value, description=label, style=style, layout=layout
    )


def switch(label: str, value: bool = False) -> ipywidgets.Checkbox:
    "On or off."
    return ipywidgets.Checkbox(value=value, description=label, indent=False)


def mistake(label: str) -> ipywidgets.Checkbox:
    "A switch, in red, that does the thing wrong, to see what that looks like."
    text = f'<span style="color: #B84A00"><b>Mistake:</b> {escape(label)}</span>'
    layout = ipywidgets.Layout(width="auto")
    return ipywidgets.Checkbox(description=text, description_allow_html=True, indent=False, layout=layout)


class PatchGrid(ipywidgets.VBox):
    "A patch of an image, chosen by a click on it."

    value = traitlets.Int(0)  # number of the patch, counted row by row

    def __init__(
        self,
        label: str,  # above it
        rows: int,
        columns: int,
        value: int = 0,  # where it starts
    ):
        side = ipywidgets.Layout(width="30px", height="30px", margin="1px", padding="0")
        self.buttons = [ipywidgets.Button(layout=side, tooltip=f"patch {i}") for i in range(rows * columns)]
        for i, button in enumerate(self.buttons):
            button.on_click(lambda _, i=i: self.set_trait("value", i))
        rows = [ipywidgets.HBox(self.buttons[i : i + columns]) for i in range(0, rows * columns, columns)]
        super().__init__([ipywidgets.Label(label), *rows])
        self.observe(self.mark, "value")
        self.value, self.options = value, range(len(self.buttons))
        self.mark()

    def paint(self, shades: list[float]) -> None:
        "Give each patch a grey between 0 (black) and 1 (white)."
        for button, shade in zip(self.buttons, shades):
            button.style.button_color = f"rgb({', '.join([str(round(255 * shade))] * 3)})"

    def mark(self, *_) -> None:
        "Frame the chosen patch."
        for i, button in enumerate(self.buttons):
            button.layout.border = f"3px solid {'#D55E00' if i == self.value else '#CCCCCC'}"


def draw_png(
    fig: Figure,
    places: dict,  # kind of figure -> where its axes go; is filled
) -> bytes:
    "A figure as PNG, its axes where they were when such a figure was first drawn."
    fig.set_dpi(100)
    kind = (*fig.get_size_inches(), len(fig.axes))
    if kind not in places:
        fig.draw_without_rendering()
        places[kind] = [ax.get_position(original=True) for ax in fig.axes]
    fig.set_layout_engine("none")
    for ax, place in zip(fig.axes, places[kind]):
        ax.set_position(place)
        ax._autotitlepos = False  # looking for a free place for the title costs a tenth of all
    buffer = io.BytesIO()
    # `savefig` would draw twice, and pack the bytes tighter than a widget needs.
    FigureCanvasAgg(fig).print_png(buffer, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


class Explorer:
    "Controls around a function that draws."

    def __init__(
        self,
        plot: Callable[
            ..., Figure
        ],  # called with `prepare`'s result, if there is one, and the controls' values
        title: str,  # what there is to explore
        tries: list[tuple[str, str]],  # experiments: (what to do, what one should see)
        prepare: Callable | None = None,  # the slow part
        **controls,  # argument of `plot` -> control
    ):
        self.plot, self.title, self.tries, self.prepare, self.controls = plot, title, tries, prepare, controls
        self.places, self.prepared, self.quiet = {}, {}, False
        self.defaults = self.values()
        self.asks = () if prepare is None else tuple(inspect.signature(prepare).parameters)
        self.picture, self.problem = ipywidgets.HTML(), ipywidgets.HTML()
        self.bar = ipywidgets.FloatProgress(max=1, description="computing", layout={"display": "none"})
        self.redraw()  # an error here is raised: the first picture must be right
        gc.freeze()  # what lives now lives on: cleaning up during a callback need not walk through it
        for control in controls.values():
            control.observe(self.changed, "value")
        self.widget = self.arrange()

    def arrange(self) -> ipywidgets.Widget:
        "Controls above, picture below."
        reset = ipywidgets.Button(description="Reset", icon="undo", layout={"width": "90px"})
        reset.on_click(lambda _: self.reset())
        row = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 18px"}
        controls = ipywidgets.Box([*self.controls.values(), reset], layout=row)
        return ipywidgets.VBox([controls, self.bar, self.problem, self.picture])

    def values(self) -> dict:
        "What the controls say."
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values) -> "Explorer":
        "Turn controls by program; draws once. Raises ValueError where a control does not have such a value."
        self.quiet = True
        try:
            for name, value in values.items():
                set_control(name, self.controls.get(name), value)
        finally:
            self.quiet = False
            self.changed()
        return self

    def reset(self) -> "Explorer":
        "Back to the start."
        return self.set(**self.defaults)

    def changed(self, *_) -> None:
        "Draw again; an error is told in a sentence, and the last good picture stays."
        if self.quiet:
            return
        try:
            self.problem.value = ""
            self.redraw()
        except Exception as error:  # whatever it is, the reader must see it: widgets swallow errors
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            text = escape(f"{kind}{error}")
            self.problem.value = f'<b style="color: #B84A00">This cannot be drawn. {text}</b>'

    def redraw(self) -> None:
        "Compute what is new, draw, show."
        start = time.perf_counter()
        state = self.compute()
        middle = time.perf_counter()
        self.figure = self.plot(*state, **self.values())
        self.png = draw_png(self.figure, self.places)
        data = base64.b64encode(self.png).decode()
        alt = escape(self.figure.alt, quote=True)
        self.picture.value = f'<img alt="{alt}" style="max-width: 100%" src="data:image/png;base64,{data}">'
        self.prepare_seconds, self.seconds = middle - start, time.perf_counter() - middle

    def compute(self) -> tuple:
        "The slow part, done once for each setting."
        if self.prepare is None:
            return ()
        asked = {name: value for name, value in self.values().items() if name in self.asks}
        key = tuple(asked.items())
        if key not in self.prepared:
            if "progress" in self.asks:
                asked["progress"] = self.progress
            self.bar.layout.display = "flex"
            try:
                self.prepared[key] = self.prepare(**asked)
            finally:
                self.bar.layout.display = "none"
        return (self.prepared[key],)

    def progress(self, done: int, total: int) -> None:
        "Move the bar."
        self.bar.value = done / total

    def _repr_markdown_(self) -> str:
        "What to try."
        lines = [f"{i}. *{do}* {see}" for i, (do, see) in enumerate(self.tries, 1)]
        return "\n".join([f"**Explore: {self.title}**", "", *lines])

    def _ipython_display_(self) -> None:
        "The live widget where a kernel runs; what is stored beside it is the still picture."
        display(Markdown(self._repr_markdown_()))
        alt = self.figure.alt
        still = {"image/png": base64.b64encode(self.png).decode(), "text/plain": alt}
        live = self.widget._repr_mimebundle_() or {}
        display({**live, **still}, metadata={"image/png": {"alt": alt}}, raw=True)


def set_control(
    name: str,
    control,  # None where there is no such control
    value,
) -> None:
    "Give a control a value, and say so in one sentence where it cannot have it."
    if control is None:
        raise ValueError(f"{name} is no control of this explorer.")
    if value == control.value:
        return
    try:
        control.value = value
    except (traitlets.TraitError, TypeError):
        pass
    if control.value != value:
        low, high = getattr(control, "min", None), getattr(control, "max", None)
        wanted = f"from {low} to {high}" if low is not None else f"one of {settings(control)}"
        raise ValueError(f"{name} is {value!r}, but must be {wanted}.")


def settings(control) -> list:
    "Some values that a control can take: all of a few, or the ends and the middle of a slider."
    if isinstance(control, ipywidgets.Checkbox):
        return [False, True]
    if hasattr(control, "min"):
        middle = (control.min + control.max) / 2
        middle = round(middle) if isinstance(control.value, int) else middle
        return [control.min, middle, control.max]
    options = [o[1] if isinstance(o, tuple) else o for o in control.options]
    return options if len(options) <= 6 else options[:: len(options) // 4]


ROOMS = (
    "data",
    "patchify",
    "positions",
    "conditioning",
    "attention",
    "in_context",
    "cross_attention",
    "adaln",
    "adaln_zero",
    "model",
    "cost",
    "schedule",
    "objective",
    "sampling",
    "guidance",
    "training",
    "latents",
    "evaluation",
    "scaling",
    "anatomy",
    "budget",
    "denoising",
)


LIMIT = 0.2  # seconds


def all_explorers() -> dict[str, Callable[[], Explorer]]:
    "Every `explore_*` of the package; each can be called without arguments."
    modules = [import_module(f"dit_nb.teach.explore.{room}") for room in ROOMS]
    found = [(name, value) for module in modules for name, value in vars(module).items()]
    return {name: value for name, value in found if name.startswith("explore_")}


def time_explorer(explorer: Explorer) -> dict[tuple, float]:  # (control, value) -> seconds of its callback
    "Turn each control through some of its values, the others at their defaults."
    silent = explorer.prepare and "progress" not in explorer.asks
    taken = {}
    for name, control in explorer.controls.items():
        for value in settings(control):
            explorer.set(**{name: value})
            waited = explorer.prepare_seconds if silent else 0.0
            taken[name, value] = waited + min(draw_seconds(explorer) for _ in range(3))
        explorer.reset()
    return taken


def draw_seconds(explorer: Explorer) -> float:
    "How long one more drawing of the same takes."
    explorer.changed()
    return explorer.seconds


def bench_widgets() -> Iterator[str]:
    "A table, line by line: how many settings each explorer was put to, and how long its callbacks took."
    yield f"{'explorer':<26}{'settings':>9}{'median ms':>11}{'worst ms':>10}  at"
    for name, make in all_explorers().items():
        taken = time_explorer(make())
        slowest = max(taken, key=taken.get)
        over = "  OVER 200 ms" if taken[slowest] > LIMIT else ""
        middle, worst = 1000 * median(taken.values()), 1000 * taken[slowest]
        at = f"{slowest[0]} = {slowest[1]}{over}"
        yield f"{name:<26}{len(taken):>9}{middle:>11.0f}{worst:>10.0f}  {at}"
