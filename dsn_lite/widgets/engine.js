// One frame of the network: 256 new samples in, 256 enhanced samples out (those of one hop ago). blocks.js stands before it.
//
//   samples -> DC blocker -> STFT -> compression -> features -> small network -> policy -> gates
//           -> refinement behind open gates -> small mask + correction -> spectrum -> inverse STFT -> samples

/** Fourier transform of real frames and back, by a complex transform of half the length (in doubles: it costs little). */
class Fourier {
  constructor(length) {
    this.half = length / 2;
    this.cos = Float64Array.from({ length: this.half + 1 }, (_, k) => Math.cos((2 * Math.PI * k) / length));
    this.sin = Float64Array.from({ length: this.half + 1 }, (_, k) => -Math.sin((2 * Math.PI * k) / length));
    const bits = Math.log2(this.half);
    this.order = Uint16Array.from({ length: this.half }, (_, i) => {
      let reversed = 0;
      for (let b = 0; b < bits; b++) reversed |= ((i >> b) & 1) << (bits - 1 - b);
      return reversed;
    });
    this.a = new Float64Array(this.half); this.b = new Float64Array(this.half);
  }
  /** Complex transform of what stands in a + ib, in bit-reversed order, in place. */
  complex() {
    const { half, a, b, cos, sin } = this;
    for (let size = 2; size <= half; size *= 2) {
      const stride = (2 * half) / size;
      for (let start = 0; start < half; start += size) {
        for (let k = 0; k < size / 2; k++) {
          const c = cos[k * stride], s = sin[k * stride], one = start + k, two = one + size / 2;
          const x = a[two] * c - b[two] * s, y = a[two] * s + b[two] * c;
          a[two] = a[one] - x; b[two] = b[one] - y; a[one] += x; b[one] += y;
        }
      }
    }
  }
  /** Bins 0 to half of a frame: even samples are the real parts, odd ones the imaginary parts of the half-length transform. */
  forward(frame, re, im) {
    const { half, a, b, cos, sin, order } = this;
    for (let i = 0; i < half; i++) { a[order[i]] = frame[2 * i]; b[order[i]] = frame[2 * i + 1]; }
    this.complex();
    for (let k = 0; k <= half; k++) {
      const i = k % half, j = (half - k) % half;
      const x = (b[i] + b[j]) / 2, y = (a[j] - a[i]) / 2; // spectrum of the odd samples
      re[k] = (a[i] + a[j]) / 2 + x * cos[k] - y * sin[k];
      im[k] = (b[i] - b[j]) / 2 + x * sin[k] + y * cos[k];
    }
  }
  /** The frame of such bins; imaginary parts of the first and last are taken as zero. */
  backward(re, im, frame) {
    const { half, a, b, cos, sin, order } = this;
    for (let k = 0; k < half; k++) {
      const j = half - k, ik = k ? im[k] : 0, ij = k ? im[j] : 0;
      const x = re[k] - re[j], y = ik + ij, to = order[k];
      const odd = x * cos[k] + y * sin[k], oddly = y * cos[k] - x * sin[k];
      a[to] = re[k] + re[j] - oddly; b[to] = -(ik - ij + odd); // conjugated: a forward transform turns backwards
    }
    this.complex();
    for (let i = 0; i < half; i++) { frame[2 * i] = a[i] / (2 * half); frame[2 * i + 1] = -b[i] / (2 * half); }
  }
}

/** x to the power y, as browsers compute it fastest. */
const power = (x, y) => Math.exp(y * Math.log(x));

/** Ways to set the gates of a frame: they get the margins of the policy (above zero: open) and fill `gates`. */
const policies = {
  learned: (shift = 0) => (margins, gates) => { for (let k = 0; k < gates.length; k++) gates[k] = margins[k] + shift > 0; },
  open: () => (margins, gates) => gates.fill(1),
  closed: () => (margins, gates) => gates.fill(0),
  /** Each gate open as often as its rate [K] says; one toss a frame for all, as the network is used to gates that agree. */
  random: (rates) => (margins, gates) => {
    const toss = Math.random();
    for (let k = 0; k < gates.length; k++) gates[k] = toss < rates[k];
  },
  /** Given gate vectors [frame * K + gate], one after the other, from the first again. */
  given: (list, t = 0) => (margins, gates) => {
    for (let k = 0; k < gates.length; k++) gates[k] = list[(t * gates.length + k) % list.length];
    t++;
  },
};

