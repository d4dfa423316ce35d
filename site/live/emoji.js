// The second tab: a MeanFlow model (lesson 35) samples emoji in color, in one, two or four network calls each.
import { normal } from "./dit.js";

const at = (id) => document.getElementById(id);
const IMAGES = 12, SIZE = 32;
export const emoji = { run: 0, done: 0, seconds: 0, began: 0, worker: null }; // for tests, and for the curious

function draw(k, x) {
  const context = at("emojiImages").children[k].getContext("2d"), image = context.createImageData(SIZE, SIZE);
  const pixels = SIZE * SIZE;
  for (let i = 0; i < pixels; i++)
    for (let c = 0; c < 4; c++) image.data[4 * i + c] = c < 3 ? (x[c * pixels + i] + 1) * 127.5 : 255; // is clamped
  context.putImageData(image, 0, 0);
}

const checked = (id) => document.querySelector(`#${id} input:checked`);
const say = (text) => (at("emojiStatus").textContent = text);

function start() {
  const seed = Math.max(0, Math.floor(+at("emojiSeed").value) || 0), count = +checked("emojiCalls").value;
  const y = +checked("emojiClasses").value, name = checked("emojiClasses").dataset.name;
  emoji.run += 1;
  emoji.began = performance.now();
  [...at("emojiImages").children].forEach((canvas, k) => {
    draw(k, normal(IMAGES * seed + k, 3 * SIZE * SIZE)());
    canvas.setAttribute("aria-label", `Noise, to become number ${k + 1} of ${IMAGES}: ${name}`);
  });
  emoji.worker.postMessage({ y, seed, count, images: IMAGES });
}

function receive({ data }) {
  if (data.error) return say(`The model could not be loaded (${data.error}).`);
  if (data.loaded) return say(`Loading the model: ${(data.loaded / 1e6).toFixed(1)} MB.`);
  if (data.ready) return (emoji.began = performance.now());
  const { run, k, call, x } = data, count = +checked("emojiCalls").value, name = checked("emojiClasses").dataset.name;
  if (run !== emoji.run) return; // a control was changed
  draw(k, x);
  if (call < count) return;
  at("emojiImages").children[k].setAttribute("aria-label", `Sample ${k + 1} of ${IMAGES}: ${name}`);
  const seconds = (performance.now() - emoji.began) / 1000, calls = `${count} network call${count > 1 ? "s" : ""}`;
  emoji.seconds = seconds / (k + 1);
  if (k + 1 < IMAGES) return say(`Sampling: image ${k + 1} of ${IMAGES}.`);
  say(`${IMAGES} images of ${name}, ${emoji.seconds.toFixed(2)} seconds and ${calls} each.`);
  emoji.done = run;
}

// Build the controls for the names of the classes, load the model beside the page, and sample.
export function open(names) {
  const shown = names.map((name) => name.replace("-", " ").replace("3d", "3D"));
  const radio = (group, value, text, on) =>
    `<label><input type="radio" name="${group}" value="${value}" data-name="${text}" ${on ? "checked" : ""}><span>${text}</span></label>`;
  at("emojiClasses").insertAdjacentHTML("beforeend", shown.map((text, y) => radio("emojiY", y, text, y === 1)).join(""));
  at("emojiCalls").insertAdjacentHTML("beforeend", [1, 2, 4].map((n) => radio("emojiN", n, n, n === 4)).join(""));
  at("emojiImages").innerHTML = `<canvas width="${SIZE}" height="${SIZE}" role="img"></canvas>`.repeat(IMAGES);
  for (const id of ["emojiClasses", "emojiCalls", "emojiSeed"]) at(id).addEventListener("change", start);
  at("emojiNew").addEventListener("click", () => {
    at("emojiSeed").value = ((Math.floor(+at("emojiSeed").value) || 0) + 1) % 10000;
    start();
  });
  emoji.worker = new Worker(new URL("emoji_worker.js", import.meta.url), { type: "module" });
  emoji.worker.addEventListener("message", receive);
  emoji.worker.addEventListener("error", () => say("The model could not be run in this browser."));
  start();
  return emoji;
}
