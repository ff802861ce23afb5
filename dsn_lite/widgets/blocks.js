// The network of dsn_lite, frame by frame, in plain JavaScript: what `Network` computes with PyTorch, from the same table of
// layers. It reads the numbers that `dsn_lite.widgets.table.pack` wrote (norms folded) and knows no network by name.
//
// All work is built once, as a list of steps over fixed places in memory; a frame only runs the steps. A closed gate's
// steps are not run. The inner loops are four functions of a kernel: those of `plain` below, or the same four in
// WebAssembly (products.c), where the browser has it.

/** Rows by columns of numbers inside a larger array. Rows lie `step` numbers apart, and may overlap. */
class Matrix {
  constructor(data, at, rows, columns, step = columns) {
    Object.assign(this, { data, at, rows, columns, step, pointer: data.byteOffset + 4 * at });
  }
  /** Other rows and columns over the same numbers, from `offset` numbers behind the first. */
  view(offset, rows, columns, step = this.step) { return new Matrix(this.data, this.at + offset, rows, columns, step); }
  /** The numbers themselves, where rows lie one behind the other. */
  get numbers() { return (this.kept ??= this.data.subarray(this.at, this.at + this.rows * this.columns)); }
}

// ------------------------------------------------------------------------------------------------------------ kernels
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** The four inner loops in plain JavaScript. */
const plain = {
  zeros: (count) => new Float32Array(count),
  /** y[r][o] = bias[o] + sum over i of x[r][i] weight[i][o] */
  product(y, x, weight, bias) {
    const [Y, X, W, B] = [y.data, x.data, weight.data, bias.data], inputs = x.columns, outputs = y.columns;
    for (let r = 0; r < y.rows; r++) {
      const to = y.at + r * y.step, from = x.at + r * x.step;
      let o = 0;
      for (; o + 4 <= outputs; o += 4) { // the loop below for four columns at once, which takes a third of the time
        let [at, w] = [bias.at + o, weight.at + o], a = B[at], b = B[at + 1], c = B[at + 2], d = B[at + 3];
        for (let i = 0; i < inputs; i++, w += weight.step) {
          const value = X[from + i];
          a += value * W[w]; b += value * W[w + 1]; c += value * W[w + 2]; d += value * W[w + 3];
        }
        Y[to + o] = a; Y[to + o + 1] = b; Y[to + o + 2] = c; Y[to + o + 3] = d;
      }
      for (; o < outputs; o++) {
        let sum = B[bias.at + o];
        for (let i = 0, w = weight.at + o; i < inputs; i++, w += weight.step) sum += X[from + i] * W[w];
        Y[to + o] = sum;
      }
    }
  },
  /** y where it is above zero, slope times y where not; a slope of zero is a ReLU */
  prelu(y, slope) {
    for (let r = 0; r < y.rows; r++) {
      for (let o = 0; o < y.columns; o++) {
        const at = y.at + r * y.step + o;
        if (y.data[at] < 0) y.data[at] *= slope.data[slope.at + o];
      }
    }
  },
  softmax(y) {
    for (let r = 0; r < y.rows; r++) {
      const row = y.data.subarray(y.at + r * y.columns, y.at + (r + 1) * y.columns);
      let top = row[0], sum = 0;
      for (const value of row) top = Math.max(top, value);
      for (let c = 0; c < row.length; c++) sum += row[c] = Math.exp(row[c] - top);
      for (let c = 0; c < row.length; c++) row[c] /= sum;
    }
  },
  /** The gates of GRU cells: state [cell][H] from the products of input and state [cell][3][H] (reset, update, new) */
  recur(state, given, own) {
    const H = state.columns, [h, a, b] = [state, given, own].map((m) => m.data.subarray(m.at));
    for (let cell = 0; cell < state.rows; cell++) {
      for (let j = 0; j < H; j++) {
        const at = cell * 3 * H + j;
        const reset = sigmoid(a[at] + b[at]), update = sigmoid(a[at + H] + b[at + H]);
        const fresh = Math.tanh(a[at + 2 * H] + reset * b[at + 2 * H]);
        h[cell * H + j] = fresh + update * (h[cell * H + j] - fresh);
      }
    }
  },
};

