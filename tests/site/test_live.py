"""The digit and the emoji model in a browser: equal to PyTorch, and a page that works with the keyboard and on a phone."""

import base64
import shutil
from pathlib import Path

import pytest
import torch

from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.guidance import Guided
from dit_nb.interop.export import export_model
from dit_nb.model import DiT
from dit_nb.pretrained import digit_model, load_model, make_diffusion, save_model
from dit_nb.sampling import ddim_sample, ddpm_sample
from dit_nb.since.meanflow import MeanFlowDiT, mean_flow_sample
from generated import EMOJI, write_live
from support_browser import chromium, serve, watched_page

LIVE = Path(__file__).resolve().parents[2] / "site" / "live"
pytestmark = pytest.mark.xdist_group("live")


NAMES = ("smileys-flat", "smileys-3d", "animals-flat", "animals-3d", "food-flat", "food-3d")


@pytest.fixture(scope="module")
def emoji_folder(tmp_path_factory) -> Path:
    """The few-step emoji model, or one of its shape with random weights."""
    if EMOJI.exists():
        return EMOJI
    torch.manual_seed(0)
    shape = {
        "input_size": 32,
        "patch_size": 4,
        "in_channels": 3,
        "hidden_size": 192,
        "depth": 6,
        "num_heads": 6,
    }
    model = MeanFlowDiT(DiTConfig(**shape, num_classes=6, class_dropout_prob=0.0, learn_sigma=False))
    for name, p in model.named_parameters():
        if name != "pos_embed":  # no gate at zero; of the size of trained weights
            torch.nn.init.normal_(p, std=0.7 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.05)
    folder = tmp_path_factory.mktemp("model")
    save_model(model.eval(), folder, SamplingConfig(objective="mean_flow", steps="4", class_names=NAMES))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory, emoji_folder):
    """The page on a file server, with the weights beside it."""
    folder = tmp_path_factory.mktemp("site") / "live"
    write_live(folder, emoji_folder)
    with serve(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, base):
    """The page, with its model loaded and its first image sampled."""
    with watched_page(browser, base) as page:
        page.goto(base + "index.html")
        page.wait_for_function("window.page?.done", timeout=120_000)
        yield page


def flat(x: torch.Tensor) -> list:
    """A batch as a list of lists of numbers."""
    return x.flatten(1).tolist()


FORWARD = """async ([xs, ts, ys]) => {
  const { forward } = await import("./dit.js");
  return xs.map((x, i) => { const o = forward(page.model, Float32Array.from(x), ts[i], ys[i]); return [...o.eps, ...o.values]; });
}"""


def test_the_network_is_that_of_pytorch(page):
    model, generator = digit_model()[0].cpu(), torch.Generator().manual_seed(0)
    x, t = torch.randn(12, 1, 8, 8, generator=generator), torch.linspace(0, 999, 12).long()
    y = torch.arange(12) % 11  # the null class too
    got = torch.tensor(page.evaluate(FORWARD, [flat(x), t.tolist(), y.tolist()]))
    with torch.no_grad():
        wanted = model(x, t, y).flatten(1)
    assert (got - wanted).abs().max() < 1e-3


SAMPLE = """async ([noises, options]) => {
  const { sample } = await import("./dit.js"), given = noises.map((z) => Float32Array.from(z));
  let last;
  for (const step of sample(page.model, { ...options, noise: () => given.shift() })) last = step;
  return [...last.after];
}"""


