// Gumbel playground: draw a gate again and again. One self-contained module (the anywidget front-end convention): it reads
// the traits `difference`, `temperature`, `noise`, `seed`, `draws`, `ranges`, writes the first three, and needs no kernel.
//
// The noise of a draw is kept, so that a slider moves all draws that are on the page instead of drawing new ones.

const SHOWN = 40; // of the last draws
const SPAN = 8; // of the axis of the noisy logit difference, to both sides
const EVERY = 120, EVERY_STILL = 1000; // milliseconds between automatic draws; the second where motion is unwelcome

// ------------------------------------------------------------------------------------------------------------- tools
const SVG = (() => { // the name space, read off an element
  const holder = document.createElement("template");
  holder.innerHTML = "<svg></svg>";
  return holder.content.firstChild.namespaceURI;
})();

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}
/** Make an element: attributes, then children (nodes or text); attributes that begin with "on" are listeners. */
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
/** The same inside a drawing. */
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const number = (x, digits = 2) => {
  const text = x.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
};
const percent = (x) => `${number(100 * x, 1)}\u202f%`;
const sigmoid = (x) => 0.5 * (1 + Math.tanh(0.5 * x));
const mean = (values) => values.reduce((sum, x) => sum + x, 0) / Math.max(1, values.length);

/** "mulberry32": uniform in (0, 1), the same numbers as gumbel_draws of the Python module. */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
}

