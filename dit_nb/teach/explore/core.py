"""Framework of the explorers: controls, the `Explorer` widget, and a benchmark of its callbacks."""

import base64
import inspect
import io
import time
from collections.abc import Callable
from html import escape
from importlib import import_module

import ipywidgets
import traitlets
from IPython.display import Markdown, display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dit_nb.errors import UserError

__all__ = ["Explorer", "choice", "mistake", "slider", "stops", "switch"]

_STYLE = {"description_width": "initial"}


def slider(label: str, low: float, high: float, value: float, step: float = 1) -> ipywidgets.Widget:
    """Make a slider from `low` to `high`, an integer one if all four numbers are integers."""
    is_int = all(isinstance(v, int) for v in (low, high, value, step))
    kind = ipywidgets.IntSlider if is_int else ipywidgets.FloatSlider
    layout = ipywidgets.Layout(width="330px")
    options = {"description": label, "continuous_update": False, "style": _STYLE, "layout": layout}
    return kind(value=value, min=low, max=high, step=step, **options)


def stops(label: str, options: list, value) -> ipywidgets.Widget:
    """Make a slider over a few values or (text, value) pairs, evenly spaced."""
    layout = ipywidgets.Layout(width="330px")
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=label, continuous_update=False, style=_STYLE, layout=layout
    )


def choice(label: str, options: list, value) -> ipywidgets.Widget:
    """Offer values or (text, value) pairs as buttons, or as a menu if there are more than six."""
    if len(options) > 6:
        return ipywidgets.Dropdown(options=options, value=value, description=label, style=_STYLE)
    options = [option if isinstance(option, tuple) else (str(option), option) for option in options]
    style, layout = {**_STYLE, "button_width": "auto"}, ipywidgets.Layout(width="auto")
    return ipywidgets.ToggleButtons(
        options=options, value=value, description=label, style=style, layout=layout
    )


def switch(label: str, value: bool = False) -> ipywidgets.Checkbox:
    """Make a checkbox."""
    return ipywidgets.Checkbox(value=value, description=label, indent=False)


def mistake(label: str) -> ipywidgets.Checkbox:
    """Make a red checkbox that switches a common mistake on, to show what it looks like."""
    text = f'<span style="color: #B84A00"><b>Mistake:</b> {escape(label)}</span>'
    layout = ipywidgets.Layout(width="auto")
    return ipywidgets.Checkbox(description=text, description_allow_html=True, indent=False, layout=layout)


class _PatchGrid(ipywidgets.VBox):
    """A grid of buttons, `rows` x `columns`, to select a patch of an image."""

    value = traitlets.Int(0)  # index of the selected patch, row by row

    def __init__(self, label: str, rows: int, columns: int, value: int = 0):
        side = ipywidgets.Layout(width="30px", height="30px", margin="1px", padding="0")
        self.buttons = [ipywidgets.Button(layout=side, tooltip=f"patch {i}") for i in range(rows * columns)]
        for i, button in enumerate(self.buttons):
            button.on_click(lambda _, i=i: self.set_trait("value", i))
        rows = [ipywidgets.HBox(self.buttons[i : i + columns]) for i in range(0, rows * columns, columns)]
        super().__init__([ipywidgets.Label(label), *rows])
        self.observe(self._mark, "value")
        self.value, self.options = value, range(len(self.buttons))
        self._mark()

    def paint(self, grays: list[float]) -> None:
        """Set each button's gray level, from 0 (black) to 1 (white)."""
        for button, gray in zip(self.buttons, grays):
            button.style.button_color = f"rgb({', '.join([str(round(255 * gray))] * 3)})"

    def _mark(self, *_) -> None:
        for i, button in enumerate(self.buttons):
            button.layout.border = f"3px solid {'#D55E00' if i == self.value else '#CCCCCC'}"