class Engine {
  constructor(table, weights, kernel = plain) {
    const { window, hop, bins } = table.signal, taps = table.rows.map((row) => row.static?.weight?.shape[2] ?? 1);
    Object.assign(this, { ...table.signal, table, kernel });
    this.fourier = new Fourier(window);
    this.taper = Float64Array.from({ length: window }, (_, i) => Math.sin((Math.PI * i) / window)); // square-root Hann
    this.recent = new Float64Array(window); // samples of this frame
    this.work = new Float64Array(window);
    this.tail = new Float64Array(hop); // second half of the last frame
    this.output = new Float32Array(hop);
    this.re = new Float64Array(bins + 1); this.im = new Float64Array(bins + 1); // compressed spectrum, then the answer
    this.gates = new Uint8Array(table.gates.length); this.margins = new Float32Array(table.gates.length);
    const blocks = new Blocks(kernel, weights, Math.max(...taps) >> 1);
    this.features = blocks.bands(bins, 6);
    this.magnitude = blocks.zeros(1, bins); this.answer = blocks.zeros(1, bins);
    this.states = [];
    this.rows = this.build(table.rows, blocks);
    if (table.policy) this.policy = this.buildPolicy(table.policy, blocks);
    this.reset();
  }

  /** Steps of every layer: `small` for its static part, `refine` for the dynamic part, `rest` where that is closed. */
  build(table, blocks) {
    let x = this.features, d = null; // static and dynamic channels so far
    const skips = [], rows = [];
    for (const row of table) {
      const steps = { ...row, input: x, small: [], refine: [], rest: [] }, { kind } = row;
      const isConvolution = kind === "down" || kind === "up" || kind === "mask";
      const outBands = kind === "down" ? row.bands / row.stride : isConvolution ? row.bands * row.stride : row.bands;
      /** A part from x over its input into a new output; what is no convolution adds to a copy of what it got. */
      const build = (part, input, before, list, closed) => {
        if (isConvolution) {
          const y = blocks.bands(outBands, part.weight.shape[0]);
          list.push(blocks.convolution(part, row, input, y));
          closed?.push(() => y.numbers.fill(0));
          return y;
        }
        const y = blocks.bands(outBands, before.columns), start = () => copy(y, before);
        const run = { bands: "offset", attention: "attention", linear: "pair", recurrent: "groups" }[kind];
        const step = kind === "bands" ? blocks.offset(part, y) : blocks[run](part, input, y);
        if (step.state) this.states.push(step.state);
        list.push(start, step);
        closed?.push(start);
        return y;
      };
      const s = row.static ? build(row.static, x, x, steps.small) : x;
      if (row.dynamic) {
        let input = x;
        if (d && kind !== "bands") {
          input = blocks.bands(x.rows, x.columns + d.columns);
          const [one, other] = [x, d];
          steps.refine.push(() => join(input, one, other));
        }
        d = build(row.dynamic, input, d, steps.refine, steps.rest);
      }
      if (kind === "down") skips.push([s, d]);
      else if (kind === "bands") skips.pop(); // what enters the middle is no skip
      else if (kind === "up") {
        const [skip, other] = skips.pop(), [one, two] = [s, d];
        steps.small.push(() => add(one, skip));
        if (two) for (const list of [steps.refine, steps.rest]) list.push(() => add(two, other));
      }
      x = s;
      rows.push(Object.assign(steps, { s, d: row.dynamic ? d : null }));
    }
    this.mask = x; this.correction = d;
    return rows;
  }

  /** The policy: pooled input, pooled small answer and the mean of the middle -> GRU -> margins. */
  buildPolicy(part, blocks) {
    const { kernel } = this, [bins, pooled] = part.pooling.shape, pooling = blocks.numbers(part.pooling);
    const middle = this.rows.find(({ kind }) => kind === "up" || kind === "mask").input;
    const seen = blocks.zeros(1, 2 * pooled + middle.columns), H = part.margins.shape[1];
    const matrix = blocks.weight(bins, pooled, (i, o) => pooling[i * pooled + o]), none = blocks.zeros(1, pooled);
    const one = (array) => ({ ...array, shape: [1, ...array.shape] }); // a single group
    const cells = blocks.recurrent({ input: one(part.input), input_bias: one(part.input_bias),
      recurrent: one(part.recurrent), recurrent_bias: one(part.recurrent_bias) }, seen);
    const result = blocks.zeros(1, this.gates.length), means = seen.numbers.subarray(2 * pooled);
    const last = [blocks.linear(part.margins), blocks.vector(part.margins_bias)], hidden = cells.state.view(0, 1, H);
    const [input, answer] = [0, pooled].map((offset) => seen.view(offset, 1, pooled));
    this.states.push(cells.state);
    this.seen = seen;
    return () => {
      kernel.product(input, this.magnitude, matrix, none);
      kernel.product(answer, this.answer, matrix, none);
      means.fill(0);
      for (let f = 0; f < middle.rows; f++) {
        for (let c = 0; c < means.length; c++) means[c] += middle.data[middle.at + f * means.length + c] / middle.rows;
      }
      cells();
      kernel.product(result, hidden, ...last);
      this.margins.set(result.numbers);
    };
  }

