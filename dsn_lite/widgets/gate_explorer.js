// Gate explorer: hear a network and see which of its parts are open; shared.js stands before it. One self-contained module
// (the anywidget front-end convention): it reads the traits `title`, `gates`, `levels`, `scenes`, `data`, and never talks to a kernel, so that it
// works alike in Jupyter and in a page opened from disk.

const MODES = [
  { key: "noisy", name: "noisy", hint: "what the microphone hears" },
  { key: "dynamic", name: "dynamic", hint: "the gates decide, at the chosen budget" },
  { key: "open", name: "all open", hint: "the whole network on every frame" },
  { key: "closed", name: "all closed", hint: "the small network alone" },
  { key: "clean", name: "clean", hint: "the speech before noise was added" },
];
const SNR_LOW = -15, SNR_HIGH = 35; // of the axis, dB

const spectrogram = (wave, frames) => levelsOf([transform(wave, frames), 1]);

// -------------------------------------------------------------------------------------------------------------- data
/** One scene, unpacked: sounds are decoded later. */
function unpack(scene, data, costs, closed) {
  const bytes = (place) => bytesOf(data, place);
  const lanes = costs.length, frames = scene.frames;
  const points = scene.points.map((point) => {
    const gates = unpackBits(bytes(point.gates_at), frames * lanes);
    const cost = Float32Array.from({ length: frames }, (_, t) =>
      costs.reduce((sum, c, k) => sum + c * gates[t * lanes + k], closed));
    const rates = costs.map((_, k) => mean(Float32Array.from({ length: frames }, (_, t) => gates[t * lanes + k])));
    return { ...point, gates, cost, rates, sound: bytes(point.sound_at) };
  });
  return {
    ...scene, points,
    seconds: scene.samples / RATE,
    snrs: new Float32Array(bytes(scene.snr_at)),
    margins: new Float32Array(bytes(scene.margins_at)),
    sounds: { noisy: bytes(scene.noisy_at), clean: bytes(scene.clean_at),
      ...Object.fromEntries(points.map((point, i) => [i, point.sound])) },
  };
}

