// The panel of "Speak to it" on one canvas: both spectrograms, a lane for each gate, the running cost, the seconds.

/** Where everything lies on a canvas that is `width` pixels wide and has room for some frames. */
function placesOf(width, frames, lanes) {
  const narrow = width < 560, left = narrow ? 74 : 128, right = narrow ? 36 : 44, lane = narrow ? 13 : 14;
  const rows = {}, tall = narrow ? 66 : 84, span = width - left - right;
  let y = 4;
  for (const [name, height] of [["noisy", tall], ["enhanced", tall], ["gates", lane * lanes], ["cost", lanes ? 44 : 0]]) {
    rows[name] = [y, height];
    if (height) y += height + 6;
  }
  return { narrow, left, lane, rows, width, height: y + 14, span, frames, px: (t) => left + (span * (t + 0.5)) / frames };
}

class Panel {
  /** `root` has the colours and the font, `table` the gates and the costs of the network. */
  constructor(canvas, root, { gates, mmacs }) { Object.assign(this, { canvas, root, gates, mmacs }); }

  /**
   * Draw what is to be seen, { frames, used, gates [used, K], costs }; gives the places. `paint` (context, name, left, top,
   * width, height) draws a spectrogram; of the one that is `heard` a note says so.
   */
  draw(shown, width, { paint, heard, note }) {
    const places = this.places = placesOf(width, shown.frames, this.gates.length);
    this.style = getComputedStyle(this.root);
    this.context = sizeCanvas(this.canvas, width, places.height);
    for (const name of ["noisy", "enhanced"]) this.drawSound(name, paint, name === heard ? note : null);
    this.gates.forEach((name, k) => this.drawLane(shown, name, k));
    if (this.gates.length) this.drawCosts(shown.costs);
    this.drawSeconds();
    return places;
  }

  colour(name) { return this.style.getPropertyValue(`--dsn-${name}`).trim(); }

  text(words, x, y, { align = "right", fill = "ink", size = this.places.narrow ? 10.5 : 12, weight = "" } = {}) {
    const { context: c } = this;
    c.font = `${weight} ${size}px ${this.style.fontFamily}`; c.textAlign = align; c.textBaseline = "middle";
    c.fillStyle = this.colour(fill);
    c.fillText(words, x, y);
  }

  /** A spectrogram; a bar at the left marks the one that is heard. */
  drawSound(name, paint, note) {
    const { context: c, places: { left, span, rows, narrow } } = this, [top, height] = rows[name];
    c.fillStyle = "#000004"; c.fillRect(left, top, span, height);
    c.imageSmoothingQuality = "high";
    paint(c, name, left, top, span, height);
    if (note) { c.fillStyle = this.colour("accent"); c.fillRect(left - 4, top, 4, height); }
    this.text(name, left - 10, top + height / 2 - 8, { weight: note ? "bold" : "" });
    this.text(note ?? "0\u20138 kHz", left - 10, top + height / 2 + 8,
      { fill: note ? "accent" : "quiet", size: narrow ? 9.5 : 11 });
  }

  /** The lane of gate k, filled where it is open. */
  drawLane({ used, gates }, name, k) {
    const { context: c, places: { left, span, lane, rows, narrow, px } } = this, lanes = this.gates.length;
    const y = rows.gates[0] + k * lane;
    c.fillStyle = this.colour("closed"); c.fillRect(left, y + 1, span, lane - 2);
    c.fillStyle = this.colour("open");
    let count = 0;
    for (let t = 0; t < used; t++) { // runs of open frames, so that no seams show
      let end = t;
      while (end < used && gates[end * lanes + k]) end++;
      if (end > t) c.fillRect(px(t - 0.5), y + 1, px(end - 0.5) - px(t - 0.5), lane - 2);
      count += end - t;
      t = Math.max(t, end);
    }
    const short = name.replace("encoder", "enc").replace("decoder", "dec").replace("hidden", "hid").replace("middle", "mid");
    this.text(narrow ? short : name, left - 10, y + lane / 2, { size: narrow ? 10 : 11.5 });
    if (used) this.text(percent(count / used), left + span + 5, y + lane / 2, { align: "left", fill: "quiet", size: 10 });
  }

  /** The running cost between that of all closed and that of all open. */
  drawCosts(costs) {
    const { context: c, mmacs: { closed, open }, places: { left, span, rows, px } } = this;
    const [top, height] = rows.cost, at = (value) => top + height * (1 - value / (1.12 * open)), line = running(costs, 8);
    c.beginPath(); c.moveTo(left, at(0));
    line.forEach((value, t) => c.lineTo(px(t), at(value)));
    c.lineTo(px(line.length - 1), at(0)); c.fillStyle = this.colour("wash"); c.fill();
    c.beginPath(); line.forEach((value, t) => c.lineTo(px(t), at(value)));
    c.lineWidth = 2; c.strokeStyle = this.colour("open"); c.stroke();
    for (const value of [closed, open]) {
      c.beginPath(); c.setLineDash([3, 3]); c.moveTo(left, at(value)); c.lineTo(left + span, at(value));
      c.lineWidth = 1; c.strokeStyle = this.colour("quiet"); c.stroke(); c.setLineDash([]);
      this.text(value.toFixed(0), left + span + 5, at(value), { align: "left", fill: "quiet", size: 10 });
    }
    this.text("MMAC/s", left - 10, top + height / 2);
  }

  drawSeconds() {
    const { left, span, height, frames } = this.places, seconds = frames * FRAME, step = seconds > 30 ? 10 : seconds > 12 ? 5 : 1;
    for (let s = 0; s < seconds; s += step)
      this.text(s || "0 s", left + (span * s) / seconds, height - 8, { align: "center", fill: "quiet", size: 10.5 });
  }
}
