// A spectrogram of sound that arrives, one column a hop: a ring of columns, so that a new one costs no more than itself.

class Strip {
  constructor(frames) {
    this.canvas = h("canvas", { width: frames, height: BINS });
    this.context = this.canvas.getContext("2d");
    this.column = this.context.createImageData(1, BINS);
    this.column.data.fill(255);
    this.fourier = new Fourier(WINDOW);
    this.taper = Float64Array.from({ length: WINDOW }, (_, i) => Math.sin((Math.PI * i) / WINDOW));
    this.recent = new Float64Array(WINDOW); this.work = new Float64Array(WINDOW);
    this.re = new Float64Array(BINS); this.im = new Float64Array(BINS);
    this.count = 0;
  }
  /** The next 256 samples. */
  hop(samples) {
    const { recent, work, taper, re, im, column, canvas } = this;
    recent.copyWithin(0, HOP);
    recent.set(samples, HOP);
    for (let i = 0; i < WINDOW; i++) work[i] = recent[i] * taper[i];
    this.fourier.forward(work, re, im);
    for (let f = 0; f < BINS; f++) {
      const level = 10 * Math.log10((re[f] * re[f] + im[f] * im[f]) / WINDOW + 1e-12); // 0 dB is the lightest colour
      const x = clamp(1 + level / RANGE_DB, 0, 1) * (MAGMA.length - 1), low = Math.min(Math.floor(x), MAGMA.length - 2);
      for (let c = 0; c < 3; c++)
        column.data[4 * (BINS - 1 - f) + c] = MAGMA[low][c] + (x - low) * (MAGMA[low + 1][c] - MAGMA[low][c]);
    }
    this.context.putImageData(column, this.count++ % canvas.width, 0);
  }
  /** Draw it with the oldest column at the left. */
  show(c, x, y, width, height) {
    const all = this.canvas.width, first = this.count > all ? this.count % all : 0, part = ((all - first) / all) * width;
    c.drawImage(this.canvas, first, 0, all - first, BINS, x, y, part, height);
    if (first) c.drawImage(this.canvas, 0, 0, first, BINS, x + part, y, width - part, height);
  }
}
