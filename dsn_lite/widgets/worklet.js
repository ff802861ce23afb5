// The engine where sound arrives: an AudioWorkletProcessor. blocks.js, engine.js and resampler.js stand before it in one text,
// given to the browser as a data: URL (from disk a blob: URL is refused). It runs on the thread of the sound, in blocks of 128
// samples at the rate of the device, and must never be late: all memory is taken beforehand.

/** Samples first in, first out. */
class Queue {
  constructor(size) { this.data = new Float32Array(size); this.length = 0; }
  put(samples) { this.data.set(samples, this.length); this.length += samples.length; }
  take(into) {
    into.set(this.data.subarray(0, into.length));
    this.data.copyWithin(0, into.length, this.length);
    this.length -= into.length;
  }
}

/** Microphone in, enhanced sound out, without a browser, so that a test can run it. `tell` gets {noisy, enhanced, gates,
    underruns} of every two frames. */
class Speaker {
  constructor(rate, { table, weights, wasm }, tell) {
    this.engine = new Engine(table, weights, fastKernel(wasm, weights));
    const { hop } = this.engine, inside = table.signal.rate;
    for (let i = 0; i < 100; i++) this.engine.frame(new Float32Array(hop)); // until the browser has compiled it
    this.engine.reset();
    this.down = new Resampler(rate, inside); this.up = new Resampler(inside, rate);
    this.arrived = new Queue(4 * hop); this.leaving = new Queue(8 * Math.ceil((hop * rate) / inside) + 1024);
    // A hop of output comes at once, and is used up bit by bit until the next one: this much lies ready.
    this.leaving.put(new Float32Array(Math.ceil((hop * rate) / inside) + 256));
    this.hop = new Float32Array(hop); this.before = new Float32Array(hop); this.heard = new Float32Array(hop);
    this.settings = { policy: "learned", shift: 0, enhanced: true, monitor: false };
    this.share = 1; this.sound = 0; // of the enhanced sound in what is heard, and of what is heard in the output: both glide
    this.underruns = 0; this.decide = policies.learned(); this.tell = tell; this.note = [];
  }
  set({ policy, shift, list, ...others }) {
    Object.assign(this.settings, others);
    if (policy) this.decide = policies[policy](list ?? shift);
  }
  /** One block of the device: fills `output` from `input`, both of the same length. */
  block(input, output) {
    this.arrived.put(this.down.push(input));
    while (this.arrived.length >= this.hop.length) {
      this.arrived.take(this.hop);
      this.leaving.put(this.up.push(this.frame()));
    }
    if (this.leaving.length < output.length) { this.underruns++; return; }
    this.leaving.take(output);
    const target = this.settings.monitor ? 1 : 0;
    for (let i = 0; i < output.length; i++) output[i] *= this.sound += 0.002 * (target - this.sound);
  }
  frame() {
    const enhanced = this.engine.frame(this.hop, this.decide), target = this.settings.enhanced ? 1 : 0;
    for (let i = 0; i < enhanced.length; i++) {
      this.share += 0.01 * (target - this.share);
      this.heard[i] = this.before[i] + this.share * (enhanced[i] - this.before[i]);
    }
    this.before.set(this.hop); // what comes out is one hop old
    this.note.push({ noisy: this.hop.slice(), enhanced: enhanced.slice(), gates: this.engine.gates.slice() });
    if (this.note.length === 2) this.tell({ frames: this.note.splice(0), underruns: this.underruns });
    return this.heard;
  }
}

if (typeof registerProcessor === "function") {
  registerProcessor("speak", class extends AudioWorkletProcessor {
    constructor({ processorOptions }) {
      super();
      this.speaker = new Speaker(sampleRate, processorOptions, (note) => this.port.postMessage(note));
      this.mono = new Float32Array(128);
      this.port.onmessage = ({ data }) => { if (data === "end") this.ended = true; else this.speaker.set(data); };
      this.port.postMessage("ready");
    }
    process([input], [output]) {
      this.mono.fill(0);
      for (const channel of input) for (let i = 0; i < 128; i++) this.mono[i] += channel[i] / input.length;
      this.speaker.block(this.mono, output[0]);
      for (const channel of output.slice(1)) channel.set(output[0]);
      return !this.ended;
    }
  });
}
