// The page around dit.js: controls, pictures, time. Sampling runs between frames, so that the page stays alive.
import { normal, readModel, sample } from "./dit.js";
import { stored } from "./stored.js";

const at = (id) => document.getElementById(id);
const page = { model: null, frames: [], run: 0, patch: 5, playing: 0, scrubbed: false };
window.page = page; // for tests, and for the curious

// --- Pictures ---

const ORANGE = [230, 159, 0], DARK = [60, 60, 60];
const shade = (amount, color) => color.map((c) => 255 + (c - 255) * Math.max(0, Math.min(1, amount)));
const gray = (v) => shade((1 - v) / 2, [0, 0, 0]); // as in the course: -1 is black, 1 is white
const signed = (v) => (v > 0 ? shade(v / 3, ORANGE) : shade(-v / 3, DARK)); // 0 is white

function draw(id, values, color) {
  const context = at(id).getContext("2d"), image = context.createImageData(8, 8);
  values.forEach((v, i) => image.data.set([...color(v), 255], 4 * i));
  context.putImageData(image, 0, 0);
}

function show() {
  const { frames } = page, frame = frames[Math.min(+at("time").value, frames.length - 1)];
  if (!frame) return;
  const last = frame === frames.at(-1) && frames.length === +at("time").max + 1;
  draw("x", last ? frame.after : frame.x, gray); // at the end: the sample
  draw("x0", frame.x0, gray);
  draw("eps", frame.eps, signed);
  draw("variance", frame.values, (v) => shade((v + 1) / 2, DARK));
  at("timeLabel").textContent = last ? "t = 0, done" : `t = ${frame.t}`;
  at("time").setAttribute("aria-valuetext", at("timeLabel").textContent);
  if (frame.maps) showInside(frame);
}

function showInside({ maps, gates }) {
  const map = maps[+at("block").value], T = Math.sqrt(map[0].length), head = at("head").value;
  const chosen = head === "mean" ? map : [map[+head]];
  const row = Array.from({ length: T }, (_, j) => chosen.reduce((s, m) => s + m[page.patch * T + j], 0) / chosen.length);
  const largest = Math.max(...row);
  [...at("patches").children].forEach((cell, j) => {
    cell.style.background = `rgb(${shade(row[j] / largest, DARK)})`;
    cell.setAttribute("aria-label", `patch ${j + 1}: attention ${Math.round(100 * row[j])} %`);
    cell.setAttribute("aria-pressed", j === page.patch);
  });
  const size = (v) => v.reduce((s, g) => s + Math.abs(g), 0) / v.length, top = 148;
  const values = gates.map((pair) => pair.map(size)), most = Math.max(0.5, ...values.flat()), wide = 290 / gates.length;
  const bar = (b, k, v) => {
    const height = (v / most) * 130, x = 28 + b * wide + k * wide * 0.4;
    return `<rect class="${k ? "bar2" : "bar"}" x="${x}" y="${top - height}" width="${wide * 0.36}" height="${height}"></rect>`;
  };
  at("gates").innerHTML =
    `<line x1="24" x2="318" y1="${top}" y2="${top}"></line><text x="0" y="22">${most.toFixed(1)}</text><text x="0" y="${top}">0</text>` +
    values.map((pair, b) => pair.map((v, k) => bar(b, k, v)).join("") + `<text x="${28 + b * wide}" y="${top + 14}">block ${b + 1}</text>`).join("") +
    `<text x="28" y="${top + 28}">left: gate of attention, right: gate of the MLP</text>`;
}

// --- Sampling ---

const chosen = () => ({
  y: +document.querySelector("#classes input:checked").value,
  seed: Math.max(0, Math.floor(+at("seed").value) || 0),
  count: +at("count").value,
  sampler: at("sampler").value,
  scale: +at("scale").value,
});

const nextFrame = () => new Promise((done) => setTimeout(done));

async function start() {
  at("scaleValue").textContent = at("scale").value;
  if (!page.model) return;
  const run = ++page.run, { seed, ...options } = chosen(), frames = [], began = performance.now();
  let busy = 0, since = began; // milliseconds in the model alone, without drawing and waiting
  pause();
  page.scrubbed = false;
  at("time").max = options.count - 1;
  for (const frame of sample(page.model, { ...options, noise: normal(seed, 64) })) {
    if (run !== page.run) return; // a control was changed
    busy += performance.now() - since;
    frames.push(frame);
    page.frames = frames;
    if (!page.scrubbed) at("time").value = frames.length - 1;
    at("status").textContent = `Sampling: step ${frames.length} of ${options.count}.`;
    show();
    await nextFrame();
    if (run !== page.run) return;
    since = performance.now();
  }
  page.seconds = (performance.now() - began) / 1000;
  at("status").textContent = `A ${options.y}, sampled in ${page.seconds.toFixed(1)} seconds. Move the time.`;
  const calls = options.scale === 1 ? "one network call" : "two network calls";
  at("speed").textContent = `Here, a step of the digit model (${calls}) took ${(busy / options.count).toFixed(1)}\u00a0ms.`;
  page.done = run;
}

