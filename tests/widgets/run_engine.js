// Runs the engine of the page over samples, for the tests: node run_engine.js ENGINE FOLDER KERNEL JOB
//
// FOLDER holds table.json, weights.bin, samples.bin (float32) and products.wasm. KERNEL is plain or fast. JOB is trace (every
// tensor of every frame, to trace.bin, with names and sizes as JSON on standard output) or time (microseconds a frame).
const fs = require("fs"), path = require("path");
const [, , engineFile, folder, kernelName, job] = process.argv;
const { Engine, fastKernel, plain, policies } =
  new Function(`${fs.readFileSync(engineFile, "utf8")}; return { Engine, fastKernel, plain, policies };`)();
const read = (name) => fs.readFileSync(path.join(folder, name));
const floats = (name) => new Float32Array(new Uint8Array(read(name)).buffer);

const table = JSON.parse(read("table.json")), weights = floats("weights.bin"), samples = floats("samples.bin");
const makeKernel = () => (kernelName === "fast" ? fastKernel(new Uint8Array(read("products.wasm")), weights) : plain);
const kernel = makeKernel();
if (kernelName === "fast" && kernel === plain) throw new Error("WebAssembly does not run here");
const engine = new Engine(table, weights, kernel), { hop } = engine, frames = Math.floor(samples.length / hop);
const block = (t) => samples.subarray(t * hop, (t + 1) * hop);


/** Every tensor of every frame, by name. */
function trace(engine) {
  const parts = [], names = [];
  engine.reset();
  for (let t = 0; t < frames; t++) {
    engine.frame(block(t), policies.learned(table.shift ?? 0));
    const now = { features: engine.features.numbers };
    for (const row of engine.rows) {
      if (row.static) now[`${row.name} static`] = row.s.numbers;
      if (row.d) now[`${row.name} dynamic`] = row.d.numbers;
    }
    engine.states.forEach((state, i) => { now[`state ${i}`] = state.numbers; });
    if (engine.seen) now["policy input"] = engine.seen.numbers;
    if (engine.policy) Object.assign(now, { margins: engine.margins, gates: Float32Array.from(engine.gates) });
    now.wave = engine.output;
    if (!t) for (const [name, tensor] of Object.entries(now)) names.push([name, tensor.length]);
    for (const tensor of Object.values(now)) parts.push(Float32Array.from(tensor));
  }
  return { parts, names };
}

if (job === "trace") {
  const { parts, names } = trace(engine);
  fs.writeFileSync(path.join(folder, "trace.bin"), Buffer.concat(parts.map((part) => Buffer.from(part.buffer))));
  console.log(JSON.stringify(names));
} else if (job === "teeth") {
  // Each array of the table times 1.01: the largest change of any tensor over that tensor's scale.
  const whole = trace(engine), count = whole.names.length, found = {};
  const scales = whole.names.map((_, i) => Math.max(...whole.parts.filter((_, j) => j % count === i).map((part) =>
    part.reduce((top, x) => Math.max(top, Math.abs(x)), 0))));
  const layers = table.rows.flatMap((row) => [[`${row.name} static`, row.static], [`${row.name} dynamic`, row.dynamic]]);
  for (const [name, arrays] of [...layers, ["policy", table.policy]]) {
    for (const [array, { at, shape }] of Object.entries(arrays ?? {})) {
      const end = at + shape.reduce((a, b) => a * b, 1), changed = weights.map((w, i) => (i >= at && i < end ? 1.01 * w : w));
      let most = 0;
      trace(new Engine(table, changed, makeKernel())).parts.forEach((part, j) => {
        for (let i = 0; i < part.length; i++)
          most = Math.max(most, Math.abs(part[i] - whole.parts[j][i]) / scales[j % count]);
      });
      found[`${name} ${array}`] = most;
    }
  }
  console.log(JSON.stringify(found));
} else {
  const ways = { open: policies.open(), closed: policies.closed(), learned: policies.learned(table.shift ?? 0) };
  const times = { open: [], closed: [], learned: [] }; // processor time, in turn: what else the machine does counts less
  let share = 0;
  for (let round = 0; round < 30; round++) {
    for (const [name, way] of Object.entries(ways)) {
      const began = process.cpuUsage();
      for (let t = 0; t < frames; t++) {
        engine.frame(block(t), way);
        if (name === "learned") share += engine.gates.reduce((a, b) => a + b, 0) / engine.gates.length / frames / 30;
      }
      const { user, system } = process.cpuUsage(began);
      times[name].push((user + system) / frames);
    }
  }
  const sorted = (list) => list.slice(5).sort((a, b) => a - b);
  const of = (pick) => Object.fromEntries(Object.entries(times).map(([name, list]) => [name, pick(sorted(list))]));
  console.log(JSON.stringify({ least: of((l) => l[0]), median: of((l) => l[l.length >> 1]), gatesOpen: share }));
}
