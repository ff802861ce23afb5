// Runs what stands behind the microphone, for the tests: node run_worklet.js WORKLET FOLDER JOB RATE
//
// JOB resample: samples.bin at RATE to 16 kHz (down.bin) and those back (up.bin), in blocks of 128; prints the delay of the
// way there and back in samples at RATE. JOB speak: samples.bin at RATE through the processor (heard.bin); prints its account. JOB random: the same with gates drawn.
const fs = require("fs"), path = require("path");
const [, , worklet, folder, job, rateText] = process.argv, rate = Number(rateText);
const { Resampler, Speaker } = new Function(`${fs.readFileSync(worklet, "utf8")}; return { Resampler, Speaker };`)();
const read = (name) => fs.readFileSync(path.join(folder, name));
const floats = (name) => new Float32Array(new Uint8Array(read(name)).buffer);
const write = (name, parts) => fs.writeFileSync(path.join(folder, name), Buffer.concat(parts.map((part) =>
  Buffer.from(Float32Array.from(part).buffer))));
const samples = floats("samples.bin"), blocks = Math.floor(samples.length / 128);
const block = (t) => samples.subarray(128 * t, 128 * (t + 1));

if (job === "resample") {
  const down = new Resampler(rate, 16000), up = new Resampler(16000, rate), low = [], high = [];
  for (let t = 0; t < blocks; t++) {
    low.push(down.push(block(t)).slice());
    high.push(up.push(low.at(-1)).slice());
  }
  write("down.bin", low); write("up.bin", high);
  console.log(JSON.stringify({ delay: down.delay + (up.delay * rate) / 16000 }));
} else {
  const weights = floats("weights.bin"), notes = [], heard = [];
  const speaker = new Speaker(rate, { table: JSON.parse(read("table.json")), weights,
    wasm: new Uint8Array(read("products.wasm")) }, (note) => notes.push(note));
  const set = job === "random" ? { policy: "random", list: Array(speaker.engine.gates.length).fill(0.3) } : { policy: "learned" };
  speaker.set({ shift: 0, enhanced: true, monitor: true, ...set });
  for (let t = 0; t < blocks; t++) {
    const output = new Float32Array(128);
    speaker.block(block(t), output);
    heard.push(output);
  }
  const frames = notes.flatMap((note) => note.frames);
  write("heard.bin", heard);
  write("noisy.bin", frames.map((frame) => frame.noisy)); write("enhanced.bin", frames.map((frame) => frame.enhanced));
  write("gates.bin", frames.map((frame) => frame.gates));
  console.log(JSON.stringify({ underruns: speaker.underruns, frames: frames.length, waiting: speaker.leaving.length }));
}