@pytest.mark.parametrize(
    "sampler, count, scale",
    [("ddpm", 50, 1), ("ddpm", 10, 1), ("ddpm", 16, 2.5), ("ddim", 10, 1), ("ddim", 1, 4)],
)
def test_the_same_noise_gives_the_same_sample(page, sampler, count, scale):
    model, sampling = digit_model()
    diffusion = make_diffusion(sampling).respaced(str(count))
    noise = torch.randn(count + 1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    run = {"ddpm": ddpm_sample, "ddim": ddim_sample}[sampler]
    given = {"x_T": noise[0], "step_noise": noise[1:], "clip_x0": True, "progress": False}
    wanted = run(diffusion, Guided(model.cpu(), scale), (1, 1, 8, 8), torch.tensor([7]), **given)
    got = page.evaluate(SAMPLE, [flat(noise), {"y": 7, "count": count, "sampler": sampler, "scale": scale}])
    assert (torch.tensor(got) - wanted.flatten()).abs().max() < 0.02  # small differences of each step add up


def test_the_schedule_is_that_of_the_package(page):
    schedule = make_diffusion(digit_model()[1])
    for count in (1, 2, 7, 50, 250, 1000):
        kept = schedule.respaced(str(count))
        script = f'import("./dit.js").then(({{ schedule }}) => schedule({count}).map((s) => [s.t, s.bar]))'
        t, bar = torch.tensor(page.evaluate(script), dtype=torch.float64).T
        assert t.long().tolist() == kept.timestep_map.tolist()
        assert (bar - kept.alphas_cumprod).abs().max() < 1e-12


@pytest.mark.parametrize("timesteps", [1, 15, 20, 100, 2000])  # under 20 the largest betas are clipped
def test_the_schedule_of_another_number_of_timesteps(page, timesteps):
    schedule = make_diffusion(SamplingConfig(num_timesteps=timesteps))
    for count in {1, min(7, timesteps), timesteps}:
        kept = schedule.respaced(str(count))
        script = (
            f'import("./dit.js").then((js) => js.schedule({count}, {timesteps}).map((s) => [s.t, s.bar]))'
        )
        t, bar = torch.tensor(page.evaluate(script), dtype=torch.float64).T
        assert t.long().tolist() == kept.timestep_map.tolist()
        assert (bar - kept.alphas_cumprod).abs().max() < 1e-12


AS_EXPORTED = """async ([file, noises, y]) => {
  const { readModel, sample } = await import("./dit.js"), given = noises.map((z) => Float32Array.from(z));
  const model = readModel(Uint8Array.from(atob(file), (c) => c.charCodeAt(0)).buffer);
  let last;
  for (const step of sample(model, { y, noise: () => given.shift() })) last = step;
  return [...last.after];
}"""


@pytest.mark.parametrize(
    "shape, settings",
    [
        ({"patch_size": 2}, {"steps": "6", "cfg_scale": 2.0}),
        ({"patch_size": 1, "in_channels": 1, "mlp_ratio": 1.5}, {"sampler": "ddim", "steps": "4"}),
        ({"patch_size": 4, "num_heads": 4}, {"steps": "15", "num_timesteps": 15, "cfg_scale": 0.0}),
    ],
)
def test_another_model_samples_as_its_settings_say(page, tmp_path, shape, settings):
    wide = {
        "input_size": 8,
        "in_channels": 3,
        "hidden_size": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    }
    torch.manual_seed(0)
    model, sampling = DiT(DiTConfig(**{**wide, **shape})).eval(), SamplingConfig(**settings)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    export_model(model, sampling, tmp_path / "model.bin", "browser")
    file = base64.b64encode((tmp_path / "model.bin").read_bytes()).decode()
    noise = torch.randn(int(sampling.steps) + 1, 1, *model.image_shape)
    run = {"ddpm": ddpm_sample, "ddim": ddim_sample}[sampling.sampler]
    given = {"x_T": noise[0], "step_noise": noise[1:], "clip_x0": True, "progress": False}
    diffusion = make_diffusion(sampling).respaced(sampling.steps)
    wanted = run(
        diffusion, Guided(model, sampling.cfg_scale), tuple(noise[0].shape), torch.tensor([3]), **given
    )
    got = torch.tensor(page.evaluate(AS_EXPORTED, [file, flat(noise), 3]))
    assert wanted.std() > 0.3 and (got - wanted.flatten()).abs().max() < 0.02


def test_the_first_picture_takes_less_than_three_seconds_of_one_thread(browser, base):
    """Of the page's main thread, with loading and drawing: other programs do not count. Of three loads, the fastest."""
    spent = []
    for _ in range(3):
        with watched_page(browser, base) as page:
            measured = page.context.new_cdp_session(page)
            measured.send("Performance.enable")
            page.goto(base + "index.html")
            page.wait_for_function("window.page?.done", timeout=120_000)
            metrics = measured.send("Performance.getMetrics")["metrics"]
            spent += [metric["value"] for metric in metrics if metric["name"] == "ThreadTime"]
    assert len(spent) == 3 and 0.05 < min(spent) < 3, spent


def test_random_numbers_are_normal(page):
    numbers = torch.tensor(page.evaluate('import("./dit.js").then(({ normal }) => [...normal(5, 100000)()])'))
    assert abs(numbers.mean()) < 0.02 and abs(numbers.std() - 1) < 0.02 and abs((numbers**4).mean() - 3) < 0.2


def test_what_is_shown_first_is_what_the_model_samples(page):
    stored = """import("./stored.js").then(({ stored }) => Array.from(atob(stored.frames.at(-1).after),
        (c) => ((c.charCodeAt(0) << 24) >> 24) / 100))"""
    sampled = torch.tensor(page.evaluate("[...page.frames.at(-1).after]"))
    assert (torch.tensor(page.evaluate(stored)) - sampled).abs().max() < 0.02


PIXELS = 'id => [...document.getElementById(id).getContext("2d").getImageData(0, 0, 8, 8).data]'


def sampled_after(page, action) -> list:
    """Pixels of the result after an action that starts a new sample."""
    before = page.evaluate("page.done")
    action()
    page.wait_for_function(f"page.done > {before}", timeout=120_000)
    return page.evaluate(PIXELS, "x")


def test_each_control_changes_the_picture(page):
    pictures = [page.evaluate(PIXELS, "x")]
    actions = [
        lambda: page.check("#classes input[value='8']", force=True),
        lambda: page.select_option("#count", "10"),
        lambda: page.click("#new"),
        lambda: page.select_option("#sampler", "ddim"),
        lambda: page.evaluate(
            'const s = document.getElementById("scale"); s.value = 4; s.dispatchEvent(new Event("change"))'
        ),
    ]
    for action in actions:
        pictures.append(sampled_after(page, action))
        assert pictures[-1] != pictures[-2]


# What a patch attends to in the first block, mean over its heads, at the end of sampling.
ATTENTION = """(patch) => {
  const maps = page.frames.at(-1).maps[0], row = (map) => Array.from(map.subarray(16 * patch, 16 * (patch + 1)));
  return maps.map(row).reduce((a, b) => a.map((v, j) => v + b[j])).map((v) => v / maps.length);
}"""


def test_time_patch_block_and_head_change_what_is_shown(page):
    def shown():
        return [page.evaluate(PIXELS, name) for name in ("x", "x0", "eps", "variance")] + [
            page.inner_html("#patches"),
            page.inner_html("#gates"),
        ]

    views = [shown()]
    page.focus("#time")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    views.append(shown())
    assert all(a != b for a, b in zip(*views))
    for action in (
        lambda: page.keyboard.press("Tab"),  # to the patches
        lambda: page.keyboard.press("ArrowRight"),
        lambda: page.select_option("#block", "5"),
        lambda: page.select_option("#head", "2"),
    ):
        action()
        views.append(shown())
    maps = [view[4] for view in views]
    assert maps[-3] != maps[-4] and maps[-2] != maps[-3] and maps[-1] != maps[-2]


def test_the_patch_under_the_pointer_shows_its_attention(page):
    colors = """() => [...document.getElementById("patches").children].map((p) => p.style.background)"""
    seen = []
    for patch in (0, 10):
        page.hover(f"#patches button:nth-child({patch + 1})")
        assert page.locator("#patches [aria-pressed=true]").count() == 1
        assert page.evaluate("page.patch") == patch
        row = page.evaluate(ATTENTION, patch)
        shown = [float(color[4:-1].split(",")[0]) for color in page.evaluate(colors)]  # rgb(200, 200, 200)
        wanted = [255 - 195 * weight / max(row) for weight in row]
        assert max(abs(a - b) for a, b in zip(shown, wanted)) <= 1
        seen.append(shown)
    assert seen[0] != seen[1]


def time_of(page) -> int:
    """The step of sampling that the slider is at."""
    return int(page.input_value("#time"))


def stands_still(page) -> bool:
    """Whether the slider does not move in the time of eight steps."""
    before = time_of(page)
    page.wait_for_timeout(400)
    return time_of(page) == before


def wait_until_it_plays(page) -> None:
    """Wait until the slider has moved by itself, and is not near its end."""
    page.wait_for_function("from => +document.getElementById('time').value !== from", arg=time_of(page))
    assert page.get_attribute("#play", "aria-label") == "Pause" and time_of(page) < 49


def test_play_pauses_and_goes_on(page):
    page.click("#play")
    wait_until_it_plays(page)
    page.click("#play")
    assert page.get_attribute("#play", "aria-label").startswith("Play") and stands_still(page)
    paused = time_of(page)
    page.keyboard.press("Space")  # the button has the focus
    wait_until_it_plays(page)
    assert time_of(page) > paused
    page.keyboard.press("Space")
    assert stands_still(page)


def test_moving_the_slider_stops_playing(page):
    page.click("#play")
    wait_until_it_plays(page)
    page.focus("#time")
    page.keyboard.press("ArrowRight")
    assert stands_still(page)
    before = page.evaluate("scrollY")
    page.keyboard.press("Space")  # on the slider
    wait_until_it_plays(page)
    assert page.evaluate("scrollY") == before
    sampled_after(page, lambda: page.click("#new"))  # a new sample is shown as it comes, and at its end
    assert time_of(page) == 49 and stands_still(page)


def test_it_plays_to_the_end_and_from_the_start_again(page):
    page.evaluate('document.getElementById("time").value = 45')
    page.click("#play")
    page.wait_for_function('document.getElementById("play").getAttribute("aria-label") !== "Pause"')
    assert time_of(page) == 49 and page.inner_text("#timeLabel") == "t = 0, done"
    page.click("#play")
    assert time_of(page) < 40


def test_the_time_of_a_step_is_shown(page):
    assert 0 < page.evaluate(
        "parseFloat(document.getElementById('speed').textContent.match(/([0-9.]+).ms/)[1])"
    )
    assert "one network call" in page.inner_text("#speed")


BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"
WHITE, BLACK = "rgb(255, 255, 255)", "rgb(22, 23, 26)"


@pytest.mark.parametrize("system", ["light", "dark"])
def test_alone_it_has_the_theme_of_the_system(browser, base, system):
    with watched_page(browser, base, color_scheme=system) as page:
        page.goto(base + "index.html")
        assert page.evaluate(BACKGROUND) == {"light": WHITE, "dark": BLACK}[system]


@pytest.mark.parametrize("system", ["light", "dark"])
def test_inside_the_site_it_has_the_theme_of_its_menu(browser, base, system):
    with watched_page(browser, base, color_scheme=system) as page:
        page.goto(base + "index.html")  # any page of the host
        page.evaluate('document.documentElement.dataset.theme = "dark"')
        page.evaluate('document.body.insertAdjacentHTML("beforeend", "<iframe src=index.html></iframe>")')
        frame = page.wait_for_selector("iframe").content_frame()
        frame.wait_for_selector("#play")
        assert frame.evaluate(BACKGROUND) == BLACK
        for theme, color in {"light": WHITE, "dark": BLACK}.items():
            page.evaluate(f'document.documentElement.dataset.theme = "{theme}"')
            assert frame.evaluate(BACKGROUND) == color
        page.evaluate("delete document.documentElement.dataset.theme")
        assert frame.evaluate(BACKGROUND) == {"light": WHITE, "dark": BLACK}[system]


def test_it_works_with_the_keyboard_alone(page):
    page.keyboard.press("Tab")
    while page.evaluate('document.activeElement.name !== "y"'):
        page.keyboard.press("Tab")
    sampled_after(page, lambda: page.keyboard.press("ArrowRight"))
    assert page.evaluate("page.frames.length") == 50 and "A 4" in page.inner_text("#status")


def test_it_fits_a_phone(browser, base):
    with watched_page(browser, base, viewport={"width": 360, "height": 740}) as page:
        page.goto(base + "index.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_its_weights_it_says_so_and_shows_the_stored_result(browser, tmp_path):
    shutil.copytree(LIVE, tmp_path / "live")
    with serve(tmp_path / "live") as address:
        page = browser.new_page()
        page.goto(address + "index.html")
        page.wait_for_function(
            'document.getElementById("status").textContent.includes("could not be loaded")'
        )
        assert len(set(page.evaluate(PIXELS, "x0"))) > 20
        page.close()


# --- The second tab: emoji ---

EMOJI_FORWARD = """async ([xs, ts, rs, ys]) => {
  const { forward, readModel } = await import("./dit.js");
  page.emojiModel ??= readModel(await (await fetch("emoji.bin")).arrayBuffer());
  return xs.map((x, i) => [...forward(page.emojiModel, Float32Array.from(x), ts[i], ys[i], rs[i]).out]);
}"""
EMOJI_SAMPLE = """async ([x, y, count]) => {
  const { jumps, readModel } = await import("./dit.js");
  const model = readModel(await (await fetch("emoji.bin")).arrayBuffer());
  let last;
  for (const jump of jumps(model, { y, count, noise: () => Float32Array.from(x) })) last = jump;
  return [...last.x];
}"""
ALL_IMAGES = """() => [...document.querySelectorAll("#emojiImages canvas")].map((c) =>
  c.getContext("2d").getImageData(0, 0, 32, 32).data.join())"""


def test_the_average_velocity_is_that_of_pytorch(page, emoji_folder):
    model = load_model(emoji_folder, device="cpu")[0]
    x, y = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    t = torch.tensor([1.0, 1.0, 0.75, 0.5, 0.25, 0.6])
    r = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0, 0.6])
    got = torch.tensor(page.evaluate(EMOJI_FORWARD, [flat(x), t.tolist(), r.tolist(), y.tolist()]))
    with torch.no_grad():
        wanted = model(x, t, r, y).flatten(1)
    assert wanted.std() > 0.1 and (got - wanted).abs().max() < 1e-2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_same_noise_gives_the_same_emoji(page, emoji_folder, count):
    model = load_model(emoji_folder, device="cpu")[0]
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(count))
    wanted = mean_flow_sample(model, noise.shape, torch.tensor([5]), count, x_T=noise)
    got = page.evaluate(EMOJI_SAMPLE, [noise.flatten().tolist(), 5, count])
    assert (torch.tensor(got) - wanted.flatten()).abs().max() < 2e-2