// --- Time: play, pause, and the slider ---

function pause() {
  clearInterval(page.playing);
  page.playing = 0;
  showPlaying();
}

function showPlaying() {
  at("play").classList.toggle("playing", page.playing > 0);
  at("play").setAttribute("aria-label", page.playing ? "Pause" : "Play from noise to image");
}

function play() {
  if (page.playing) return pause();
  const time = at("time");
  page.scrubbed = true; // a sampling that still runs leaves the slider alone
  if (+time.value >= +time.max) time.value = 0; // else go on from where it was paused
  show();
  page.playing = setInterval(() => {
    time.value = +time.value + 1;
    show();
    if (+time.value >= +time.max) pause();
  }, 2500 / (+time.max + 1));
  showPlaying();
}

function buildTime() {
  at("play").addEventListener("click", play); // Space and Enter press a button
  at("time").addEventListener("input", () => {
    pause();
    page.scrubbed = true;
    show();
  });
  at("time").addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault(); // would scroll the page
    play();
  });
}

// --- The stored first result, and the controls ---

function unpack({ y, frames }) {
  const numbers = (text, scale) => Float32Array.from(atob(text), (c) => ((c.charCodeAt(0) << 24) >> 24) / scale);
  const pixels = (f) => ({ x: numbers(f.x, 30), x0: numbers(f.x0, 127), eps: numbers(f.eps, 30), after: numbers(f.after, 100) });
  return frames.map((f) => ({ ...pixels(f), values: numbers(f.values, 100), t: f.t }));
}

function build() {
  const choices = Array.from({ length: 10 }, (_, k) =>
    `<label><input type="radio" name="y" value="${k}" ${k === stored.y ? "checked" : ""}><span>${k}</span></label>`);
  at("classes").insertAdjacentHTML("beforeend", choices.join(""));
  const options = (names) => names.map(([value, text]) => `<option value="${value}">${text}</option>`).join("");
  at("block").innerHTML = options([0, 1, 2, 3, 4, 5].map((b) => [b, b + 1]));
  at("head").innerHTML = options([["mean", "mean"], ...[0, 1, 2, 3].map((h) => [h, h + 1])]);
  at("patches").style.gridTemplateColumns = "repeat(4, 1fr)";
  at("patches").innerHTML = Array.from({ length: 16 }, (_, j) => `<button type="button" tabindex="${j === page.patch ? 0 : -1}"></button>`).join("");
  [...at("patches").children].forEach((cell, j) => {
    for (const event of ["pointerenter", "focus", "click"]) cell.addEventListener(event, () => choose(j));
  });
  at("patches").addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -4, ArrowDown: 4 }[event.key], to = page.patch + move;
    if (!(to >= 0 && to < 16)) return;
    event.preventDefault();
    at("patches").children[to].focus();
  });
  for (const id of ["seed", "count", "sampler", "scale", "classes"]) at(id).addEventListener("change", start);
  at("scale").addEventListener("input", () => (at("scaleValue").textContent = at("scale").value));
  for (const id of ["block", "head"]) at(id).addEventListener("input", show);
  at("new").addEventListener("click", () => {
    at("seed").value = (chosen().seed + 1) % 10000;
    start();
  });
}

function choose(patch) {
  page.patch = patch;
  [...at("patches").children].forEach((cell, j) => (cell.tabIndex = j === patch ? 0 : -1));
  show();
}

async function load() {
  const answer = await fetch("digits.bin");
  if (!answer.ok) throw new Error(`digits.bin: ${answer.status}`);
  page.model = readModel(await answer.arrayBuffer());
  start();
}

// --- Tabs: the emoji model is loaded when its tab is opened, if the site has one ---

function buildTabs() {
  const names = document.body.dataset.emoji.split(" "), tabs = [at("digitsTab"), at("emojiTab")];
  let opening;
  if (!names[0]) return;
  const show = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
      at(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
    if (chosen === tabs[1]) opening ??= import("./emoji.js").then(({ open }) => (page.emoji = open(names)));
  };
  at("tabs").hidden = false;
  for (const tab of tabs) tab.addEventListener("click", () => show(tab));
  at("tabs").addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const other = tabs.find((tab) => tab !== document.activeElement);
    other.focus();
    show(other);
  });
  if (location.hash === "#emoji") show(tabs[1]);
}

build();
buildTime();
buildTabs();
page.frames = unpack(stored);
show();
load().catch((error) => (at("status").textContent = `The model could not be loaded (${error.message}). What you see is stored.`));