/** The four inner loops in WebAssembly, from the bytes of products.wasm; `plain` where it cannot run. */
function fastKernel(bytes, weights) {
  try {
    const pages = Math.ceil((4 * weights.length * 2 + 6e6) / 65536); // weights, padded, and some megabytes to work in
    const memory = new WebAssembly.Memory({ initial: pages });
    const run = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } }).exports;
    let used = 131072; // the first two pages are the module's own
    return {
      zeros(count) {
        const place = new Float32Array(memory.buffer, used, count);
        used += 16 * Math.ceil(count / 4 + 1); // a little room, since rows are read four numbers at a time
        return place;
      },
      product: (y, x, weight, bias) => run.product(y.pointer, y.step, x.pointer, x.step, weight.pointer, weight.step,
        bias.pointer, y.rows, x.columns, y.columns),
      prelu: (y, slope) => run.prelu(y.pointer, slope.pointer, y.rows, y.columns),
      softmax: (y) => run.softmax(y.pointer, y.rows, y.columns),
      recur: (state, given, own) => run.recur(state.pointer, given.pointer, own.pointer, state.rows, state.columns),
    };
  } catch {
    return plain;
  }
}

// ------------------------------------------------------------------------------------------------------------- layers
/** Each block is made once over the places of its input x and output y, and returns what to run on a frame. */
class Blocks {
  constructor(kernel, weights, pad) { Object.assign(this, { kernel, weights, pad }); }

  zeros(rows, columns) { return new Matrix(this.kernel.zeros(rows * columns), 0, rows, columns); }
  /** Bands by channels, with `pad` bands of zeros on both sides for what looks beyond the edge. */
  bands(bands, channels) {
    return new Matrix(this.kernel.zeros((bands + 2 * this.pad) * channels), this.pad * channels, bands, channels);
  }
  /** The numbers of an array of the table: {at, shape}. */
  numbers({ at, shape }) { return this.weights.subarray(at, at + shape.reduce((a, b) => a * b, 1)); }
  /** A weight as product() wants it, [inputs][outputs], from a function of both; rows are filled up to fours. */
  weight(inputs, outputs, value) {
    const step = 4 * Math.ceil(outputs / 4), data = this.kernel.zeros(inputs * step);
    for (let i = 0; i < inputs; i++) for (let o = 0; o < outputs; o++) data[i * step + o] = value(i, o);
    return new Matrix(data, 0, inputs, outputs, step);
  }
  vector(array) { const numbers = this.numbers(array); return this.weight(1, numbers.length, (_, o) => numbers[o]); }
  /** The array [..., outputs, inputs] of a linear layer as a weight. */
  linear(array) {
    const numbers = this.numbers(array), inputs = array.shape.at(-1);
    return this.weight(inputs, numbers.length / inputs, (i, o) => numbers[o * inputs + i]);
  }

  /** A convolution along frequency is a product whose rows overlap: row f of x holds all bands under the taps at f. Going up
      by a stride s, each of s phases has the taps that meet a band at all, and writes every s-th band of y. */
  convolution({ weight, bias, slope }, { kind, stride }, x, y) {
    const [outputs, inputs, taps] = weight.shape, half = taps >> 1, up = kind !== "down";
    const numbers = this.numbers(weight), offset = this.vector(bias), bend = slope && this.vector(slope), products = [];
    for (let phase = 0; phase < (up ? stride : 1); phase++) {
      const first = up ? Math.ceil((phase + half - taps + 1) / stride) : -half; // bands seen, from the row's own
      const last = up ? Math.floor((phase + half) / stride) : half;
      const tap = (band) => (up ? phase + half - band * stride : band + half);
      const columns = (last - first + 1) * inputs, rows = up ? x.rows : y.rows;
      products.push([
        y.view(phase * outputs, rows, outputs, (up ? stride : 1) * outputs),
        x.view(first * inputs, rows, columns, (up ? 1 : stride) * inputs),
        this.weight(columns, outputs, (i, o) =>
          numbers[(o * inputs + (i % inputs)) * taps + tap(first + Math.floor(i / inputs))]),
        offset]);
    }
    return () => {
      for (const [to, from, matrix, shift] of products) this.kernel.product(to, from, matrix, shift);
      if (bend) this.kernel.prelu(y, bend);
    };
  }

  /** An offset for every band, added to y. */
  offset({ offset }, y) {
    const shift = this.numbers(offset), into = y.numbers;
    return () => { for (let i = 0; i < into.length; i++) into[i] += shift[i]; };
  }