@pytest.fixture
def emoji_page(browser, base):
    """The page with the second tab open, and its first twelve images sampled."""
    with watched_page(browser, base) as page:
        page.goto(base + "index.html#emoji")
        page.wait_for_selector("#emojiCalls input", state="attached", timeout=120_000)
        page.check("#emojiCalls input[value='1']", force=True)  # the fewest network calls
        wait_for_emoji(page, 1)
        yield page


def wait_for_emoji(page, before: int) -> None:
    """Wait until the request after number `before` is sampled."""
    page.wait_for_function(f"page.emoji?.done > {before}", timeout=480_000)


def test_the_tab_loads_its_model_only_when_it_is_opened(browser, base):
    with watched_page(browser, base) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(base + "index.html")
        page.wait_for_function("window.page?.done", timeout=120_000)
        assert not any("emoji" in url for url in asked)
        assert page.is_visible("#digits") and not page.is_visible("#emoji")
        page.click("#emojiTab")
        page.wait_for_function('document.querySelectorAll("#emojiImages canvas").length === 12')
        assert page.is_visible("#emoji") and not page.is_visible("#digits")
        page.wait_for_function(
            '/Sampling|images of/.test(document.getElementById("emojiStatus").textContent)'
        )


def test_controls_of_the_emoji_change_all_images(emoji_page):
    page, pictures = emoji_page, [emoji_page.evaluate(ALL_IMAGES)]
    actions = [
        lambda: page.check("#emojiClasses input[value='4']", force=True),
        lambda: page.click("#emojiNew"),
        lambda: page.check("#emojiCalls input[value='2']", force=True),
    ]
    for action in actions:
        before = page.evaluate("page.emoji.done")
        action()
        wait_for_emoji(page, before)
        pictures.append(page.evaluate(ALL_IMAGES))
        assert all(a != b for a, b in zip(*pictures[-2:]))
        assert len(set(pictures[-1])) == 12
    status = page.inner_text("#emojiStatus")
    assert "food flat" in status and "2 network calls each" in status


