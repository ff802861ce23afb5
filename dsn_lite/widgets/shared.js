// What several widgets need. `front_end` of shared.py puts this text before that of a widget, so that each widget stays one
// self-contained module (the anywidget front-end convention).

const RATE = 16000, HOP = 256, WINDOW = 512, BINS = WINDOW / 2 + 1, RANGE_DB = 70;
const FRAME = HOP / RATE; // seconds

// ------------------------------------------------------------------------------------------------------------- tools
/** Make an element: attributes, then children (nodes or text); attributes that begin with "on" are listeners. */
function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

let instances = 0;
/** A name for the radio buttons of one widget, unlike those of another on the page. */
const uniqueName = () => `dsn-${++instances}-${Math.random().toString(36).slice(2)}`;

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const minus = (text) => String(text).replace("-", "\u2212");
const percent = (x) => `${Math.round(100 * x)}\u202f%`;
const grouped = (x) => String(Math.round(x)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const mean = (values, from = 0, to = values.length) => {
  let sum = 0;
  for (let i = from; i < to; i++) sum += values[i];
  return sum / Math.max(1, to - from);
};
/** Mean of `values` over `width` frames to both sides of each frame. */
const running = (values, width) =>
  Float32Array.from(values, (_, t) => mean(values, Math.max(0, t - width), Math.min(values.length, t + width + 1)));

/** The part [offset, length] of a binary trait (a DataView). */
const bytesOf = (data, [at, length]) => data.buffer.slice(data.byteOffset + at, data.byteOffset + at + length);

/** Zeros and ones [count] that `Pack.bits` has packed. */
function unpackBits(bytes, count) {
  const bits = new Uint8Array(bytes);
  return Uint8Array.from({ length: count }, (_, i) => (bits[i >> 3] >> (i & 7)) & 1);
}

/** A row of radio buttons that look like one switch; `choices` are {key, name, hint}. */
function choice(legend, choices, chosen, choose) {
  const name = uniqueName();
  const inputs = choices.map(({ key }) => h("input", { type: "radio", name, value: key, checked: key === chosen,
    onchange: () => choose(key) }));
  const field = h("fieldset", { class: "dsn-modes" }, h("legend", {}, legend), ...choices.map((one, i) =>
    h("label", { title: one.hint }, inputs[i], h("span", {}, one.name))));
  return { field, show: (key) => inputs.forEach((input) => { input.checked = input.value === String(key); }) };
}

/** The keys of a widget in words, for its table. */
const keyWords = (...pairs) => h("p", {}, ...pairs.flatMap(([key, text]) => [h("kbd", {}, key), text]));

/** Call `draw` when `node` changes its size or the page its colours; gives a function that ends this. */
function watchLooks(node, draw) {
  const sized = new ResizeObserver(draw), themed = new MutationObserver(draw);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  sized.observe(node);
  themed.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "class"] });
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  dark.addEventListener("change", draw);
  return () => { sized.disconnect(); themed.disconnect(); dark.removeEventListener("change", draw); };
}

/** Give a canvas `width` x `height` page pixels at the resolution of the screen; gives its context. */
function sizeCanvas(canvas, width, height) {
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return context;
}

// ------------------------------------------------------------------------------------------------------- spectrograms
/** Spectra of samples at 16 kHz, {re, im} [frame * BINS + bin]: the network's own frames (square-root Hann, 512 by 256). */
function transform(wave, frames) {
  const taper = Float64Array.from({ length: WINDOW }, (_, i) => Math.sin((Math.PI * i) / WINDOW));
  const cos = Float64Array.from({ length: WINDOW / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / WINDOW));
  const sin = Float64Array.from({ length: WINDOW / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / WINDOW));
  const bits = Math.log2(WINDOW), re = new Float64Array(WINDOW), im = new Float64Array(WINDOW);
  const out = { re: new Float32Array(frames * BINS), im: new Float32Array(frames * BINS) };
  for (let t = 0; t < frames; t++) {
    im.fill(0);
    for (let i = 0; i < WINDOW; i++) {
      let reversed = 0;
      for (let b = 0; b < bits; b++) reversed |= ((i >> b) & 1) << (bits - 1 - b);
      re[reversed] = (wave[(t - 1) * HOP + i] || 0) * taper[i];
    }
    for (let size = 2; size <= WINDOW; size *= 2) {
      for (let start = 0; start < WINDOW; start += size) {
        for (let k = 0; k < size / 2; k++) {
          const c = cos[(k * WINDOW) / size], s = sin[(k * WINDOW) / size], a = start + k, b = a + size / 2;
          const x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
          re[b] = re[a] - x; im[b] = im[a] - y; re[a] += x; im[a] += y;
        }
      }
    }
    for (let f = 0; f < BINS; f++) { out.re[t * BINS + f] = re[f]; out.im[t * BINS + f] = im[f]; }
  }
  return out;
}

/** Levels in dB [frame * BINS + bin] of a sum of spectra, each times its gain: parts are [spectra, gain]. */
function levelsOf(...parts) {
  const out = new Float32Array(parts[0][0].re.length);
  for (let i = 0; i < out.length; i++) {
    let re = 0, im = 0;
    for (const [spectra, gain] of parts) { re += gain * spectra.re[i]; im += gain * spectra.im[i]; }
    out[i] = 10 * Math.log10((re * re + im * im) / WINDOW + 1e-12);
  }
  return out;
}

