// A Diffusion Transformer in plain JavaScript: it reads a trained model and samples images. No library.
// Each part names the lesson that derives it. Matrices are flat arrays, row by row: (T, D) has T*D numbers.

// --- Weights: one safetensors file. An 8-byte length, a JSON header, then the numbers. ---

export function readModel(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true)), weights = {};
  const { __metadata__: facts, ...tensors } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const numbers = (name, Kind) => new Kind(buffer.slice(...tensors[name].data_offsets.map((at) => 8 + length + at)));
  for (const [name, { dtype }] of Object.entries(tensors)) {
    if (dtype === "F32") weights[name] = numbers(name, Float32Array);
    else { // a matrix in 16-bit integers, and a scale for each of its rows
      const scale = numbers(`${name}.scale`, Float32Array), whole = numbers(name, Int16Array), n = whole.length / scale.length;
      weights[name] = Float32Array.from(whole);
      scale.forEach((s, row) => { for (let k = row * n; k < (row + 1) * n; k++) weights[name][k] *= s; });
    }
  }
  return { weights, config: JSON.parse(facts.config), sampling: JSON.parse(facts.sampling) };
}

// --- Layers ---

// Lesson 03 embeds patches with one linear map, lesson 12 writes the whole network with them: y = x W^T + b for each
// row of x. W is (out, in), as PyTorch stores it. Two rows and four outputs at a time, for speed.
function linear({ weights }, name, x) {
  const w = weights[`${name}.weight`], b = weights[`${name}.bias`], out = b.length, n = w.length / out;
  const rows = x.length / n, y = new Float32Array(rows * out);
  for (let r = 0; r < rows; r += 2) {
    const below = r + 1 < rows ? 1 : 0; // an odd last row is its own second
    for (let o = 4 * Math.ceil(out / 4) - 4; o >= 0; o -= 4) { // from the end: what falls past a row is written again
      let a0 = b[o], a1 = b[o + 1], a2 = b[o + 2], a3 = b[o + 3], b0 = a0, b1 = a1, b2 = a2, b3 = a3;
      for (let i = r * n, j = (r + below) * n, k = o * n, end = i + n; i < end; i++, j++, k++) {
        const u = x[i], v = x[j], w0 = w[k], w1 = w[k + n], w2 = w[k + 2 * n], w3 = w[k + 3 * n];
        a0 += u * w0; a1 += u * w1; a2 += u * w2; a3 += u * w3;
        b0 += v * w0; b1 += v * w1; b2 += v * w2; b3 += v * w3;
      }
      const at = r * out + o, to = at + below * out;
      y[at] = a0; y[at + 1] = a1; y[at + 2] = a2; y[at + 3] = a3;
      y[to] = b0; y[to + 1] = b1; y[to + 2] = b2; y[to + 3] = b3;
    }
  }
  return y;
}

// Lesson 05: SiLU stands between the layers of the timestep's MLP; lesson 10: and before each modulation.
const silu = (x) => x.map((v) => v / (1 + Math.exp(-v)));

// Lesson 07: GELU, in its form with tanh, stands between the two layers of a block's MLP; the residual stream is a sum.
const gelu = (x) => x.map((v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v * v * v))));
const add = (a, b) => a.map((v, i) => v + b[i]);

// Lesson 07: each token gets mean 0 and variance 1. Lesson 10: then the condition scales and shifts each channel.
function modulatedNorm(x, shift, scale) {
  const D = shift.length, y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += D) {
    const token = x.subarray(start, start + D), mean = token.reduce((s, v) => s + v, 0) / D;
    const variance = token.reduce((s, v) => s + (v - mean) ** 2, 0) / D, inverse = 1 / Math.sqrt(variance + 1e-6);
    for (let d = 0; d < D; d++) y[start + d] = (token[d] - mean) * inverse * (1 + scale[d]) + shift[d];
  }
  return y;
}