  /** Begin anew, as for another signal. */
  reset() {
    for (const array of [this.recent, this.tail, this.features.numbers, ...this.states.map((state) => state.numbers)])
      array.fill(0);
    this.level = 0; this.mean = null;
  }

  /** One hop of samples in; `output` then holds the enhanced samples of the hop before. `decide` sets the gates. */
  frame(samples, decide = policies.learned()) {
    this.analyse(samples);
    for (const row of this.rows) for (const step of row.small) step();
    if (this.gates.length) {
      this.policy ? this.ask() : this.margins.fill(1);
      decide(this.margins, this.gates);
    }
    if (this.correction) {
      for (const row of this.rows) {
        const isOpen = row.gate === null || this.gates[row.gate];
        for (const step of isOpen ? row.refine : row.rest) step();
      }
    }
    return this.synthesise();
  }

  /** Samples to compressed spectrum and features: real part, imaginary part and magnitude over the running level. */
  analyse(samples) {
    const { hop, window, recent, work, taper, re, im, bins, floor, compression } = this;
    recent.copyWithin(0, hop);
    this.block(samples, recent.subarray(hop));
    for (let i = 0; i < window; i++) work[i] = recent[i] * taper[i];
    this.fourier.forward(work, re, im);
    let sum = 0;
    for (let f = 0; f <= bins; f++) {
      const scale = power(re[f] * re[f] + im[f] * im[f] + floor, (compression - 1) / 2);
      re[f] *= scale; im[f] *= scale;
      if (f < bins) sum += this.magnitude.data[f] = Math.sqrt(re[f] * re[f] + im[f] * im[f]);
    }
    const now = sum / bins; // rises at once, falls within seconds
    this.level = Math.max(now, this.release * this.level + (1 - this.release) * now, this.quietest);
    const seen = this.features.numbers;
    for (let f = 0; f < bins; f++) {
      const at = 6 * f, magnitude = this.magnitude.data[f] /= this.level;
      seen[at + 3] = seen[at]; seen[at + 4] = seen[at + 1]; seen[at + 5] = seen[at + 2]; // now the frame before
      seen[at] = re[f] / this.level; seen[at + 1] = im[f] / this.level; seen[at + 2] = magnitude;
    }
  }

  /** The samples less their slow mean, which begins with the mean of the first hop. */
  block(samples, into) {
    this.mean ??= samples.reduce((a, b) => a + b, 0) / samples.length;
    for (let i = 0; i < samples.length; i++) {
      this.mean += this.pole * (samples[i] - this.mean);
      into[i] = samples[i] - this.mean;
    }
  }

  /** Let the policy see the frame and what the small network made of it. */
  ask() {
    const mask = this.mask.numbers;
    for (let f = 0; f < this.bins; f++)
      this.answer.data[f] = this.magnitude.data[f] * Math.sqrt(mask[2 * f] ** 2 + mask[2 * f + 1] ** 2);
    this.policy();
  }

  /** Masks times compressed spectrum, expanded, back to samples. */
  synthesise() {
    const { re, im, bins, hop, window, taper, work, tail, output, compression } = this;
    const mask = this.mask.numbers, more = this.correction?.numbers;
    for (let f = 0; f < bins; f++) {
      const a = mask[2 * f] + (more ? more[2 * f] : 0), b = mask[2 * f + 1] + (more ? more[2 * f + 1] : 0);
      const x = a * re[f] - b * im[f], y = a * im[f] + b * re[f];
      const scale = power(x * x + y * y, (1 / compression - 1) / 2);
      re[f] = x * scale; im[f] = y * scale;
    }
    re[bins] = im[bins] = 0; // the Nyquist bin
    this.fourier.backward(re, im, work);
    for (let i = 0; i < hop; i++) output[i] = tail[i] + work[i] * taper[i];
    for (let i = hop; i < window; i++) tail[i - hop] = work[i] * taper[i];
    return output;
  }

  /** Multiplications a second, in millions, of a frame with these gates. */
  cost(gates) { return gates.reduce((sum, gate, k) => sum + gate * this.table.mmacs.gates[k], this.table.mmacs.closed); }
}