// -------------------------------------------------------------------------------------------------------------- view
function render({ model, el }) {
  const ranges = model.get("ranges"), stops = ranges.temperatures;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let uniform, noises, timer = 0;

  // ----------------------------------------------------------------------------------------------------- elements
  const set = (name, value) => { model.set(name, value); model.save_changes(); };
  const difference = h("input", { type: "range", min: ranges.difference[0], max: ranges.difference[1], step: 0.1,
    "aria-label": "logit difference, open minus closed",
    oninput: () => set("difference", Number(difference.value)) });
  const temperature = h("input", { type: "range", min: 0, max: stops.length - 1, step: 1, "aria-label": "temperature",
    oninput: () => set("temperature", stops[temperature.value]) });
  const differenceText = h("output"), temperatureText = h("output");
  const one = h("button", { type: "button", class: "dsn-draw", onclick: () => draw(1) }, "draw");
  const many = h("button", { type: "button", onclick: () => draw(100) }, "draw 100");
  const automatic = h("button", { type: "button", class: "dsn-auto", "aria-pressed": "false",
    onclick: () => run(!timer) }, "draw by itself");
  const again = h("button", { type: "button", class: "dsn-again", onclick: () => { restart(0); } }, "start again");
  const noise = h("input", { type: "checkbox", onchange: () => set("noise", noise.checked) });
  const panels = {};
  for (const [name, title] of [["draws", "the last draws"], ["soft", "soft values of all draws"],
    ["gate", "gate against noisy logit difference"], ["gradient", "gradient of the soft gate"]]) {
    const drawing = s("svg", { role: "img", class: `dsn-${name}` });
    panels[name] = { drawing, figure: h("figure", {}, h("figcaption", {}, title), drawing) };
  }
  const opened = h("span", { class: "dsn-opened" }), exact = h("span", { class: "dsn-mark" });
  const meter = h("div", { class: "dsn-meter", role: "meter", "aria-label": "share of the draws that opened",
    "aria-valuemin": 0, "aria-valuemax": 100 }, opened, exact);
  const meterText = h("span", { class: "dsn-meter-text" });
  const readout = h("p", { class: "dsn-readout", "aria-live": "polite" });
  const table = h("tbody");
  const root = h("section", { class: "dsn-gumbel", "aria-label": "Gumbel playground: a gate to draw", onkeydown: key,
    "data-lm-suppress-shortcuts": "true" }, // in JupyterLab "d d" would delete the cell, and "a" insert one
    h("div", { class: "dsn-bar" },
      h("label", { class: "dsn-slide" }, h("span", {}, "logit difference"), difference, differenceText),
      h("label", { class: "dsn-slide" }, h("span", {}, "temperature"), temperature, temperatureText)),
    h("div", { class: "dsn-bar" }, one, many, automatic, again, h("label", {}, noise, "Gumbel noise")),
    h("div", { class: "dsn-bar dsn-now" }, meter, meterText),
    h("div", { class: "dsn-panels" }, ...Object.values(panels).map(({ figure }) => figure)),
    readout,
    h("details", { class: "dsn-words" }, h("summary", {}, "the same in numbers, and the keys"), h("table", {}, table),
      h("p", {}, ...[["d", " draws, "], ["h", " draws a hundred, "], ["a", " starts and stops the automatic drawing, "],
        ["n", " switches the noise, "], ["r", " starts again; on a slider "], ["\u2190", " "], ["\u2192", " move by a step."]]
        .flatMap(([k, t]) => [h("kbd", {}, k), t]))));
  el.append(root);

  // ------------------------------------------------------------------------------------------------------ drawing lots
  function restart(draws) {
    run(false);
    uniform = generator(model.get("seed"));
    noises = [];
    draw(draws);
  }

  function draw(count) {
    const wanted = Math.min(noises.length + count, ranges.draws);
    while (noises.length < wanted) noises.push([-Math.log(-Math.log(uniform())), -Math.log(-Math.log(uniform()))]);
    if (noises.length === ranges.draws) run(false);
    update();
  }

  function run(on) {
    clearInterval(timer);
    // As many draws in a second either way, but one change of the picture where motion is unwelcome.
    const pause = still.matches ? EVERY_STILL : EVERY, count = Math.round(pause / EVERY);
    timer = on && noises.length < ranges.draws
      ? setInterval(() => (root.isConnected ? draw(count) : run(false)), pause) : 0;
    automatic.setAttribute("aria-pressed", String(Boolean(timer)));
    automatic.textContent = timer ? "stop" : "draw by itself";
    root.dataset.running = Boolean(timer);
    readout.setAttribute("aria-live", timer ? "off" : "polite");
  }

  /** Everything that the page shows, from the traits and the noise that was drawn. */
  function compute() {
    const d = model.get("difference"), tau = model.get("temperature"), on = model.get("noise");
    const noisy = noises.map(([closed, open]) => d + (on ? open - closed : 0));
    const soft = noisy.map((z) => sigmoid(z / tau));
    const gradients = soft.map((x) => (x * (1 - x)) / tau);
    const share = mean(noisy.map((z) => Number(z > 0)));
    const probability = on ? sigmoid(d) : Number(d > 0);
    const bars = new Array(ranges.bins).fill(0);
    for (const x of soft) bars[Math.min(Math.floor(x * ranges.bins), ranges.bins - 1)] += 1 / soft.length;
    const below = (x) => (x <= 0 ? 0 : x >= 1 ? 1 : sigmoid(tau * Math.log(x / (1 - x)) - d));
    const expected = bars.map((_, i) => below((i + 1) / ranges.bins) - below(i / ranges.bins));
    return { d, tau, on, noisy, soft, gradients, share, probability, bars, expected,
      slope: sigmoid(d) * (1 - sigmoid(d)), gradient: mean(gradients) };
  }

  // ------------------------------------------------------------------------------------------------------------ words
  function update() {
    const now = compute(), { d, tau, on, noisy, soft, gradients, share, probability, gradient, slope } = now;
    const n = noises.length, last = n - 1, full = n >= ranges.draws;
    difference.value = d; differenceText.textContent = number(d, 1);
    difference.setAttribute("aria-valuetext", `${number(d, 1)}, opens with probability ${number(sigmoid(d))}`);
    temperature.value = stops.filter((stop) => stop <= tau * (1 + 1e-9)).length - 1; // from Python it may lie in between
    temperatureText.textContent = number(tau);
    temperature.setAttribute("aria-valuetext", number(tau));
    noise.checked = on;
    for (const button of [one, many, automatic]) button.disabled = full;
    Object.assign(root.dataset, { draws: n, noise: on });
    opened.style.width = `${100 * share}%`;
    exact.style.left = `${100 * probability}%`;
    meter.setAttribute("aria-valuenow", (100 * share).toFixed(1));
    const chance = on ? `expected ${percent(probability)}` : `without noise always ${d > 0 ? "open" : "closed"}`;
    meterText.textContent = n ? `open in ${percent(share)} of ${n}; ${chance}` : `nothing drawn; ${chance}`;
    meter.setAttribute("aria-valuetext", meterText.textContent);
    readout.textContent = !n ? "Press draw." : `Draw ${n}: ` +
      (on ? `noise ${number(noises[last][0])} on closed, ${number(noises[last][1])} on open; ` : "no noise; ") +
      `difference ${number(noisy[last])}, soft value ${number(soft[last])}, so the gate is ` +
      `${noisy[last] > 0 ? "open" : "closed"}; gradient ${number(gradients[last], 3)}.` +
      (full ? ` ${n} draws are enough; start again for new ones.` : "");
    table.replaceChildren(...[
      ["draws", String(n)],
      ["open in", n ? percent(share) : "\u2013"],
      ["probability of opening", percent(probability)],
      ["mean soft value", n ? number(mean(soft), 3) : "\u2013"],
      ["mean gradient of the soft gate", n ? number(gradient, 3) : "\u2013"],
      ["slope of the probability", on ? number(slope, 3) : "0"],
    ].map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value))));
    const half = ranges.bins / 2, outer = now.bars[0] + now.bars[ranges.bins - 1];
    const alt = {
      draws: `Soft and hard value of the last ${Math.min(n, SHOWN)} draws; ` +
        `${noisy.slice(-SHOWN).filter((z) => z > 0).length} of them open.`,
      soft: `Histogram of the soft values: ${percent(now.bars.slice(0, half).reduce((a, b) => a + b, 0))} in the lower half, ` +
        `${percent(outer)} in the two outermost of ${ranges.bins} bars.`,
      gate: `The hard gate jumps at zero; the soft gate at temperature ${number(tau)} rises from ` +
        `${number(sigmoid(-2 / tau))} at \u22122 to ${number(sigmoid(2 / tau))} at 2.`,
      gradient: `Gradient of the soft gate: a bump of height ${number(1 / (4 * tau), 3)} at zero; ` +
        `its mean over the draws is ${number(gradient, 3)}, the slope of the probability ${on ? number(slope, 3) : 0}.`,
    };
    for (const [name, { drawing }] of Object.entries(panels)) drawing.setAttribute("aria-label", alt[name]);
    paint(now);
  }

  // --------------------------------------------------------------------------------------------------------- pictures
  /** An empty drawing with its axes; gives functions from values to pixels. Ticks are [value, words]. */
  function axes({ drawing }, height, [left, right], [low, high], ticksX, ticksY, label) {
    const width = Math.max(drawing.parentNode.clientWidth, 120), x0 = 34, x1 = width - 8, y0 = height - 34, y1 = 8;
    const x = (v) => x0 + ((v - left) / (right - left)) * (x1 - x0);
    const y = (v) => y0 - ((v - low) / (high - low)) * (y0 - y1);
    fill(drawing, { width, height, viewBox: `0 0 ${width} ${height}` }, []);
    drawing.replaceChildren(
      s("path", { class: "dsn-axis", d: `M${x0} ${y1}V${y0}H${x1}` }),
      ...ticksX.map(([v, words]) => s("text", { class: "dsn-tick", x: x(v), y: y0 + 14, "text-anchor": "middle" }, words)),
      ...ticksY.map(([v, words]) => s("text", { class: "dsn-tick", x: x0 - 5, y: y(v) + 4, "text-anchor": "end" }, words)),
      s("text", { class: "dsn-tick", x: (x0 + x1) / 2, y: y0 + 29, "text-anchor": "middle" }, label));
    return { x, y, put: (...nodes) => drawing.append(...nodes) };
  }
  const path = (points) => "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
  const grid = Array.from({ length: 161 }, (_, i) => (SPAN * (i - 80)) / 80);
  const zero = [[-5, "\u22125"], [0, "0"], [5, "5"]];

  function paint({ tau, on, noisy, soft, gradients, bars, expected, gradient, slope }) {
    const kind = (z) => (z > 0 ? "dsn-is-open" : "dsn-is-closed");
    { // the last draws: where the soft value was, and to which side it was rounded
      const first = Math.max(0, noisy.length - SHOWN);
      const { x, y, put } = axes(panels.draws, 140, [-0.7, SHOWN - 0.3], [-0.08, 1.08],
        noisy.length ? [[0, first + 1], [SHOWN - 1, first + SHOWN]] : [], [[0, "0"], [1, "1"]], "draw");
      put(s("path", { class: "dsn-rule", d: `M${x(-0.7)} ${y(0.5)}H${x(SHOWN - 0.3)}` }));
      noisy.slice(first).forEach((z, i) => {
        const hard = Number(z > 0), at = x(i);
        put(s("path", { class: `dsn-stem ${kind(z)}`, d: `M${at} ${y(soft[first + i])}V${y(hard)}` }),
          s("circle", { class: `dsn-soft-dot ${kind(z)}`, cx: at, cy: y(soft[first + i]), r: 2.6 }),
          s("rect", { class: `dsn-hard-dot ${kind(z)}`, x: at - 2.6, y: y(hard) - 2.6, width: 5.2, height: 5.2 }));
      });
    }
    { // histogram, and what it will be in the long run
      const top = Math.max(0.1, ...bars, ...(on ? expected : [])) * 1.08, n = bars.length;
      const { x, y, put } = axes(panels.soft, 140, [0, 1], [0, top], [[0, "0"], [0.5, "0.5"], [1, "1"]],
        [[0, "0"], [top / 1.08, `${Math.round((100 * top) / 1.08)}\u202f%`]], "soft value; right of the middle the gate opens");
      bars.forEach((share, i) => put(s("rect", { class: `dsn-column ${kind(i + 0.5 - n / 2)}`, x: x((i + 0.06) / n), y: y(share),
        width: x(0.88 / n) - x(0), height: y(0) - y(share) })));
      put(s("path", { class: "dsn-rule", d: `M${x(0.5)} ${y(0)}V${y(top)}` }));
      if (on) put(s("path", { class: "dsn-expected",
        d: path(expected.flatMap((p, i) => [[x(i / n), y(p)], [x((i + 1) / n), y(p)]])) }));
    }
    { // hard and soft gate; a mark for each of the last draws
      const { x, y, put } = axes(panels.gate, 140, [-SPAN, SPAN], [-0.08, 1.08], zero, [[0, "0"], [1, "1"]],
        "noisy logit difference");
      put(s("path", { class: "dsn-hard", d: path([[-SPAN, 0], [0, 0], [0, 1], [SPAN, 1]].map(([a, b]) => [x(a), y(b)])) }),
        s("path", { class: "dsn-curve", d: path(grid.map((z) => [x(z), y(sigmoid(z / tau))])) }));
      noisy.slice(-SHOWN).forEach((z) =>
        put(s("circle", { class: `dsn-soft-dot ${kind(z)}`, cx: x(clamp(z, -SPAN, SPAN)), cy: y(sigmoid(z / tau)), r: 2.6 })));
    }
    { // gradient; the mean of the draws beside what it should be
      const top = Math.max(1 / (4 * tau), 0.3) * 1.1;
      const { x, y, put } = axes(panels.gradient, 140, [-SPAN, SPAN], [0, top], zero,
        [[0, "0"], [top / 1.1, number(top / 1.1)]], "noisy logit difference");
      put(s("path", { class: "dsn-curve", d: path(grid.map((z) => {
        const value = sigmoid(z / tau);
        return [x(z), y((value * (1 - value)) / tau)];
      })) }));
      noisy.slice(-SHOWN).forEach((z, i) => put(s("circle", { class: `dsn-soft-dot ${kind(z)}`,
        cx: x(clamp(z, -SPAN, SPAN)), cy: y(gradients.slice(-SHOWN)[i]), r: 2.6 })));
      if (noisy.length) put(s("path", { class: "dsn-mean", d: `M${x(-SPAN)} ${y(gradient)}H${x(SPAN)}` }),
        s("text", { class: "dsn-tick", x: x(SPAN), y: y(gradient) - 5, "text-anchor": "end" }, `mean ${number(gradient)}`));
      if (on) put(s("path", { class: "dsn-rule", d: `M${x(-SPAN)} ${y(slope)}H${x(SPAN)}` }),
        s("text", { class: "dsn-tick", x: x(-SPAN) + 4, y: y(slope) - 5 }, `slope ${number(slope)}`));
    }
  }

  // ------------------------------------------------------------------------------------------------------------- keys
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = { d: () => draw(1), h: () => draw(100), a: () => run(!timer), r: () => restart(0),
      n: () => set("noise", !model.get("noise")) }[event.key.toLowerCase()];
    if (!action) return;
    action();
    event.preventDefault();
    event.stopPropagation(); // Jupyter and the page have keys of their own
  }

  // ------------------------------------------------------------------------------------------------- life and death
  const begin = () => restart(model.get("draws"));
  for (const name of ["difference", "temperature", "noise"]) model.on(`change:${name}`, update);
  for (const name of ["seed", "draws"]) model.on(`change:${name}`, begin);
  begin();
  const sized = new ResizeObserver(() => paint(compute()));
  sized.observe(root);
  return () => {
    run(false); sized.disconnect();
    for (const name of ["difference", "temperature", "noise"]) model.off(`change:${name}`, update);
    for (const name of ["seed", "draws"]) model.off(`change:${name}`, begin);
    root.remove();
  };
}

export default { render };
