// Mixer: speech and noise at the ratio of a slider. One module with shared.js, which is put before it; it reads the traits
// `title`, `gates`, `levels`, `steps`, `sounds`, `data`, reads and writes `snr`, and needs no kernel. The mixture is made
// here, sound and spectrogram; what the network does with it was computed beforehand, at each step of the slider.

const MODES = [
  { key: "mixture", name: "mixture", hint: "speech and noise: what the microphone hears" },
  { key: "enhanced", name: "enhanced", hint: "what the network makes of the mixture" },
  { key: "clean", name: "speech", hint: "the speech alone" },
  { key: "noise", name: "noise", hint: "the noise alone, as loud as in the mixture" },
];

function render({ model, el }) {
  const gates = model.get("gates"), [closed, open] = model.get("levels"), sounds = model.get("sounds");
  const data = model.get("data"), lanes = gates.length, frames = sounds.frames, seconds = sounds.samples / RATE;
  const total = gates.reduce((sum, gate) => sum + gate.mmacs, 0);
  const steps = model.get("steps").map((step) => {
    const bits = unpackBits(bytesOf(data, step.gates_at), frames * lanes);
    const active = Float32Array.from({ length: frames }, (_, t) =>
      gates.reduce((sum, gate, k) => sum + gate.mmacs * bits[t * lanes + k], 0) / total);
    const rates = gates.map((_, k) => mean(Float32Array.from({ length: frames }, (_, t) => bits[t * lanes + k])));
    return { ...step, bits, active, rates };
  });
  const last = steps.length - 1, withSound = steps.flatMap((step, i) => (step.sound_at ? [i] : []));
  const still = matchMedia("(prefers-reduced-motion: reduce)"), player = new Player();
  let mode = "mixture", spectra = null, top = 0, layout = null, pointed = null, drawn = {};

  /** The step at which the slider stands: the nearest to the trait. */
  const nearest = (snr, among = steps.keys()) =>
    [...among].reduce((best, i) => (Math.abs(steps[i].snr - snr) < Math.abs(steps[best].snr - snr) ? i : best));
  const index = () => nearest(model.get("snr"));
  const db = (snr) => minus(`${Number(snr.toFixed(1))} dB`);
  const noiseGain = () => 10 ** ((sounds.noise_db - steps[index()].snr) / 20);

  // ----------------------------------------------------------------------------------------------------- elements
  const playButton = h("button", { type: "button", class: "dsn-play", onclick: toggle, disabled: true }, "\u25b6 play");
  const repeat = h("input", { type: "checkbox", checked: true, onchange: () => {
    const was = player.playing;
    player.pause(); player.repeat = repeat.checked;
    if (was) player.play();
  } });
  const available = MODES.filter(({ key }) => key !== "enhanced" || withSound.length);
  const modes = choice("listen to", available.map((one, i) => ({ ...one, hint: `${one.hint} (key ${i + 1})` })), mode, choose);
  const slider = h("input", { type: "range", min: 0, max: last, step: 1, "aria-label": "signal-to-noise ratio",
    oninput: () => moveTo(Number(slider.value)) });
  const sliderText = h("output", { class: "dsn-snr" });
  const hint = h("p", { class: "dsn-hint", hidden: true }, "The network's sound was computed at ",
    withSound.map((i) => minus(steps[i].snr)).join(", "), " dB: the slider now moves between these.");
  const base = h("canvas", { class: "dsn-base", "aria-hidden": "true" });
  const over = h("canvas", { class: "dsn-over", "aria-hidden": "true" });
  const plot = h("div", { class: "dsn-plot", role: "slider", tabindex: 0, "aria-label":
    "play head over the spectrogram, the gates and the activation", "aria-valuemin": 0,
    "aria-valuemax": seconds.toFixed(2) }, base, over);
  const chart = h("canvas", { class: "dsn-chart", role: "img" });
  const chartBox = h("div", { class: "dsn-chart-box" }, chart);
  const readout = h("p", { class: "dsn-readout", "aria-live": "polite" }, "loading the sounds\u2026");
  const summary = h("p", { class: "dsn-summary" });
  const table = h("tbody", {}, ...steps.map((step, i) => h("tr", { "data-step": i }, h("th", { scope: "row" }, db(step.snr)),
    h("td", {}, percent(step.activation)), h("td", {}, step.mmacs.toFixed(1)),
    h("td", {}, step.si_sdr ? `${minus(step.si_sdr[0].toFixed(1))} \u2192 ${minus(step.si_sdr[1].toFixed(1))}` : "\u2013"))));
  const words = h("details", { class: "dsn-words" }, h("summary", {}, "the same in numbers, and the keys"),
    h("table", {}, h("thead", {}, h("tr", {}, ...["SNR", "activation", "MMAC/s", "SI-SDR, dB"].map((x) =>
      h("th", { scope: "col" }, x)))), table),
    keyWords(["space", " plays and pauses; "], ["1", "\u2013"], [String(available.length), " choose what is heard; "],
      ["+", " "], ["\u2212", " change the ratio; on the picture, "], ["\u2190", " "],
      ["\u2192", " move by a frame, with "], ["shift", " by a quarter of a second, "], ["home", " and "], ["end", " jump."]));
  const root = h("section", { class: "dsn-card dsn-mixer", "aria-label": `Mixer: ${model.get("title")}`, onkeydown: key,
    "data-lm-suppress-shortcuts": "true" }, // in JupyterLab 1 to 4 would turn the cell into a heading
    h("div", { class: "dsn-bar" }, playButton, h("label", {}, repeat, "repeat"), modes.field),
    h("div", { class: "dsn-bar" }, h("label", { class: "dsn-slide" }, h("span", {}, "SNR"), slider, sliderText)), hint,
    plot, readout, chartBox, summary, words);
  el.append(root);

  // ------------------------------------------------------------------------------------------------------ choices
  /** Move the slider to a step; while the enhanced sound is heard, on to the next step that has one. */
  function moveTo(wanted) {
    const from = index();
    let to = clamp(wanted, 0, last);
    if (mode === "enhanced" && !steps[to].sound_at) {
      const onward = to > from ? withSound.find((i) => i >= to) : withSound.findLast((i) => i <= to);
      to = onward ?? nearest(steps[to].snr, withSound);
    }
    if (to === from) { update(); return; } // the slider itself may have to jump back
    model.set("snr", steps[to].snr); // its listener updates the rest
    model.save_changes();
  }

  function choose(wanted) {
    mode = wanted;
    if (mode === "enhanced" && !steps[index()].sound_at) moveTo(nearest(steps[index()].snr, withSound));
    else update();
  }

  async function toggle() {
    if (player.playing) player.pause(); else await player.play();
    tick();
  }
  player.onend = () => tick();

  async function load() {
    const all = { clean: sounds.clean_at, noise: sounds.noise_at,
      ...Object.fromEntries(withSound.map((i) => [i, steps[i].sound_at])) };
    try {
      player.buffers = await decode(Object.fromEntries(Object.entries(all).map(([n, at]) => [n, bytesOf(data, at)])));
      spectra = Object.fromEntries(["clean", "noise"].map((name) =>
        [name, transform(player.buffers[name].getChannelData(0), frames)]));
      top = highest(levelsOf([spectra.clean, 1]));
      playButton.disabled = false;
      root.dataset.state = "ready";
      readout.textContent = "Press play and move the slider. Point at the picture to read it.";
    } catch (error) {
      root.dataset.state = "silent";
      readout.textContent = `This browser cannot decode the sounds (${error.message}); the gates are shown without them.`;
    }
    update();
  }

  // ---------------------------------------------------------------------------------------------------- what is shown
  /** Gains of the sounds for what is heard. */
  function gains() {
    if (mode === "enhanced") return { [index()]: 1 };
    return { clean: mode === "noise" ? 0 : 1, noise: mode === "clean" ? 0 : noiseGain() };
  }

  function image() {
    const name = `${mode} ${mode === "clean" ? "" : index()}`;
    if (spectra && drawn.name !== name) {
      const now = gains();
      if (mode === "enhanced") spectra[index()] ??= transform(player.buffers[index()].getChannelData(0), frames);
      const parts = Object.entries(now).filter(([, gain]) => gain).map(([part, gain]) => [spectra[part], gain]);
      drawn = { name, canvas: picture(levelsOf(...parts), frames, top) };
    }
    return drawn.canvas;
  }

  function update() {
    const i = index(), step = steps[i];
    player.mix(gains());
    modes.show(mode);
    root.dataset.mode = mode;
    root.dataset.snr = step.snr;
    hint.hidden = mode !== "enhanced" || withSound.length === steps.length;
    slider.value = i;
    sliderText.textContent = db(step.snr);
    slider.setAttribute("aria-valuetext", `${db(step.snr)}, activation ${percent(step.activation)}`);
    const scores = step.si_sdr
      ? `; SI-SDR ${minus(step.si_sdr[0].toFixed(1))} \u2192 ${minus(step.si_sdr[1].toFixed(1))} dB` : "";
    summary.replaceChildren(h("b", {}, `${model.get("title")} at ${db(step.snr)}`), `: activation ${percent(step.activation)}, ` +
      `mean ${step.mmacs.toFixed(1)} of ${open.toFixed(1)} MMAC/s${scores}.`);
    table.querySelectorAll("tr").forEach((row, n) =>
      (n === i ? row.setAttribute("aria-current", "true") : row.removeAttribute("aria-current")));
    const ends = [steps[0], steps[last]].map((s) => `${percent(s.activation)} at ${db(s.snr)}`).join(", ");
    chart.setAttribute("aria-label", `Mean activation against the SNR: ${ends}; now ${percent(step.activation)} at ${db(step.snr)}.`);
    draw();
  }

  // ------------------------------------------------------------------------------------------------------ drawing
  /** What drawings share: colours, and functions that put text and lines on a canvas. */
  function pen(context) {
    const style = getComputedStyle(root), colour = (name) => style.getPropertyValue(`--dsn-${name}`).trim();
    const text = (string, x, y, { align = "right", fill = colour("ink"), size = 12, weight = "" } = {}) => {
      context.font = `${weight} ${size}px ${style.fontFamily}`; context.textAlign = align;
      context.textBaseline = "middle"; context.fillStyle = fill; context.fillText(string, x, y);
    };
    const line = (points, stroke, width = 1, dash = []) => {
      context.beginPath(); context.setLineDash(dash);
      for (const [x, y] of points) context.lineTo(x, y);
      context.lineWidth = width; context.strokeStyle = stroke; context.stroke(); context.setLineDash([]);
    };
    return { colour, text, line };
  }

  function draw() {
    const width = plot.clientWidth;
    if (!width) return;
    const narrow = width < 560, left = narrow ? 74 : 128, right = narrow ? 34 : 44, lane = narrow ? 11 : 12;
    const rows = {}; // name -> [y, height]
    let y = 4;
    for (const [name, height] of [["sound", narrow ? 110 : 140], ["gates", lane * lanes], ["active", 52]]) {
      rows[name] = [y, height]; y += height + 8;
    }
    layout = { left, right, width, rows, lane, height: y + 14 };
    sizeCanvas(over, width, layout.height);
    const c = sizeCanvas(base, width, layout.height), { colour, text, line } = pen(c), quiet = colour("quiet");
    const step = steps[index()], span = width - left - right, px = (t) => left + (span * (t + 0.5)) / frames;
    const size = narrow ? 10.5 : 12;

    const [soundTop, soundHeight] = rows.sound, pixels = image();
    c.fillStyle = "#000004"; c.fillRect(left, soundTop, span, soundHeight);
    c.imageSmoothingQuality = "high";
    if (pixels) c.drawImage(pixels, left, soundTop, span, soundHeight);
    text(MODES.find(({ key }) => key === mode).name, left - 10, soundTop + soundHeight / 2 - 8, { size, weight: "bold" });
    text(mode === "clean" ? "" : db(step.snr), left - 10, soundTop + soundHeight / 2 + 8, { size, fill: quiet });
    text("8 kHz", left + span + 4, soundTop + 5, { align: "left", fill: quiet, size: 10 });
    text("0", left + span + 4, soundTop + soundHeight - 5, { align: "left", fill: quiet, size: 10 });

    gates.forEach((gate, k) => {
      const yy = rows.gates[0] + k * lane;
      c.fillStyle = colour("closed"); c.fillRect(left, yy + 1, span, lane - 1);
      c.fillStyle = colour("open");
      for (let t = 0; t < frames; t++) { // runs of open frames, so that no seams show
        if (!step.bits[t * lanes + k]) continue;
        let end = t + 1;
        while (end < frames && step.bits[end * lanes + k]) end++;
        c.fillRect(px(t - 0.5), yy + 1, px(end - 0.5) - px(t - 0.5), lane - 1);
        t = end;
      }
      text(narrow ? short(gate.name) : gate.name, left - 10, yy + lane / 2, { size: narrow ? 9.5 : 11 });
      text(percent(step.rates[k]), left + span + 4, yy + lane / 2, { align: "left", fill: quiet, size: 9.5 });
    });

    const [activeTop, activeHeight] = rows.active, yActive = (v) => activeTop + activeHeight * (1 - v);
    c.beginPath(); c.moveTo(px(0), yActive(0));
    for (let t = 0; t < frames; t++) c.lineTo(px(t), yActive(step.active[t]));
    c.lineTo(px(frames - 1), yActive(0)); c.fillStyle = colour("wash"); c.fill();
    line([[left, yActive(1)], [left + span, yActive(1)]], colour("edge"));
    line([[left, yActive(0)], [left + span, yActive(0)]], quiet);
    line([[left, yActive(step.activation)], [left + span, yActive(step.activation)]], colour("accent"), 1.5, [4, 3]);
    line([...running(step.active, 8)].map((v, t) => [px(t), yActive(v)]), colour("open"), 2);
    text("activation", left - 10, activeTop + activeHeight / 2, { size });
    text(percent(step.activation), left + span + 4, yActive(step.activation), { align: "left", fill: colour("accent"), size: 10 });
    for (let s = 0; s <= seconds; s++) {
      text(s === 0 ? "0 s" : s, left + (span * s) / (frames * FRAME), activeTop + activeHeight + 11,
        { align: "center", fill: quiet, size: 10.5 });
    }
    overlay();
    drawChart();
  }

  let chartLayout = null;
  function drawChart() {
    const width = chartBox.clientWidth, height = 150, left = 44, right = 52, above = 10, below = 34;
    if (!width) return;
    const c = sizeCanvas(chart, width, height), { colour, text, line } = pen(c), quiet = colour("quiet");
    const [low, high] = [steps[0].snr, steps[last].snr], now = steps[index()];
    const x = (snr) => left + (width - left - right) * (high > low ? (snr - low) / (high - low) : 0.5);
    const y = (active) => height - below - (height - above - below) * active;
    chartLayout = { left, right, width, low, high };
    for (const share of [0, 0.5, 1]) {
      line([[left, y(share)], [width - right, y(share)]], share ? colour("edge") : quiet);
      text(percent(share), left - 6, y(share), { fill: quiet, size: 10.5 });
      text((closed + share * (open - closed)).toFixed(0), width - right + 6, y(share), { align: "left", fill: quiet, size: 10.5 });
    }
    const tick = [5, 10, 20].find((gap) => ((high - low) / gap) * 42 < width - left - right) ?? 50;
    for (let snr = Math.ceil(low / tick) * tick; snr <= high; snr += tick) {
      text(minus(snr), x(snr), height - below + 12, { align: "center", fill: quiet, size: 10.5 });
    }
    text("SNR in dB", (left + width - right) / 2, height - 8, { align: "center", size: 11 });
    text("activation", left - 38, height - 8, { align: "left", size: 11 });
    text("MMAC/s", width - 4, height - 8, { size: 11 });
    line(steps.map((step) => [x(step.snr), y(step.activation)]), colour("open"), 2);
    for (const i of withSound) {
      c.beginPath(); c.arc(x(steps[i].snr), y(steps[i].activation), 3, 0, 7); c.fillStyle = colour("open"); c.fill();
    }
    line([[x(now.snr), y(0)], [x(now.snr), y(1)]], colour("accent"), 1, [3, 3]);
    c.beginPath(); c.arc(x(now.snr), y(now.activation), 6, 0, 7);
    c.fillStyle = colour("accent"); c.fill(); c.lineWidth = 2; c.strokeStyle = colour("paper"); c.stroke();
    const onRight = x(now.snr) < width - right - 60, lift = y(now.activation) - 12 < above ? 12 : -12;
    text(percent(now.activation), x(now.snr) + (onRight ? 10 : -10), y(now.activation) + lift,
      { align: onRight ? "left" : "right", size: 12, weight: "bold" });
    root.dataset.marker = `${x(now.snr).toFixed(1)} ${y(now.activation).toFixed(1)}`;
  }

  /** Play head and cross hair; and what is said of the play head. */
  function overlay() {
    if (!layout) return;
    const { left, right, width, height } = layout, c = over.getContext("2d"), { colour } = pen(c);
    const span = width - left - right, t = frameNow(), head = player.position, step = steps[index()];
    c.clearRect(0, 0, width, height);
    const bar = (x, stroke, w) => {
      c.beginPath(); c.moveTo(x, 2); c.lineTo(x, height - 20); c.lineWidth = w; c.strokeStyle = stroke; c.stroke();
    };
    const x = left + (span * (head / FRAME + 0.5)) / frames;
    bar(x, colour("paper"), 4);
    bar(x, colour("head"), 2);
    if (pointed) bar(pointed, colour("quiet"), 1);
    let count = 0;
    for (let k = 0; k < lanes; k++) count += step.bits[t * lanes + k];
    plot.setAttribute("aria-valuenow", head.toFixed(2));
    plot.setAttribute("aria-valuetext", `${head.toFixed(2)} seconds, ${count} of ${lanes} gates open, ` +
      `activation ${percent(step.active[t])}`);
  }

  const frameNow = () => clamp(Math.round(player.position / FRAME), 0, frames - 1);
  const short = (name) => name.replace("frequency ", "F").replace("time", "T").replace("encoder", "enc")
    .replace("decoder", "dec").replace("hidden", "hid");

  let lastTick = 0;
  function tick(now = 0) {
    playButton.textContent = player.playing ? "\u275a\u275a pause" : "\u25b6 play";
    root.dataset.playing = player.playing;
    readout.setAttribute("aria-live", player.playing ? "off" : "polite");
    if (!player.playing || !still.matches || now - lastTick > 200) { lastTick = now; overlay(); }
    if (player.playing && root.isConnected) requestAnimationFrame(tick);
  }

  // -------------------------------------------------------------------------------------------------- pointer and keys
  function describe(x, y) {
    const { left, right, width, rows, lane } = layout, step = steps[index()];
    const t = clamp(Math.floor(((x - left) / (width - left - right)) * frames), 0, frames - 1);
    const when = `frame ${t} (${(t * FRAME).toFixed(2)} s)`;
    const inside = (name) => y >= rows[name][0] && y < rows[name][0] + rows[name][1];
    if (inside("gates")) {
      const k = Math.floor((y - rows.gates[0]) / lane);
      return `${gates[k].name}, ${when}: ${step.bits[t * lanes + k] ? "open" : "closed"} at ${db(step.snr)}; ` +
        `open in ${percent(step.rates[k])} of the frames`;
    }
    if (inside("sound")) {
      return `${when}: ${((8 * (rows.sound[0] + rows.sound[1] - y)) / rows.sound[1]).toFixed(1)} kHz`;
    }
    return `${when}: activation ${percent(step.active[t])}`;
  }

  const place = (event, node) => {
    const box = node.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  let dragging = false;
  const secondsAt = (x) => (((x - layout.left) / (layout.width - layout.left - layout.right)) * frames - 0.5) * FRAME;
  plot.addEventListener("pointermove", (event) => {
    const { x, y } = place(event, plot);
    if (!layout) return;
    pointed = x >= layout.left && x <= layout.width - layout.right ? x : null;
    if (pointed) readout.textContent = describe(x, y);
    if (dragging) player.seek(secondsAt(x));
    overlay();
  });
  plot.addEventListener("pointerdown", (event) => {
    const { x, y } = place(event, plot);
    if (!layout || event.button !== 0) return;
    dragging = true;
    plot.setPointerCapture(event.pointerId);
    readout.textContent = describe(x, y);
    player.seek(secondsAt(x));
    overlay();
  });
  for (const name of ["pointerup", "pointercancel"]) plot.addEventListener(name, () => { dragging = false; });
  plot.addEventListener("pointerleave", () => { pointed = null; overlay(); });

  let turning = false; // the marker of the chart is held
  const turn = (event) => {
    const { left, right, width, low, high } = chartLayout;
    const snr = low + ((place(event, chart).x - left) / (width - left - right)) * (high - low);
    moveTo(mode === "enhanced" ? nearest(snr, withSound) : nearest(snr));
  };
  chart.addEventListener("pointerdown", (event) => {
    if (!chartLayout || event.button !== 0) return;
    turning = true;
    chart.setPointerCapture(event.pointerId);
    turn(event);
  });
  chart.addEventListener("pointermove", (event) => { if (turning) turn(event); });
  for (const name of ["pointerup", "pointercancel"]) chart.addEventListener(name, () => { turning = false; });

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const digit = available[Number(event.key) - 1], step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const change = { "+": 1, "=": 1, "-": -1, "\u2212": -1 }[event.key];
    if (digit) choose(digit.key);
    else if (change) moveTo(index() + change);
    else if (event.key === " " && (event.target === plot || event.target.matches("input[type=radio], input[type=range]")))
      toggle();
    else if (event.target !== plot) return;
    else if (step) player.seek(player.position + step * (event.shiftKey ? 0.25 : FRAME));
    else if (event.key === "Home") player.seek(0);
    else if (event.key === "End") player.seek(seconds);
    else return;
    event.preventDefault();
    event.stopPropagation(); // Jupyter and the page have keys of their own
    overlay();
    if (step) readout.textContent = plot.getAttribute("aria-valuetext");
  }

  // ------------------------------------------------------------------------------------------------- life and death
  model.on("change:snr", update);
  const unwatch = watchLooks(plot, draw);
  load();
  update();
  return () => { model.off("change:snr", update); unwatch(); player.close(); root.remove(); };
}

export default { render };