// -------------------------------------------------------------------------------------------------------------- view
function render({ model, el }) {
  const gates = model.get("gates"), [closed, open] = model.get("levels"), raw = model.get("scenes");
  const data = model.get("data"), costs = gates.map((gate) => gate.mmacs), lanes = gates.length;
  const id = uniqueName();
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const player = new Player();
  const names = raw[0].points.map((point) => point.name);
  const state = { mode: "dynamic", point: Math.max(names.indexOf("as trained"), 0) || names.length >> 1, lane: -1 };
  let scene, images = {}, top = 0, layout, pointed = null, ticket = 0;

  // ----------------------------------------------------------------------------------------------------- elements
  const clips = [...new Set(raw.map((s) => s.clip))], snrs = [...new Set(raw.map((s) => s.snr))];
  const clipList = h("select", { onchange: load }, ...clips.map((clip, i) => h("option", { value: i }, clip)));
  const snrList = h("select", { onchange: load }, ...snrs.map((snr) => h("option", { value: snr }, minus(`${snr} dB`))));
  const playButton = h("button", { type: "button", class: "dsn-play", onclick: toggle, disabled: true }, "\u25b6 play");
  const repeat = h("input", { type: "checkbox", checked: true, onchange: () => {
    const was = player.playing;
    player.pause(); player.repeat = repeat.checked;
    if (was) player.play();
  } });
  const modeInputs = MODES.map(({ key }) =>
    h("input", { type: "radio", name: id, value: key, checked: key === state.mode, onchange: () => choose(key) }));
  const modes = h("fieldset", { class: "dsn-modes" }, h("legend", {}, "listen to"),
    ...MODES.map(({ name, hint }, i) =>
      h("label", { title: `${hint} (key ${i + 1})` }, modeInputs[i], h("span", {}, name))));
  const slider = h("input", { type: "range", min: 0, max: names.length - 1, step: 1, value: state.point,
    "aria-label": "budget", oninput: () => { state.point = Number(slider.value); choose("dynamic"); } });
  const sliderText = h("output", { class: "dsn-point" });
  const base = h("canvas", { class: "dsn-base", "aria-hidden": "true" });
  const over = h("canvas", { class: "dsn-over", "aria-hidden": "true" });
  const plot = h("div", { class: "dsn-plot", role: "slider", tabindex: 0, "aria-label":
    "play head over the spectrograms, the signal-to-noise ratio, the gates and the cost", "aria-valuemin": 0 }, base, over);
  const readout = h("p", { class: "dsn-readout", "aria-live": "polite" }, "loading the sounds\u2026");
  const fill = h("span", { class: "dsn-fill" }), meterText = h("span", { class: "dsn-meter-text" });
  const meter = h("div", { class: "dsn-meter", role: "meter", "aria-label": "MMAC/s at the play head",
    "aria-valuemin": 0, "aria-valuemax": open.toFixed(0) }, fill,
    h("span", { class: "dsn-mark", style: `left:${(100 * closed) / open}%`, title: "all closed" }));
  const summary = h("p", { class: "dsn-summary" });
  const table = h("tbody");
  const words = h("details", { class: "dsn-words" }, h("summary", {}, "the same in numbers, and the keys"),
    h("table", {}, h("thead", {}, h("tr", {}, ...["gate", "adds, MMAC/s", "frames open"].map((x) =>
      h("th", { scope: "col" }, x)))), table),
    h("p", {}, ...[["space", " plays and pauses; "], ["1", "\u2013"], ["5", " choose what is heard; on the picture, "],
      ["\u2190", " "], ["\u2192", " move by a frame, with "], ["shift", " by a quarter of a second, "], ["\u2191", " "],
      ["\u2193", " choose a gate, "], ["home", " and "], ["end", " jump."]].flatMap(([k, t]) => [h("kbd", {}, k), t])));
  const root = h("section", { class: "dsn-card dsn-gates", "aria-label": `Gate explorer: ${model.get("title")}`, onkeydown: key,
    "data-lm-suppress-shortcuts": "true" }, // in JupyterLab 1 to 6 would turn the cell into a heading
    h("div", { class: "dsn-bar" }, playButton, h("label", { class: "dsn-repeat" }, repeat, "repeat"),
      h("label", { class: "dsn-clip", hidden: clips.length < 2 }, "clip", clipList),
      h("label", { hidden: snrs.length < 2 }, "SNR", snrList)),
    h("div", { class: "dsn-bar" }, modes,
      h("label", { class: "dsn-budget" }, h("span", {}, "budget"), slider, sliderText)),
    plot, h("div", { class: "dsn-bar dsn-now" }, meter, meterText), readout, summary, words);
  el.append(root);

  // ------------------------------------------------------------------------------------------------------ choices
  const shown = () => (state.mode === "open" ? names.length - 1 : state.mode === "closed" ? 0 : state.point);
  const heard = () => (state.mode === "noisy" || state.mode === "clean" ? state.mode : String(shown()));
  const second = () => (state.mode === "clean" ? "clean" : String(shown())); // what the second spectrogram shows

  async function load() {
    const mine = ++ticket, was = player.playing;
    player.pause();
    playButton.disabled = true;
    root.dataset.state = "loading";
    const found = raw.find((s) => s.clip === clips[clipList.value || 0] && String(s.snr) === snrList.value) ?? raw[0];
    scene = unpack(found, data, costs, closed);
    images = {}; player.buffers = {}; player.at = 0;
    update();
    try {
      const buffers = await decode(scene.sounds);
      if (mine !== ticket) return; // another scene was chosen meanwhile
      player.buffers = buffers;
      const levels = spectrogram(buffers.noisy.getChannelData(0), scene.frames);
      top = highest(levels);
      images = { noisy: picture(levels, scene.frames, top) };
      player.mix({ [heard()]: 1 });
      playButton.disabled = false;
      root.dataset.state = "ready";
      readout.textContent = "Press play, then switch what you hear. Point at the picture to read it.";
    } catch (error) {
      if (mine !== ticket) return;
      root.dataset.state = "silent";
      readout.textContent = `This browser cannot decode the sounds (${error.message}); the gates are shown without them.`;
    }
    update();
    if (was) { await player.play(); tick(); }
  }

  function choose(mode) {
    state.mode = mode;
    modeInputs.forEach((input) => { input.checked = input.value === mode; });
    player.mix({ [heard()]: 1 });
    update();
  }

  async function toggle() {
    if (player.playing) player.pause(); else await player.play();
    tick();
  }
  player.onend = () => tick();

  function image(name) {
    if (!images[name] && player.buffers[name]) {
      images[name] = picture(spectrogram(player.buffers[name].getChannelData(0), scene.frames), scene.frames, top);
    }
    return images[name];
  }

  // ------------------------------------------------------------------------------------------------------ drawing
  function update() {
    const point = scene.points[shown()];
    root.dataset.mode = state.mode;
    const chosen = scene.points[state.point];
    sliderText.textContent = `${chosen.name}: ${percent(chosen.activation)} active`;
    slider.setAttribute("aria-valuetext", sliderText.textContent);
    summary.replaceChildren(
      h("b", {}, `${model.get("title")}, ${point.name}`), `: mean ${point.mmacs.toFixed(1)} of ${open.toFixed(1)} MMAC/s, `,
      `activation ${percent(point.activation)}, SI-SDR ${minus(scene.si_sdr.toFixed(1))} \u2192 `,
      `${minus(point.si_sdr.toFixed(1))} dB on this clip.`);
    table.replaceChildren(...gates.map((gate, k) => h("tr", {}, h("th", { scope: "row" }, gate.name),
      h("td", {}, gate.mmacs.toFixed(1)), h("td", {}, percent(point.rates[k])))));
    plot.setAttribute("aria-valuemax", scene.seconds.toFixed(2));
    draw();
  }

  function draw() {
    const width = plot.clientWidth;
    if (!width || !scene) return;
    const style = getComputedStyle(root), colour = (name) => style.getPropertyValue(`--dsn-${name}`).trim();
    const narrow = width < 560, left = narrow ? 74 : 128, right = narrow ? 36 : 44, lane = narrow ? 15 : 16;
    const rows = {}; // name -> [y, height]
    let y = 4;
    for (const [name, height] of [["noisy", narrow ? 78 : 96], ["output", narrow ? 78 : 96], ["snr", 48],
      ["gates", lane * lanes], ["cost", 64]]) { rows[name] = [y, height]; y += height + 8; }
    layout = { left, right, width, rows, lane, height: y + 14 };
    for (const canvas of [base, over]) {
      const scale = devicePixelRatio || 1;
      canvas.width = Math.round(width * scale); canvas.height = Math.round(layout.height * scale);
      canvas.style.height = `${layout.height}px`;
      canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
    }
    const c = base.getContext("2d"), point = scene.points[shown()], x0 = left, span = width - left - right;
    const ink = colour("ink"), quiet = colour("quiet"), family = style.fontFamily;
    const px = (t) => x0 + (span * (t + 0.5)) / scene.frames; // middle of frame t
    const text = (string, x, yy, { align = "right", fill: f = ink, size = narrow ? 10.5 : 12, weight = "" } = {}) => {
      c.font = `${weight} ${size}px ${family}`; c.textAlign = align; c.textBaseline = "middle"; c.fillStyle = f;
      c.fillText(string, x, yy);
    };
    const line = (values, at, { width: w = 1.5, stroke }) => {
      c.beginPath();
      for (let t = 0; t < values.length; t++) c.lineTo(px(t), at(values[t]));
      c.lineWidth = w; c.strokeStyle = stroke; c.stroke();
    };
    const rule = (yy, stroke, dash = []) => {
      c.beginPath(); c.setLineDash(dash); c.moveTo(x0, yy); c.lineTo(x0 + span, yy);
      c.lineWidth = 1; c.strokeStyle = stroke; c.stroke(); c.setLineDash([]);
    };

    // the two spectrograms; a bar at the left marks the one that is heard
    const titles = { noisy: "noisy", output: second() === "clean" ? "clean" : point.name };
    for (const name of ["noisy", "output"]) {
      const [top_, height] = rows[name], pixels = image(name === "noisy" ? "noisy" : second());
      c.fillStyle = "#000004"; c.fillRect(x0, top_, span, height);
      c.imageSmoothingQuality = "high";
      if (pixels) c.drawImage(pixels, x0, top_, span, height);
      const on = (name === "noisy") === (heard() === "noisy");
      if (on) { c.fillStyle = colour("accent"); c.fillRect(x0 - 4, top_, 4, height); }
      text(titles[name], x0 - 10, top_ + height / 2 - 8, { weight: on ? "bold" : "" });
      text(on ? (narrow ? "heard" : "heard now") : "0\u20138 kHz", x0 - 10, top_ + height / 2 + 8,
        { fill: on ? colour("accent") : quiet, size: narrow ? 9.5 : 11 });
    }
    // signal-to-noise ratio
    const [snrTop, snrHeight] = rows.snr;
    const ySnr = (v) => snrTop + snrHeight * (1 - (clamp(v, SNR_LOW, SNR_HIGH) - SNR_LOW) / (SNR_HIGH - SNR_LOW));
    rule(ySnr(0), quiet, [3, 3]);
    line(scene.snrs, ySnr, { stroke: colour("accent"), width: 1.8 });
    text(narrow ? "SNR" : "SNR, dB", x0 - 10, snrTop + snrHeight / 2);
    for (const v of [20, 0]) text(v, x0 + span + 5, ySnr(v), { align: "left", fill: quiet, size: 10 });
    // one lane a gate
    const [gateTop] = rows.gates;
    gates.forEach((gate, k) => {
      const yy = gateTop + k * lane;
      c.fillStyle = colour("closed"); c.fillRect(x0, yy + 1, span, lane - 2);
      c.fillStyle = colour("open");
      for (let t = 0; t < scene.frames; t++) { // runs of open frames, so that no seams show
        if (!point.gates[t * lanes + k]) continue;
        let end = t + 1;
        while (end < scene.frames && point.gates[end * lanes + k]) end++;
        c.fillRect(px(t - 0.5), yy + 1, px(end - 0.5) - px(t - 0.5), lane - 2);
        t = end;
      }
      text(narrow ? short(gate.name) : gate.name, x0 - 10, yy + lane / 2, { weight: state.lane === k ? "bold" : "" });
      text(percent(point.rates[k]), x0 + span + 5, yy + lane / 2, { align: "left", fill: quiet, size: 10 });
    });
    // cost
    const [costTop, costHeight] = rows.cost, yCost = (v) => costTop + costHeight * (1 - v / (1.12 * open));
    c.beginPath(); c.moveTo(px(0), yCost(0));
    for (let t = 0; t < scene.frames; t++) c.lineTo(px(t), yCost(point.cost[t]));
    c.lineTo(px(scene.frames - 1), yCost(0)); c.fillStyle = colour("wash"); c.fill();
    for (const v of [closed, open]) {
      rule(yCost(v), quiet, [3, 3]);
      text(v.toFixed(0), x0 + span + 5, yCost(v), { align: "left", fill: quiet, size: 10 });
    }
    line(running(point.cost, 8), yCost, { stroke: colour("open"), width: 2 });
    text("MMAC/s", x0 - 10, costTop + costHeight / 2);
    // time
    rule(costTop + costHeight, quiet);
    for (let s = 0; s <= scene.seconds; s++) {
      text(s === 0 ? "0 s" : s, x0 + (span * s) / (scene.frames * FRAME), costTop + costHeight + 11,
        { align: "center", fill: quiet, size: 10.5 });
    }
    overlay();
  }

  /** Play head and cross hair; and everything that says what is at the play head. */
  function overlay() {
    if (!layout) return;
    const { left, right, width, height, rows, lane } = layout, c = over.getContext("2d");
    const style = getComputedStyle(root), span = width - left - right;
    const t = frameNow(), point = scene.points[shown()], head = player.position;
    c.clearRect(0, 0, width, height);
    const bar = (x, stroke, w) => {
      c.beginPath(); c.moveTo(x, 2); c.lineTo(x, height - 20); c.lineWidth = w; c.strokeStyle = stroke; c.stroke();
    };
    const x = left + (span * (head / FRAME + 0.5)) / scene.frames;
    bar(x, style.getPropertyValue("--dsn-paper"), 4);
    bar(x, style.getPropertyValue("--dsn-head"), 2);
    if (state.lane >= 0) {
      c.strokeStyle = style.getPropertyValue("--dsn-head"); c.lineWidth = 1.5;
      c.strokeRect(left, rows.gates[0] + state.lane * lane + 0.5, span, lane - 1);
    }
    if (pointed) {
      bar(pointed.x, style.getPropertyValue("--dsn-quiet"), 1);
      c.font = `12px ${style.fontFamily}`; c.textBaseline = "middle"; c.textAlign = "left";
      const wide = c.measureText(pointed.words).width + 14, y = Math.max(12, pointed.y - 26);
      const at = clamp(pointed.x + 8, 0, width - wide);
      c.fillStyle = style.getPropertyValue("--dsn-ink"); c.fillRect(at, y - 11, wide, 22);
      c.fillStyle = style.getPropertyValue("--dsn-paper"); c.fillText(pointed.words, at + 7, y);
    }
    const now = mean(point.cost, Math.max(0, t - 3), Math.min(scene.frames, t + 4));
    fill.style.width = `${(100 * now) / open}%`;
    meter.setAttribute("aria-valuenow", now.toFixed(0));
    meterText.textContent = `${now.toFixed(0)} MMAC/s at ${head.toFixed(1)} s`;
    plot.setAttribute("aria-valuenow", head.toFixed(2));
    let count = 0;
    for (let k = 0; k < lanes; k++) count += point.gates[t * lanes + k];
    plot.setAttribute("aria-valuetext", `${head.toFixed(2)} seconds, ${count} of ${lanes} gates open, ` +
      `${point.cost[t].toFixed(0)} MMAC/s, SNR ${minus(scene.snrs[t].toFixed(0))} dB`);
  }

  const frameNow = () => clamp(Math.round(player.position / FRAME), 0, scene.frames - 1);
  const short = (name) => name.replace("frequency ", "F").replace("time", "T").replace("encoder", "enc")
    .replace("decoder", "dec").replace("hidden", "hid");

  let last = 0;
  function tick(now = 0) {
    playButton.textContent = player.playing ? "\u275a\u275a pause" : "\u25b6 play";
    root.dataset.playing = player.playing;
    readout.setAttribute("aria-live", player.playing ? "off" : "polite");
    if (!player.playing || !still.matches || now - last > 200) { last = now; overlay(); }
    if (player.playing && root.isConnected) requestAnimationFrame(tick);
  }

  // ------------------------------------------------------------------------------------------------ what is there
  /** Words for the lane `k` at frame `t`: a full sentence, or what fits beside the pointer. */
  function gateWords(k, t, brief = false) {
    const point = scene.points[shown()], isOpen = point.gates[t * lanes + k];
    const margin = scene.margins[t * lanes + k] + (point.shift ?? 0);
    const p = point.shift === null ? "" : `, margin ${minus(margin.toFixed(3))}`;
    if (brief) return `${gates[k].name}: ${isOpen ? "open" : "closed"}${p}`;
    return `${gates[k].name}, frame ${t} (${(t * FRAME).toFixed(2)} s): ${isOpen ? "open" : "closed"}${p}; ` +
      `when open it adds ${gates[k].mmacs.toFixed(1)} MMAC/s`;
  }

  function describe(x, y, brief = false) {
    const { left, right, width, rows, lane } = layout;
    const t = clamp(Math.floor(((x - left) / (width - left - right)) * scene.frames), 0, scene.frames - 1);
    const inside = (name) => y >= rows[name][0] && y < rows[name][0] + rows[name][1];
    const when = brief ? `${(t * FRAME).toFixed(2)} s` : `frame ${t} (${(t * FRAME).toFixed(2)} s)`;
    if (inside("gates")) return gateWords(Math.floor((y - rows.gates[0]) / lane), t, brief);
    if (inside("snr")) return `${when}: SNR ${minus(scene.snrs[t].toFixed(1))} dB`;
    if (inside("cost")) return `${when}: ${scene.points[shown()].cost[t].toFixed(1)} MMAC/s`;
    for (const name of ["noisy", "output"]) {
      if (inside(name)) {
        const hertz = 8000 * (1 - (y - rows[name][0]) / rows[name][1]);
        return `${when}: ${(hertz / 1000).toFixed(1)} kHz`;
      }
    }
    return when;
  }

  let dragging = false;
  const secondsAt = (x) =>
    (((x - layout.left) / (layout.width - layout.left - layout.right)) * scene.frames - 0.5) * FRAME;
  const place = (event) => {
    const box = plot.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  plot.addEventListener("pointermove", (event) => {
    const { x, y } = place(event);
    if (!layout) return;
    pointed = x >= layout.left && x <= layout.width - layout.right ? { x, y, words: describe(x, y, true) } : null;
    if (pointed) readout.textContent = describe(x, y);
    if (dragging) player.seek(secondsAt(x));
    overlay();
  });
  plot.addEventListener("pointerdown", (event) => {
    const { x, y } = place(event);
    if (!layout || event.button !== 0) return;
    dragging = true;
    plot.setPointerCapture(event.pointerId);
    readout.textContent = describe(x, y);
    player.seek(secondsAt(x));
    overlay();
  });
  for (const name of ["pointerup", "pointercancel"]) plot.addEventListener(name, () => { dragging = false; });
  plot.addEventListener("pointerleave", () => { pointed = null; overlay(); });

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    const digit = MODES[Number(event.key) - 1];
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], lift = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (digit) choose(digit.key);
    else if (event.key === " " && (event.target === plot || event.target.matches("input[type=radio], input[type=range]")))
      toggle();
    else if (event.target !== plot) return;
    else if (step) player.seek(player.position + step * (event.shiftKey ? 0.25 : FRAME));
    else if (lift) state.lane = clamp(state.lane + lift, 0, lanes - 1);
    else if (event.key === "Home") player.seek(0);
    else if (event.key === "End") player.seek(scene.seconds);
    else return;
    event.preventDefault();
    event.stopPropagation(); // Jupyter and the page have keys of their own
    if (step && state.lane < 0) readout.textContent = plot.getAttribute("aria-valuetext");
    if (lift) draw();
    overlay();
    if ((step || lift) && state.lane >= 0) readout.textContent = gateWords(state.lane, frameNow());
  }

  // ------------------------------------------------------------------------------------------------- life and death
  const unwatch = watchLooks(plot, draw);
  load();
  return () => {
    player.close(); unwatch(); root.remove();
  };
}

export default { render };