// Lesson 06: every token takes a mean of all values, weighted by softmax(q k / sqrt(d)), in each head.
function attention(model, name, x, heads) {
  const D = model.weights[`${name}.proj.bias`].length, T = x.length / D, d = D / heads;
  const qkv = linear(model, `${name}.qkv`, x), mixed = new Float32Array(x.length), maps = [];
  for (let h = 0; h < heads; h++) {
    const map = new Float32Array(T * T);
    for (let i = 0; i < T; i++) {
      const q = i * 3 * D + h * d, row = map.subarray(i * T, (i + 1) * T);
      for (let j = 0; j < T; j++) {
        let product = 0;
        for (let e = 0, k = j * 3 * D + D + h * d; e < d; e++) product += qkv[q + e] * qkv[k + e];
        row[j] = product / Math.sqrt(d);
      }
      const largest = Math.max(...row);
      row.forEach((v, j) => (row[j] = Math.exp(v - largest)));
      const total = row.reduce((s, v) => s + v, 0);
      row.forEach((v, j) => (row[j] = v / total));
      for (let j = 0; j < T; j++)
        for (let e = 0, v = j * 3 * D + 2 * D + h * d; e < d; e++) mixed[i * D + h * d + e] += row[j] * qkv[v + e];
    }
    maps.push(map);
  }
  return { out: linear(model, `${name}.proj`, mixed), maps };
}

// --- The network ---

// Lesson 05: cosines, then sines, of a time at 128 frequencies, and a small MLP.
function embedTime(model, name, t) {
  const waves = new Float32Array(256);
  for (let i = 0; i < 128; i++) {
    const phase = t * Math.exp((-Math.log(10000) * i) / 128);
    waves[i] = Math.cos(phase);
    waves[128 + i] = Math.sin(phase);
  }
  return linear(model, `${name}.mlp.2`, silu(linear(model, `${name}.mlp.0`, waves)));
}

// Lesson 05: the timestep, plus a vector for the class. Lesson 35: a MeanFlow model gets two flow times, as t and t - r.
function condition(model, t, y, r) {
  const scale = model.config.time_scale, tEmb = embedTime(model, "t_embedder", scale ? scale * t : t), D = tEmb.length;
  const c = add(tEmb, model.weights["y_embedder.embedding_table.weight"].subarray(y * D, (y + 1) * D));
  return scale ? add(c, embedTime(model, "span_embedder", scale * (t - r))) : c;
}

// Lesson 03: cut the image (C, H, W) into patches, row by row, each flattened channel by channel.
function patchify(image, C, size, p) {
  const tokens = [];
  for (let top = 0; top < size; top += p)
    for (let left = 0; left < size; left += p)
      for (let c = 0; c < C; c++)
        for (let i = 0; i < p; i++)
          for (let j = 0; j < p; j++) tokens.push(image[(c * size + top + i) * size + left + j]);
  return Float32Array.from(tokens);
}

// Lesson 03, and its trap: the decoder emits the channels of a pixel side by side.
function unpatchify(tokens, C, size, p) {
  const image = new Float32Array(C * size * size), across = size / p;
  for (let n = 0, k = 0; n < across * across; n++)
    for (let i = 0; i < p; i++)
      for (let j = 0; j < p; j++)
        for (let c = 0; c < C; c++)
          image[(c * size + Math.floor(n / across) * p + i) * size + (n % across) * p + j] = tokens[k++];
  return image;
}

// Lesson 12: x (C, H, W), timestep t, class y -> predicted noise, values of the variance, and what happened inside.
// Lesson 35: x at flow time t, class y, earlier flow time r -> average velocity between them, as `out`.
export function forward(model, x, t, y, r) {
  const { input_size: size, patch_size: p, in_channels: C, depth, num_heads } = model.config;
  const c = silu(condition(model, t, y, r)), D = c.length, maps = [], gates = [];
  let h = add(linear(model, "x_embedder.proj", patchify(x, C, size, p)), model.weights.pos_embed); // lesson 04
  for (let b = 0; b < depth; b++) {
    const name = `blocks.${b}`, m = linear(model, `${name}.adaLN_modulation.1`, c); // lesson 11: six vectors
    const [shift1, scale1, gate1, shift2, scale2, gate2] = [0, 1, 2, 3, 4, 5].map((k) => m.subarray(k * D, (k + 1) * D));
    const attended = attention(model, `${name}.attn`, modulatedNorm(h, shift1, scale1), num_heads);
    h = h.map((v, i) => v + gate1[i % D] * attended.out[i]);
    const hidden = gelu(linear(model, `${name}.mlp.fc1`, modulatedNorm(h, shift2, scale2)));
    const mlp = linear(model, `${name}.mlp.fc2`, hidden);
    h = h.map((v, i) => v + gate2[i % D] * mlp[i]);
    maps.push(attended.maps);
    gates.push([gate1, gate2]);
  }
  const m = linear(model, "final_layer.adaLN_modulation.1", c);
  const tokens = linear(model, "final_layer.linear", modulatedNorm(h, m.subarray(0, D), m.subarray(D)));
  const out = unpatchify(tokens, model.config.learn_sigma ? 2 * C : C, size, p), pixels = C * size * size;
  return { out, eps: out.subarray(0, pixels), values: out.subarray(pixels), maps, gates };
}

