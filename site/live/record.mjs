// Record the first result that the page shows before the model is there: node site/live/record.mjs MODEL > stored.js
import fs from "fs";
import { normal, readModel, sample } from "./dit.js";

const file = fs.readFileSync(process.argv[2]), y = 3, frames = [];
const model = readModel(file.buffer.slice(file.byteOffset, file.byteOffset + file.length));
const pack = (values, scale) =>
  Buffer.from(Int8Array.from(values, (v) => Math.max(-127, Math.min(127, Math.round(v * scale)))).buffer).toString("base64");
for (const f of sample(model, { y, noise: normal(0, 64) }))
  frames.push({ t: f.t, x: pack(f.x, 30), x0: pack(f.x0, 127), eps: pack(f.eps, 30), after: pack(f.after, 100), values: pack(f.values, 100) });
console.log(`// Written by record.mjs: one sample of the bundled model, 50 steps, as 8-bit numbers.\nexport const stored = ${JSON.stringify({ y, frames })};`);
