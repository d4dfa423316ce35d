"""The digit model in a browser: equal to PyTorch, and a page that works with the keyboard and on a phone."""

import shutil
from pathlib import Path

import pytest
import torch

from dit_nb.guidance import Guided
from dit_nb.interop.export import export_browser
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample, ddpm_sample
from support_browser import chromium, serve, watched_page

LIVE = Path(__file__).resolve().parents[2] / "site" / "live"
pytestmark = pytest.mark.xdist_group("live")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The page on a file server, with the weights beside it."""
    folder = tmp_path_factory.mktemp("site") / "live"
    shutil.copytree(LIVE, folder)
    export_browser(*digit_model(), folder / "digits.bin")
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
    "sampler, count, scale", [("ddpm", 10, 1), ("ddpm", 16, 2.5), ("ddim", 10, 1), ("ddim", 1, 4)]
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
