// Changes the rate of samples that arrive block by block: a windowed sinc, one row of taps for each place that a new sample
// can have between two old ones.

class Resampler {
  /** Rates in Hz, whole numbers; `delay` is in samples at the rate `from`. */
  constructor(from, to, lobes = 24, longest = 1024) {
    const common = (a, b) => (b ? common(b, a % b) : a), divisor = common(from, to);
    this.up = to / divisor; this.down = from / divisor; // new sample n lies at old sample n * down / up
    const ratio = Math.min(1, to / from), cutoff = 0.94 * ratio; // of half the old rate
    this.delay = Math.ceil(lobes / ratio);
    this.taps = Array.from({ length: this.up }, (_, phase) => {
      const row = Float32Array.from({ length: 2 * this.delay }, (_, i) => {
        const x = i + 1 - this.delay - phase / this.up, window = Math.cos((Math.PI * x) / (2 * this.delay)) ** 2;
        return cutoff * (x ? Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x) : 1) * window;
      });
      const sum = row.reduce((a, b) => a + b, 0);
      return row.map((tap) => tap / sum); // what is constant stays what it is
    });
    this.old = new Float32Array(2 * this.delay + longest + 2);
    this.fresh = new Float32Array(Math.ceil(((longest + 2 * this.delay) * to) / from) + 2);
    this.have = this.delay; // silence before the first sample
    this.position = this.delay * this.up; // of the next new sample, in old samples times `up`
  }
  /** Give some samples (1024 at most), get those that are ready: a view that the next call overwrites. */
  push(samples) {
    const { old, fresh, up, down, delay } = this;
    old.set(samples, this.have);
    this.have += samples.length;
    let count = 0;
    for (; Math.floor(this.position / up) + delay < this.have; this.position += down) {
      const row = this.taps[this.position % up], first = Math.floor(this.position / up) - delay + 1;
      let sum = 0;
      for (let i = 0; i < row.length; i++) sum += row[i] * old[first + i];
      fresh[count++] = sum;
    }
    const done = Math.max(0, Math.floor(this.position / up) - delay + 1);
    old.copyWithin(0, done, this.have);
    this.have -= done; this.position -= done * up;
    return fresh.subarray(0, count);
  }
}