  /** Attention among the bands of the frame, added to y. */
  attention({ input, input_bias, out, out_bias }, x, y) {
    const { kernel } = this, bands = x.rows, [, heads, width] = input.shape;
    const projected = this.zeros(bands, 3 * heads * width), part = (which, head) =>
      projected.view((which * heads + head) * width, bands, width); // 0 queries, 1 keys, 2 values
    const keys = this.zeros(width, bands), scores = this.zeros(bands, bands), none = this.zeros(1, bands);
    const mixed = this.zeros(bands, heads * width), result = this.zeros(bands, y.columns);
    const first = [this.linear(input), this.vector(input_bias)], last = [this.linear(out), this.vector(out_bias)];
    const each = Array.from({ length: heads }, (_, head) => ({ query: part(0, head), key: part(1, head),
      value: part(2, head), mixed: mixed.view(head * width, bands, width) }));
    return () => {
      kernel.product(projected, x, ...first);
      for (const head of each) {
        for (let f = 0; f < bands; f++) {
          for (let w = 0; w < width; w++) keys.data[w * bands + f] = head.key.data[head.key.at + f * head.key.step + w];
        }
        kernel.product(scores, head.query, keys, none);
        kernel.softmax(scores);
        kernel.product(head.mixed, scores, head.value, none);
      }
      kernel.product(result, mixed, ...last);
      add(y, result);
    };
  }

  /** A fully connected pair in every band, added to y. */
  pair({ up, up_bias, down, down_bias }, x, y) {
    const { kernel } = this, hidden = this.zeros(x.rows, up.shape[0]), result = this.zeros(x.rows, y.columns);
    const first = [this.linear(up), this.vector(up_bias)], last = [this.linear(down), this.vector(down_bias)];
    const zero = this.zeros(1, hidden.columns);
    return () => {
      kernel.product(hidden, x, ...first);
      kernel.prelu(hidden, zero);
      kernel.product(result, hidden, ...last);
      add(y, result);
    };
  }

  /** Groups of GRUs along time, every band with a state of its own; `run.state` [bands][groups * H]. */
  recurrent({ input, input_bias, recurrent, recurrent_bias }, x) {
    const { kernel } = this, [groups, , H] = input.shape, bands = x.rows, size = groups * 3 * H;
    const given = this.zeros(bands, size), own = this.zeros(bands, size), state = this.zeros(bands, groups * H);
    const first = [this.linear(input), this.vector(input_bias)];
    const weight = this.numbers(recurrent), bias = this.vector(recurrent_bias);
    const each = Array.from({ length: groups }, (_, g) => [own.view(g * 3 * H, bands, 3 * H),
      state.view(g * H, bands, H), this.weight(H, 3 * H, (i, o) => weight[(g * 3 * H + o) * H + i]),
      bias.view(g * 3 * H, 1, 3 * H)]);
    const cells = state.view(0, bands * groups, H, H);
    const run = () => {
      kernel.product(given, x, ...first);
      for (const [to, from, matrix, shift] of each) kernel.product(to, from, matrix, shift);
      kernel.recur(cells, given, own);
    };
    return Object.assign(run, { state });
  }

  /** The same with its projection added to y: a block of the middle. While it does not run, it holds its state. */
  groups(part, x, y) {
    const cells = this.recurrent(part, x), result = this.zeros(x.rows, y.columns);
    const last = [this.linear(part.out), this.vector(part.out_bias)];
    const run = () => {
      cells();
      this.kernel.product(result, cells.state, ...last);
      add(y, result);
    };
    return Object.assign(run, { state: cells.state });
  }
}

const copy = (to, from) => { to.numbers.set(from.numbers); };
function add(to, from) {
  const a = to.data, b = from.data, count = to.rows * to.columns;
  for (let i = 0, j = to.at, k = from.at; i < count; i++) a[j++] += b[k++];
}
/** Static and dynamic channels side by side. */
function join(to, one, other) {
  for (let r = 0; r < to.rows; r++) {
    let at = to.at + r * to.columns, from = one.at + r * one.columns;
    for (let c = 0; c < one.columns; c++) to.data[at++] = one.data[from++];
    from = other.at + r * other.columns;
    for (let c = 0; c < other.columns; c++) to.data[at++] = other.data[from++];
  }
}
