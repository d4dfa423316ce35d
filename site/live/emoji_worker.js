// Runs the emoji model beside the page, which stays alive. Answers: { loaded }, { ready }, { run, k, call, x } or { error }.
import { jumps, normal, readModel } from "./dit.js";

let run = 0;

async function load() {
  const answer = await fetch("emoji.bin");
  if (!answer.ok) throw new Error(`emoji.bin: ${answer.status}`);
  const parts = [], reader = answer.body.getReader();
  for (let loaded = 0, part; !(part = await reader.read()).done; postMessage({ loaded })) {
    parts.push(part.value);
    loaded += part.value.length;
  }
  return readModel(await new Blob(parts).arrayBuffer());
}

const model = load();
model.then(() => postMessage({ ready: true }), (error) => postMessage({ error: error.message }));

onmessage = async ({ data: { y, seed, count, images } }) => {
  const own = ++run, loaded = await model, { in_channels: C, input_size: size } = loaded.config;
  for (let k = 0; k < images; k++) {
    let call = 0;
    for (const { x } of jumps(loaded, { y, count, noise: normal(images * seed + k, C * size * size) })) {
      postMessage({ run: own, k, call: ++call, x });
      await new Promise((done) => setTimeout(done)); // a new request may have come
      if (own !== run) return;
    }
  }
};