// Lesson 18: extrapolate from the prediction without a class past the one with it.
export function guided(model, x, t, y, scale) {
  const cond = forward(model, x, t, y);
  if (scale === 1) return cond;
  const { eps: uncond } = forward(model, x, t, model.config.num_classes);
  return { ...cond, eps: cond.eps.map((v, i) => uncond[i] + scale * (v - uncond[i])) };
}

// --- Diffusion ---

// Lesson 14: alpha-bar of the linear schedule at `count` timesteps at equal distances (halves go to the even side).
export function schedule(count, T = 1000) {
  const bars = [], stride = count > 1 ? (T - 1) / (count - 1) : 1, steps = [];
  for (let t = 0, bar = 1; t < T; t++)
    bars.push((bar *= 1 - Math.min(0.999, (1000 / T) * (1e-4 + (t * (0.02 - 1e-4)) / Math.max(1, T - 1)))));
  for (let k = 0, position = 0; k < count; k++, position += stride) {
    const floor = Math.floor(position), rest = position - floor;
    const t = rest === 0.5 ? floor + (floor % 2) : Math.round(position);
    steps.push({ t, bar: bars[t], previous: k ? steps[k - 1].bar : 1 });
  }
  return steps;
}

// Lesson 15: the predicted clean image, and the log variance between its two bounds.
export function predict({ eps, values }, x, k, steps) {
  const { bar, previous } = steps[k], beta = 1 - bar / previous, large = Math.log(beta);
  const next = steps[Math.max(k, Math.min(1, steps.length - 1))], nextBeta = 1 - next.bar / next.previous;
  const clipped = steps.length > 1 ? (nextBeta * (1 - next.previous)) / (1 - next.bar) : beta; // entry 1 for t = 0
  const x0 = x.map((v, i) => Math.max(-1, Math.min(1, (v - Math.sqrt(1 - bar) * eps[i]) / Math.sqrt(bar))));
  return { x0, logVariance: values.map((v) => ((v + 1) / 2) * large + ((1 - v) / 2) * Math.log(clipped)), beta };
}

// Lesson 16: one step, from x_t to x_{t-1}, with the noise z.
export function step(sampler, prediction, x, k, steps, z) {
  const { bar, previous } = steps[k], { x0, logVariance, beta } = prediction;
  if (sampler === "ddim")
    return x.map((v, i) => {
      const eps = (v - Math.sqrt(bar) * x0[i]) / Math.sqrt(1 - bar); // the noise that fits the clipped x_0
      return Math.sqrt(previous) * x0[i] + Math.sqrt(1 - previous) * eps;
    });
  const ofX0 = (beta * Math.sqrt(previous)) / (1 - bar), ofX = ((1 - previous) * Math.sqrt(1 - beta)) / (1 - bar);
  return x.map((v, i) => ofX0 * x0[i] + ofX * v + (k ? Math.exp(0.5 * logVariance[i]) * z[i] : 0));
}

// Sample one image; yields each step, so that a page can draw it. `noise()` returns (C, H, W) normal numbers.
// Without steps, sampler or guidance scale, those that the model was exported with.
export function* sample(model, { y, noise, count = +model.sampling.steps, sampler = model.sampling.sampler,
  scale = model.sampling.cfg_scale }) {
  const steps = schedule(count, model.sampling.num_timesteps);
  let x = noise();
  for (let k = count - 1; k >= 0; k--) {
    const output = guided(model, x, steps[k].t, y, scale), prediction = predict(output, x, k, steps);
    const after = step(sampler, prediction, x, k, steps, noise());
    yield { t: steps[k].t, x, after, ...output, ...prediction };
    x = after;
  }
}

// Lesson 35: `count` jumps of equal length along the average velocity u, x_r = x_t - (t - r) u. Flow time: 0 is data.
export function* jumps(model, { y, count = +model.sampling.steps, noise }) {
  for (let k = count, x = noise(); k > 0; k--) {
    const { out: u } = forward(model, x, k / count, y, (k - 1) / count);
    x = x.map((v, i) => v - u[i] / count);
    yield { t: (k - 1) / count, x };
  }
}

// Lesson 02: standard normal numbers, here from a seed: Mulberry32, then Box and Muller's transform.
export function normal(seed, length) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
  return () =>
    new Float32Array(length).map(() => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}