/** The level that all but a thousandth of the levels stay below: the lightest colour of a picture. */
function highest(levels) {
  const sorted = Float32Array.from(levels).sort();
  return sorted[Math.floor(0.999 * sorted.length)];
}

const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97],
  [254, 194, 135], [252, 253, 191]];

/** Picture of levels, one pixel a bin and frame; `top` dB is the lightest colour. */
function picture(levels, frames, top) {
  const canvas = h("canvas", { width: frames, height: BINS });
  const context = canvas.getContext("2d"), image = context.createImageData(frames, BINS);
  for (let t = 0; t < frames; t++) {
    for (let f = 0; f < BINS; f++) {
      const x = clamp(1 + (levels[t * BINS + f] - top) / RANGE_DB, 0, 1) * (MAGMA.length - 1);
      const low = Math.min(Math.floor(x), MAGMA.length - 2), at = 4 * ((BINS - 1 - f) * frames + t);
      for (let c = 0; c < 3; c++) image.data[at + c] = MAGMA[low][c] + (x - low) * (MAGMA[low + 1][c] - MAGMA[low][c]);
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// -------------------------------------------------------------------------------------------------------------- sound
/** Decode sounds {name: bytes} to AudioBuffers at 16 kHz; needs no permission to play. */
async function decode(sounds) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const entries = Object.entries(sounds).map(async ([name, bytes]) =>
    [name, await context.decodeAudioData(bytes.slice(0))]);
  return Object.fromEntries(await Promise.all(entries));
}

/** A context at the rate of the sounds: at another one, Chromium would draw straight lines between their samples. */
function playback() {
  try { return new AudioContext({ sampleRate: RATE }); } catch { return new AudioContext(); }
}

/** Plays all its sounds at once, each with its gain: changing the gains keeps the very sample. */
class Player {
  constructor() {
    this.buffers = {}; this.gains = {}; this.voices = {}; this.at = 0; this.repeat = true; this.playing = false;
    this.region = null; // [from, to] in seconds that is repeated instead of the whole
    this.onend = () => {};
  }
  get seconds() { return Object.values(this.buffers)[0]?.duration ?? 0; }
  get position() {
    if (!this.playing) return this.at;
    const passed = this.at + Math.max(0, this.context.currentTime - (this.context.outputLatency || 0) - this.started);
    const [from, to] = this.region ?? [0, this.seconds];
    if (!this.repeat) return Math.min(passed, this.seconds);
    return passed < to ? passed : from + ((passed - to) % (to - from));
  }
  async play() {
    if (this.playing || !this.seconds) return;
    this.context ??= playback();
    const mine = (this.starts = (this.starts ?? 0) + 1);
    this.playing = true;
    this.started = Infinity;
    await this.context.resume();
    if (!this.playing || mine !== this.starts) return; // paused meanwhile
    if (this.region && !(this.at >= this.region[0] && this.at < this.region[1])) this.at = this.region[0];
    if (this.at >= this.seconds - 0.01) this.at = 0;
    this.started = this.context.currentTime + 0.03;
    for (const name of Object.keys(this.buffers)) this.start(name, this.started, this.at);
  }
  start(name, when, at) {
    const [loopStart, loopEnd] = this.region ?? [0, 0];
    const source = new AudioBufferSourceNode(this.context,
      { buffer: this.buffers[name], loop: this.repeat, loopStart, loopEnd });
    const gain = new GainNode(this.context, { gain: this.gains[name] ?? 0 });
    source.connect(gain).connect(this.context.destination);
    source.start(when, at);
    source.onended = () => {
      if (this.voices[name]?.source === source) { this.pause(); this.at = 0; this.onend(); }
    };
    this.voices[name] = { source, gain };
  }
  /** Put another sound in the place of one; while playing it takes over at the same position. */
  replace(name, buffer) {
    this.buffers[name] = buffer;
    const voice = this.voices[name];
    if (!voice) return;
    const when = this.context.currentTime + 0.03, [from, to] = this.region ?? [0, this.seconds];
    const at = this.position + (this.context.outputLatency || 0) + 0.03;
    this.start(name, when, at < to ? at : from + ((at - to) % (to - from)));
    voice.gain.gain.setTargetAtTime(0, when, 0.004);
    voice.source.stop(when + 0.05);
  }
  pause() {
    if (!this.playing) return;
    this.at = this.position;
    this.playing = false;
    for (const { source } of Object.values(this.voices)) { source.onended = null; source.stop(); source.disconnect(); }
    this.voices = {};
  }
  seek(seconds) {
    const was = this.playing;
    this.pause();
    this.at = clamp(seconds, 0, Math.max(0, this.seconds - FRAME));
    return was ? this.play() : undefined;
  }
  /** Let sounds through with gains {name: gain}, and no others. */
  mix(gains) {
    this.gains = gains;
    for (const [name, { gain }] of Object.entries(this.voices)) {
      gain.gain.setTargetAtTime(gains[name] ?? 0, this.context.currentTime, 0.004);
    }
  }
  close() { this.pause(); this.context?.close(); }
}
