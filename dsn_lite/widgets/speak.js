// "Speak to it": the reader's own sound through the network, computed in the page. Before it stand shared.js, blocks.js,
// engine.js, clip.js, microphone.js, strip.js and panel.js, as one self-contained module (the anywidget front-end convention).
// It reads the traits `table`, `clips`, `data`, `worklet` and `hint` and never talks to a kernel.

const POLICIES = [
  { key: "learned", name: "learned", hint: "the policy decides, frame by frame (key 3)" },
  { key: "open", name: "all open", hint: "the whole refinement on every frame (key 4)" },
  { key: "closed", name: "all closed", hint: "the small network alone (key 5)" },
  { key: "random", name: "random", hint: "as much as the policy spent, at moments that nobody chose (key 6)" },
];
const HEARD = [
  { key: "noisy", name: "noisy", hint: "what came in (key 1)" },
  { key: "enhanced", name: "enhanced", hint: "what the network made of it (key 2)" },
];
const LONGEST = 15, ROLL = 500; // seconds of a recording, frames of the picture while it lasts

function render({ model, el }) {
  const table = model.get("table"), data = model.get("data"), clips = model.get("clips");
  const lanes = table.gates.length, { closed, open } = table.mmacs, isDynamic = Boolean(table.policy && lanes);
  const weights = new Float32Array(bytesOf(data, model.get("weights_at"))), wasm = bytesOf(data, model.get("products_at"));
  const engine = new Engine(table, weights, fastKernel(wasm, weights)), workshop = new Workshop(engine);
  const player = new Player(), still = matchMedia("(prefers-reduced-motion: reduce)");
  const trained = Math.round(100 * trainedShare(table.calibration));
  const state = { heard: "enhanced", policy: "learned", budget: null, mark: null };
  let clip = null, result = null, images = {}, strips = null, microphone = null, layout = null, loading = 0;

  // ----------------------------------------------------------------------------------------------------- elements
  const button = (text, onclick, options = {}) => h("button", { type: "button", onclick, ...options }, text);
  const recordButton = button("Record", () => toggleMicrophone(false), { class: "dsn-record" });
  const liveButton = button("Live", () => toggleMicrophone(true), { disabled: true,
    title: "hear yourself through the network while you speak" });
  const headphones = h("input", { type: "checkbox", onchange: () => {
    liveButton.disabled = !headphones.checked && !microphone;
    if (!headphones.checked && microphone?.live) stopMicrophone();
  } });
  const fileInput = h("input", { type: "file", accept: "audio/*,video/*,.flac,.wav,.ogg,.opus", class: "dsn-file",
    "aria-label": "Choose a sound file", onchange: () => { if (fileInput.files[0]) openFile(fileInput.files[0]); fileInput.value = ""; } });
  const clipList = h("select", { "aria-label": "a clip of the book", onchange: () => openClip(Number(clipList.value)) },
    ...clips.map(({ name }, i) => h("option", { value: i }, name)));
  const playButton = button("\u25b6 play", toggle, { class: "dsn-play", disabled: true });
  const heard = choice("listen to", HEARD, state.heard, listen), policy = choice("gates", POLICIES, state.policy, (key) => {
    state.policy = key; compute();
  });
  const slider = h("input", { type: "range", min: 0, max: 100, step: 5, value: trained, "aria-label": "budget", oninput: () => {
    state.budget = Number(slider.value) / 100; state.policy = "learned"; policy.show("learned"); compute();
  } });
  const sliderText = h("span", { class: "dsn-chosen" });
  const base = h("canvas", { "aria-hidden": "true" }), over = h("canvas", { class: "dsn-over", "aria-hidden": "true" });
  const plot = h("div", { class: "dsn-plot", role: "slider", tabindex: 0, "aria-valuemin": 0,
    "aria-label": "play head over both spectrograms, the gates and the cost" }, base, over);
  const fill = h("span", { class: "dsn-fill" }), meterText = h("span", { class: "dsn-meter-text" });
  const meter = h("div", { class: "dsn-meter", role: "meter", "aria-label": "MMAC/s at the play head", "aria-valuemin": 0,
    "aria-valuemax": Math.round(open) }, fill, h("span", { class: "dsn-mark", style: `left:${(100 * closed) / open}%` }));
  const status = h("p", { class: "dsn-status", role: "status" }), said = h("p", { class: "dsn-said", role: "alert" });
  const saveLink = button("Download WAV", save, { disabled: true });
  const loopText = h("span"), loopBox = h("span", { class: "dsn-loop", hidden: true }, loopText,
    button("\u2715", () => loop(null), { "aria-label": "stop repeating this part", class: "dsn-small" }));
  const hint = h("p", { class: "dsn-hint" }, model.get("hint"));
  const words = h("details", { class: "dsn-words" }, h("summary", {}, "keys, and where your voice goes"),
    keyWords(["space", " plays and pauses; "], ["1", " noisy, "], ["2", " enhanced; "], ["3", "\u2013"],
      ["6", " how the gates are set; "], ["\u2190", " "], ["\u2192", " move by a quarter of a second, with "],
      ["shift", " by two; "], ["home", " and "], ["end", " jump; "], ["a", " and "],
      ["b", " begin and end a part that is repeated (or drag over the picture), "], ["c", " clears it."]),
    h("p", {}, "Nothing leaves this page: it asks no server, your voice is computed here and is gone when you close it."));
  const root = h("section", { class: "dsn-card dsn-speak", "aria-label": "Speak to it", onkeydown: key,
    "data-lm-suppress-shortcuts": "true",
    ondragover: (event) => { event.preventDefault(); root.dataset.over = true; },
    ondragleave: () => { delete root.dataset.over; },
    ondrop: (event) => {
      event.preventDefault(); delete root.dataset.over;
      const [file] = event.dataTransfer.files;
      if (file) openFile(file); else say("That was no file: drop a sound file here.");
    } },
    h("div", { class: "dsn-bar dsn-sources" }, recordButton,
      h("label", { class: "dsn-choose" }, fileInput, h("span", {}, "Choose or drop a file")),
      h("label", {}, h("span", { class: "dsn-quiet" }, "or a clip"), clipList),
      h("span", { class: "dsn-live" }, h("label", {}, headphones, "I wear headphones"), liveButton)),
    h("div", { class: "dsn-bar" }, playButton, heard.field, ...(isDynamic ? [policy.field,
      h("label", { class: "dsn-budget" }, h("span", {}, "budget"), slider, sliderText)] : [])),
    plot, h("div", { class: "dsn-bar dsn-now" }, meter, meterText, loopBox, saveLink), status, said, hint, words);
  el.append(root);
  const panel = new Panel(base, root, table);

  // -------------------------------------------------------------------------------------------------------- sounds
  const say = (text) => { said.textContent = text; };
  const buffered = (samples) => {
    const buffer = new AudioBuffer({ length: samples.length, sampleRate: RATE });
    buffer.copyToChannel(samples, 0);
    return buffer;
  };
  const spectrogram = (wave, frames) => levelsOf([transform(wave, frames), 1]);

  async function openClip(i) {
    const mine = ++loading;
    stopMicrophone();
    try {
      const decoded = await decode({ clip: bytesOf(data, clips[i].sound_at) });
      if (mine === loading) use(decoded.clip.getChannelData(0).slice(), clips[i].name);
    } catch (error) { say(`This browser cannot decode the clip (${error.message}): choose a WAV file or record.`); }
  }
  async function openFile(file) {
    const mine = ++loading;
    stopMicrophone();
    say("");
    try {
      const { samples, cut } = await samplesOf(file);
      if (mine !== loading) return;
      say(cut);
      use(samples, file.name);
    } catch (error) { say(error.message); }
  }
  /** Take samples as the clip, and compute it. */
  function use(samples, name) {
    player.pause();
    Object.assign(player, { buffers: { noisy: buffered(samples) }, at: 0, region: null });
    clip = { samples, name, frames: Math.ceil(samples.length / HOP) + 1 };
    const levels = spectrogram(samples, clip.frames);
    clip.top = highest(levels);
    images = { noisy: picture(levels, clip.frames, clip.top) };
    result = null;
    loop(null);
    return compute();
  }

  async function compute() {
    showBudget();
    microphone?.set(liveSettings());
    if (!clip || microphone) return;
    root.dataset.state = "computing";
    const done = await workshop.run(clip.samples, isDynamic ? state.policy : "open", shift());
    if (!done) return; // another setting was chosen meanwhile
    result = done;
    images.enhanced = picture(spectrogram(done.wave, done.frames), done.frames, clip.top);
    player.replace("enhanced", buffered(done.wave));
    player.mix({ [state.heard]: 1 });
    playButton.disabled = saveLink.disabled = false;
    root.dataset.state = "ready";
    status.replaceChildren(...bill());
    draw();
  }
  const shift = () => shiftFor(state.budget, table.calibration);
  function bill() {
    const spent = mean(result.costs);
    const sum = h("b", {}, `${Math.round(spent)} of ${Math.round(open)} million multiplications a second`);
    if (!isDynamic) return [sum, ` (${spent.toFixed(1)} MMAC/s).`];
    const share = open > closed ? Math.max(0, (spent - closed) / (open - closed)) : 1;
    return [sum, ` (${spent.toFixed(1)} MMAC/s): ${Math.round(closed)} for the small answer and the policy, ` +
      `${Math.round(spent - closed)} for ${percent(share)} of the refinement.`];
  }
  function showBudget() {
    const share = state.budget ?? trained / 100;
    sliderText.textContent = state.budget === null ? "as trained" : percent(share);
    slider.setAttribute("aria-valuetext", `${percent(share)} of the refinement${state.budget === null ? ", as trained" : ""}`);
  }
  function listen(which) {
    state.heard = which;
    heard.show(which);
    player.mix({ [which]: 1 });
    microphone?.set(liveSettings());
    draw();
  }
  async function toggle() {
    if (playButton.disabled) return;
    if (player.playing) player.pause(); else await player.play();
    tick();
  }
  player.onend = () => tick();
  function loop(region) {
    const was = player.playing;
    player.pause();
    player.region = region && region[1] - region[0] > 0.05 ? region : null;
    loopBox.hidden = !player.region;
    if (player.region) loopText.textContent = `repeats ${player.region.map((s) => s.toFixed(1)).join("\u2013")} s`;
    if (was) player.play().then(tick);
    overlay();
  }
  function save() {
    const link = h("a", { href: URL.createObjectURL(wavOf(state.heard === "noisy" ? clip.samples : result.wave)),
      download: `${clip.name.replace(/\.\w+$/, "").replace(/\W+/g, "-")}-${state.heard}.wav` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // ---------------------------------------------------------------------------------------------------- microphone
  const liveSettings = () => ({ policy: state.policy, shift: shift(), enhanced: state.heard === "enhanced",
    list: state.policy === "random" ? Array(lanes).fill(state.budget ?? trained / 100) : undefined,
    monitor: Boolean(microphone?.live) });

  async function toggleMicrophone(live) {
    if (microphone) return stopMicrophone();
    loading++; workshop.ticket++;
    player.pause();
    say("");
    root.dataset.state = "asking";
    const mine = microphone = new Microphone(model.get("worklet"), { table, weights, wasm: new Uint8Array(wasm) }, hear);
    mine.live = live;
    try {
      const on = await mine.open(liveSettings());
      if (mine !== microphone) { mine.close(); return; }
      if (on) say(`The browser keeps its own ${on} on: what you see is already cleaned.`);
    } catch (error) {
      microphone = null;
      root.dataset.state = clip ? "ready" : "empty";
      say(error.message);
      return;
    }
    strips = { frames: [], drawn: 0, noisy: new Strip(ROLL), enhanced: new Strip(ROLL) };
    root.dataset.state = live ? "live" : "recording";
    (live ? liveButton : recordButton).textContent = "Stop";
    playButton.disabled = saveLink.disabled = true;
    draw();
  }
  /** Some frames have come from the microphone; they are kept at once, and drawn when there is time. */
  function hear(frames) {
    if (!strips || !microphone) return;
    for (const frame of frames) strips.frames.push({ ...frame, cost: engine.cost(frame.gates) });
    if (!microphone.live && strips.frames.length * FRAME >= LONGEST) return void stopMicrophone();
    if (strips.waiting) return;
    strips.waiting = setTimeout(() => requestAnimationFrame(() => {
      if (!strips) return;
      strips.waiting = 0;
      follow();
      draw();
    }), still.matches ? 250 : 60);
  }
  /** Bring pictures and words up to the last frame. */
  function follow() {
    const { frames } = strips, seconds = frames.length * FRAME;
    for (const frame of frames.slice(Math.max(strips.drawn, frames.length - ROLL)))
      for (const name of ["noisy", "enhanced"]) strips[name].hop(frame[name]);
    if (microphone.live && frames.length > 60 / FRAME) frames.splice(0, frames.length - 60 / FRAME); // the last minute
    strips.drawn = frames.length;
    root.dataset.underruns = microphone.underruns;
    status.textContent = microphone.live ? `Live: ${Math.round(frames.at(-1).cost)} of ${Math.round(open)} MMAC/s; ` +
      `gaps in the sound so far: ${microphone.underruns}.` :
      `Recording, ${seconds.toFixed(1)} s of at most ${LONGEST}. Press Stop when you have spoken.`;
  }
  function stopMicrophone() {
    if (!microphone) return;
    const { live } = microphone, { frames } = strips ?? { frames: [] };
    microphone.close();
    microphone = strips = null;
    recordButton.textContent = "Record"; liveButton.textContent = "Live"; liveButton.disabled = !headphones.checked;
    if (frames.length < 10) { root.dataset.state = "empty"; if (clip) compute(); return; }
    const samples = new Float32Array(frames.length * HOP);
    frames.forEach((frame, t) => samples.set(frame.noisy, t * HOP));
    use(samples, live ? "what you said live" : "what you said").then(() => playButton.focus());
  }

  // ------------------------------------------------------------------------------------------------------- drawing
  /** What is to be seen: of the clip, or the last seconds from the microphone. */
  function scene() {
    if (strips) {
      const shown = strips.frames.slice(-ROLL), flat = new Uint8Array(shown.length * lanes);
      shown.forEach((frame, t) => flat.set(frame.gates, t * lanes));
      return { frames: ROLL, used: shown.length, gates: flat, costs: shown.map((frame) => frame.cost) };
    }
    return clip && { frames: clip.frames, used: result?.frames ?? 0, gates: result?.gates, costs: result?.costs ?? [] };
  }

  function draw() {
    const width = plot.clientWidth, shown = scene();
    if (!width || !shown) return;
    const paint = (c, name, ...place) => {
      if (strips) strips[name].show(c, ...place);
      else if (images[name]) c.drawImage(images[name], ...place);
    };
    layout = panel.draw(shown, width, { paint, heard: state.heard, note: strips && !microphone?.live ? "recording" : "heard" });
    sizeCanvas(over, width, layout.height);
    overlay();
  }

  /** Play head and repeated part, and everything that says what is at the play head. */
  function overlay() {
    if (!layout) return;
    const { left, height, width, span, frames } = layout, c = over.getContext("2d"), style = getComputedStyle(root);
    c.clearRect(0, 0, width, height);
    if (strips) {
      sayNow(strips.frames.at(-1)?.cost ?? 0, "now");
      return;
    }
    const x = (seconds) => left + (span * (seconds / FRAME + 0.5)) / frames, at = player.position;
    if (player.region) {
      const [from, to] = player.region.map(x);
      c.fillStyle = style.getPropertyValue("--dsn-wash"); c.fillRect(from, 2, to - from, height - 22);
      c.strokeStyle = style.getPropertyValue("--dsn-accent"); c.strokeRect(from, 2, to - from, height - 22);
    }
    for (const [name, wide] of [["paper", 4], ["head", 2]]) {
      c.beginPath(); c.moveTo(x(at), 2); c.lineTo(x(at), height - 20);
      c.lineWidth = wide; c.strokeStyle = style.getPropertyValue(`--dsn-${name}`); c.stroke();
    }
    const t = clamp(Math.round(at / FRAME), 0, frames - 1);
    if (result) sayNow(mean(result.costs, Math.max(0, t - 3), Math.min(frames, t + 4)), `at ${at.toFixed(1)} s`);
    plot.setAttribute("aria-valuemax", player.seconds.toFixed(2));
    plot.setAttribute("aria-valuenow", at.toFixed(2));
    const count = result ? result.gates.subarray(t * lanes, (t + 1) * lanes).reduce((a, b) => a + b, 0) : 0;
    plot.setAttribute("aria-valuetext", `${at.toFixed(1)} of ${player.seconds.toFixed(1)} seconds, ${state.heard}` +
      (result && lanes ? `, ${count} of ${lanes} gates open, ${Math.round(result.costs[t])} MMAC/s` : ""));
  }
  function sayNow(cost, when) {
    fill.style.width = `${(100 * cost) / open}%`;
    meter.setAttribute("aria-valuenow", Math.round(cost));
    meterText.textContent = `${Math.round(cost)} MMAC/s ${when}`;
  }

  let last = 0;
  function tick(now = 0) {
    playButton.textContent = player.playing ? "\u275a\u275a pause" : "\u25b6 play";
    root.dataset.playing = player.playing;
    if (!player.playing || !still.matches || now - last > 200) { last = now; overlay(); }
    if (player.playing && root.isConnected) requestAnimationFrame(tick);
  }

  // ----------------------------------------------------------------------------------------------- pointer and keys
  const secondsAt = (event) => clamp(((event.clientX - plot.getBoundingClientRect().left - layout.left) / layout.span) *
    layout.frames * FRAME, 0, player.seconds);
  let pressed = null;
  plot.addEventListener("pointerdown", (event) => {
    if (!layout || strips || event.button !== 0) return;
    pressed = { seconds: secondsAt(event), x: event.clientX };
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!pressed || Math.abs(event.clientX - pressed.x) < 8) return;
    player.region = [pressed.seconds, secondsAt(event)].sort((a, b) => a - b); // shown while it is drawn
    overlay();
  });
  plot.addEventListener("pointerup", (event) => {
    if (!pressed) return;
    if (Math.abs(event.clientX - pressed.x) < 8) player.seek(pressed.seconds);
    else loop([pressed.seconds, secondsAt(event)].sort((a, b) => a - b));
    pressed = null;
    overlay();
  });
  plot.addEventListener("pointercancel", () => { pressed = null; });

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=file]")) return;
    const digit = Number(event.key), { target } = event;
    const arrow = { ArrowLeft: -1, ArrowRight: 1 }[event.key], onPlot = target === plot;
    if (digit >= 1 && digit <= 2) listen(HEARD[digit - 1].key);
    else if (digit >= 3 && digit <= 6 && isDynamic) {
      state.policy = POLICIES[digit - 3].key; policy.show(state.policy); compute();
    } else if (event.key === " " && (onPlot || target.matches("input[type=radio], input[type=range]"))) toggle();
    else if (event.key === "a") state.mark = player.position;
    else if (event.key === "b") loop([state.mark ?? 0, player.position].sort((a, b) => a - b));
    else if (event.key === "c") { state.mark = null; loop(null); }
    else if (!onPlot) return;
    else if (arrow) player.seek(player.position + arrow * (event.shiftKey ? 2 : 0.25));
    else if (event.key === "Home") player.seek(0);
    else if (event.key === "End") player.seek(player.seconds);
    else return;
    event.preventDefault();
    event.stopPropagation(); // Jupyter and the page have keys of their own
    overlay();
  }

  // ------------------------------------------------------------------------------------------------- life and death
  const unwatch = watchLooks(plot, draw), leave = () => stopMicrophone();
  addEventListener("pagehide", leave); // the light of the microphone goes out with the page
  showBudget();
  if (clips.length) openClip(0);
  return () => { removeEventListener("pagehide", leave); stopMicrophone(); player.close(); unwatch(); root.remove(); };
}

export default { render };