def _render_png(fig: Figure, positions: dict) -> bytes:
    """Render a figure, with the axes at the positions of the first figure of its size (`positions` is filled)."""
    fig.set_dpi(100)
    kind = (*fig.get_size_inches(), len(fig.axes))
    if kind not in positions:
        fig.draw_without_rendering()
        positions[kind] = [ax.get_position(original=True) for ax in fig.axes]
    fig.set_layout_engine("none")
    for ax, position in zip(fig.axes, positions[kind]):
        ax.set_position(position)
        ax._autotitlepos = False  # searching a free position for the title takes a tenth of the time
    buffer = io.BytesIO()
    # `savefig` would render twice, and compress more than a widget needs.
    FigureCanvasAgg(fig).print_png(buffer, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


class Explorer:
    """A widget: controls above the figure that a pure function makes from their values.

    Args:
        plot: function called with the result of `prepare`, if given, and the controls' values by name
        title: what there is to explore
        experiments: Markdown list of experiments: what to do in italics, then what it shows
        prepare: slow part of the computation; called with those controls that it names, results are cached
        **controls: a control for each argument of `plot`
    """

    def __init__(
        self,
        plot: Callable[..., Figure],
        title: str,
        experiments: str,
        prepare: Callable | None = None,
        **controls,
    ):
        self.plot, self.title, self.experiments = plot, title, inspect.cleandoc(experiments)
        self.prepare, self.controls = prepare, controls
        self._positions, self._cache, self._paused = {}, {}, False
        self._prepare_args = () if prepare is None else tuple(inspect.signature(prepare).parameters)
        self.defaults = self.values()
        self.image, self.error = ipywidgets.HTML(), ipywidgets.HTML()
        self._progress_bar = ipywidgets.FloatProgress(
            max=1, description="computing", layout={"display": "none"}
        )
        self._draw()  # an error is raised here: the first figure must be right
        for control in controls.values():
            control.observe(self._update, "value")
        self.widget = self._arrange()

    def values(self) -> dict:
        """Return the controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values) -> "Explorer":
        """Set controls from code; the figure is drawn once.

        Raises:
            UserError: if there is no such control, or it cannot take the value
        """
        self._paused = True
        try:
            for name, value in values.items():
                _set_control(name, self.controls.get(name), value)
        finally:
            self._paused = False
            self._update()
        return self

    def reset(self) -> "Explorer":
        """Set all controls to their defaults."""
        return self.set(**self.defaults)

    def _arrange(self) -> ipywidgets.Widget:
        reset = ipywidgets.Button(description="Reset", icon="undo", layout={"width": "90px"})
        reset.on_click(lambda _: self.reset())
        row = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 18px"}
        controls = ipywidgets.Box([*self.controls.values(), reset], layout=row)
        return ipywidgets.VBox([controls, self._progress_bar, self.error, self.image])

    def _update(self, *_) -> None:
        """Draw again; show an error as text and keep the last good figure."""
        if self._paused:
            return
        try:
            self.error.value = ""
            self._draw()
        except Exception as error:  # any kind: widgets would swallow it
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            text = escape(f"{kind}{error}")
            self.error.value = f'<b style="color: #B84A00">This cannot be drawn. {text}</b>'

    def _draw(self) -> None:
        start = time.perf_counter()
        state = self._compute()
        middle = time.perf_counter()
        self.figure = self.plot(*state, **self.values())
        self.png = _render_png(self.figure, self._positions)
        data = base64.b64encode(self.png).decode()
        alt = escape(self.figure.alt_text, quote=True)
        self.image.value = f'<img alt="{alt}" style="max-width: 100%" src="data:image/png;base64,{data}">'
        self.prepare_seconds, self.seconds = middle - start, time.perf_counter() - middle

    def _compute(self) -> tuple:
        """The result of `prepare` for the current values, from the cache if possible."""
        if self.prepare is None:
            return ()
        args = {name: value for name, value in self.values().items() if name in self._prepare_args}
        key = tuple(args.items())
        if key not in self._cache:
            if "progress" in self._prepare_args:
                args["progress"] = self._progress
            self._progress_bar.layout.display = "flex"
            try:
                self._cache[key] = self.prepare(**args)
            finally:
                self._progress_bar.layout.display = "none"
        return (self._cache[key],)

    def _progress(self, done: int, total: int) -> None:
        self._progress_bar.value = done / total

    def _repr_markdown_(self) -> str:
        return f"Explore: {self.title}\n\n{self.experiments}"

    def _ipython_display_(self) -> None:
        """Show the live widget, and store the current figure beside it for readers without a kernel."""
        display(Markdown(self._repr_markdown_()))
        alt = self.figure.alt_text
        still = {"image/png": base64.b64encode(self.png).decode(), "text/plain": alt}
        live = self.widget._repr_mimebundle_() or {}
        display({**live, **still}, metadata={"image/png": {"alt": alt}}, raw=True)


def _set_control(name: str, control: ipywidgets.Widget | None, value) -> None:
    if control is None:
        raise UserError(f"{name!r} is not a control of this explorer.")
    if value == control.value:
        return
    try:
        control.value = value
    except (traitlets.TraitError, TypeError):
        pass
    if control.value != value:
        low, high = getattr(control, "min", None), getattr(control, "max", None)
        wanted = f"from {low} to {high}" if low is not None else f"one of {_some_values(control)}"
        raise UserError(f"{name} is {value!r}, but must be {wanted}.")


def _some_values(control) -> list:
    """Some values that a control can take: all if there are few, or the ends and the middle of a slider."""
    if isinstance(control, ipywidgets.Checkbox):
        return [False, True]
    if hasattr(control, "min"):
        middle = (control.min + control.max) / 2
        return [control.min, round(middle) if isinstance(control.value, int) else middle, control.max]
    options = [o[1] if isinstance(o, tuple) else o for o in control.options]
    return options if len(options) <= 6 else options[:: len(options) // 4]


_MODULES = (
    "data oracle patchify positions conditioning attention block in_context cross_attention adaln adaln_zero model cost "
    "schedule objective sampling few_steps guidance training latents evaluation scaling anatomy budget ranks denoising "
    "flow modern_blocks targets mmdit guidance_today meanflow"
).split()


def _all_explorers() -> dict[str, Callable[[], Explorer]]:
    """Return every `explore_*` function of the package by name; each can be called without arguments."""
    modules = [import_module(f"dit_nb.teach.explore.{name}") for name in _MODULES]
    found = [(name, value) for module in modules for name, value in vars(module).items()]
    return {name: value for name, value in found if name.startswith("explore_")}