def test_tabs_and_emoji_work_with_the_keyboard_alone(browser, base):
    with watched_page(browser, base) as page:
        page.goto(base + "index.html")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "digitsTab"
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "emojiTab"
        assert page.get_attribute("#emojiTab", "aria-selected") == "true"
        page.wait_for_function('document.querySelectorAll("#emojiImages canvas").length === 12')
        while page.evaluate('document.activeElement.name !== "emojiY"'):
            page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")  # the next class
        assert page.evaluate("document.activeElement.value") == "2"
        page.keyboard.press("Tab")
        for _ in range(2):
            page.keyboard.press("ArrowLeft")  # one network call
        wait_for_emoji(page, 3)
        assert "animals flat" in page.inner_text("#emojiStatus")


def test_the_emoji_fit_a_phone(browser, base):
    with watched_page(browser, base, viewport={"width": 360, "height": 740}) as page:
        page.goto(base + "index.html#emoji")
        page.wait_for_function('document.querySelectorAll("#emojiImages canvas").length === 12')
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_an_emoji_model_there_is_no_tab(browser, tmp_path):
    write_live(tmp_path / "live", tmp_path / "none")
    assert not (tmp_path / "live" / "emoji.bin").exists()
    with serve(tmp_path / "live") as address, watched_page(browser, address) as page:
        page.goto(address + "index.html#emoji")
        page.wait_for_function("window.page?.done", timeout=120_000)
        assert page.is_visible("#digits") and not page.is_visible("#tabs")
