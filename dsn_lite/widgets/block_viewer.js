// Block viewer: the weights of a dynamic block, which of them a frame reads, and what that costs. One module with shared.js,
// which is put before it; it reads the traits `title`, `blocks`, `frames_per_second`, `data`, reads and writes `chosen` and
// `lanes`, and needs no kernel.

const EVERY = 500, EVERY_STILL = 1500; // milliseconds a frame while the lane runs; the second where motion is unwelcome
const TALLEST = 300, SMALLEST = 2, LARGEST = 12, GAP = 5; // of a drawn matrix, of a cell, beside the bias; page pixels
const POSITIVE = { light: [18, 80, 138], dark: [109, 179, 242] }, NEGATIVE = { light: [181, 71, 8], dark: [247, 163, 92] };

function render({ model, el }) {
  const data = model.get("data"), perSecond = model.get("frames_per_second");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const ints = (at) => new Int16Array(bytesOf(data, at));
  const blocks = model.get("blocks").map((block) => ({ ...block, matrices: block.matrices.map((matrix) => {
    const [rows, columns] = matrix.shape, weights = ints(matrix.weight_at), bias = ints(matrix.bias_at);
    const most = weights.reduce((top, x) => Math.max(top, Math.abs(x)), 1) * matrix.scale;
    return { ...matrix, rowWord: matrix.rows, columnWord: matrix.columns, rows, columns, weights, bias, most,
      size: rows * columns };
  }) }));
  let frame = 0, timer = 0;
  const before = structuredClone(model.get("lanes")); // as they came

  const block = () => blocks.find((one) => one.gate === model.get("chosen")) ?? blocks[0];
  const lane = () => model.get("lanes")[block().gate];
  const macs = (one, isOpen) => one.static + (isOpen ? one.dynamic : 0);
  const isRead = (matrix, isOpen) => isOpen || !matrix.gated;
  const weightsRead = (one, isOpen) =>
    one.matrices.reduce((sum, matrix) => sum + (isRead(matrix, isOpen) ? matrix.size : 0), 0);
  const rate = (macsOfFrame) => ((macsOfFrame * perSecond) / 1e6).toFixed(2);

  // ----------------------------------------------------------------------------------------------------- elements
  const kinds = choice("block", blocks.map((one) => ({ key: one.gate, name: one.name, hint: `gate: ${one.gate}` })),
    block().gate, (gate) => { model.set("chosen", gate); model.save_changes(); });
  const stripTitle = h("p", { class: "dsn-lane-title" });
  const strip = h("div", { class: "dsn-lane", role: "toolbar", "aria-orientation": "horizontal" });
  const runButton = h("button", { type: "button", class: "dsn-play", onclick: () => run(!timer) }, "\u25b6 run");
  const set = (name, values) => h("button", { type: "button", onclick: () => setLane(values()) }, name);
  const tools = h("div", { class: "dsn-bar" }, runButton,
    h("button", { type: "button", class: "dsn-step", "aria-label": "frame before", onclick: () => go(frame - 1) }, "\u2039"),
    h("button", { type: "button", class: "dsn-step", "aria-label": "next frame", onclick: () => go(frame + 1) }, "\u203a"),
    set("as at first", () => before[block().gate]), set("all open", () => lane().map(() => 1)),
    set("all closed", () => lane().map(() => 0)));
  const frameText = h("p", { class: "dsn-frame", "aria-live": "polite" });
  const drawings = h("div", { class: "dsn-matrices" });
  const readout = h("p", { class: "dsn-readout" });
  const fillBar = h("span", { class: "dsn-fill" }), mark = h("span", { class: "dsn-mark", title: "all closed" });
  const meter = h("div", { class: "dsn-meter", role: "meter", "aria-label": "MACs of the lane, of those with everything open",
    "aria-valuemin": 0, "aria-valuemax": 100 }, fillBar, mark);
  const laneText = h("span", { class: "dsn-total" });
  const note = h("p", { class: "dsn-note" });
  const tableHead = h("tr"), table = h("tbody");
  const words = h("details", { class: "dsn-words" }, h("summary", {}, "the same in numbers, and the keys"),
    h("table", {}, h("thead", {}, tableHead), table),
    keyWords(["\u2190", " "], ["\u2192", " move along the lane, "], ["home", " and "], ["end", " jump; "],
      ["space", " or "], ["enter", " flips the gate of a frame; "], ["r", " runs and stops."]));
  const root = h("section", { class: "dsn-card dsn-block", "aria-label": `Block viewer: ${model.get("title")}`, onkeydown: key,
    "data-lm-suppress-shortcuts": "true" }, // JupyterLab has keys of its own
    h("div", { class: "dsn-bar" }, kinds.field), stripTitle, strip, tools,
    h("div", { class: "dsn-bar dsn-now" }, meter, laneText), frameText, drawings, readout, note, words);
  el.append(root);

  // ------------------------------------------------------------------------------------------------------ choices
  function setLane(values) {
    model.set("lanes", { ...model.get("lanes"), [block().gate]: values.map(Number) });
    model.save_changes();
  }

  function flip(t) {
    frame = t;
    setLane(lane().map((value, i) => (i === t ? 1 - value : value)));
  }

  function go(t, focus = false) {
    frame = (t + lane().length) % lane().length;
    show();
    if (focus) strip.children[frame].focus();
  }

  function run(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => (root.isConnected ? go(frame + 1) : run(false)), still.matches ? EVERY_STILL : EVERY) : 0;
    runButton.textContent = timer ? "\u275a\u275a stop" : "\u25b6 run";
    root.dataset.running = Boolean(timer);
    frameText.setAttribute("aria-live", timer ? "off" : "polite");
  }

  // --------------------------------------------------------------------------------------------------------- pictures
  /** Which colours the page has now; the paper says it. */
  function looks() {
    const paper = getComputedStyle(root).backgroundColor.match(/\d+/g).slice(0, 3).map(Number);
    return { paper, scheme: paper[0] + paper[1] + paper[2] < 384 ? "dark" : "light" };
  }

  /** Colour of a number: a sign and a size if it is read, grey where it is not. */
  function colourOf(value, isRead, { paper, scheme }) {
    const size = Math.sqrt(Math.min(1, Math.abs(value))); // small weights shall be seen, too
    const grey = scheme === "dark" ? 58 : 214;
    if (!isRead) return [0, 1, 2].map(() => grey + (scheme === "dark" ? 22 : -26) * size);
    const full = (value < 0 ? NEGATIVE : POSITIVE)[scheme];
    return full.map((c, i) => paper[i] + (0.12 + 0.88 * size) * (c - paper[i]));
  }

  /** Draw one matrix and its bias, `cell` page pixels a number. */
  function paint({ matrix, canvas }, cell, isOpen, look) {
    const { rows, columns } = matrix, strong = Math.max(cell, 3), read = isRead(matrix, isOpen);
    const wide = columns * cell + GAP + strong, high = rows * cell;
    canvas.style.width = `${wide}px`;
    canvas.parentNode.style.width = `max(${wide}px, 6rem)`; // captions are broken, matrices are not
    const c = sizeCanvas(canvas, wide, high);
    const small = (width, height, values) => {
      const pixels = h("canvas", { width, height }), context = pixels.getContext("2d");
      const image = context.createImageData(width, height);
      for (let i = 0; i < width * height; i++) {
        const [r, g, b] = colourOf((values[i] * matrix.scale) / matrix.most, read, look);
        image.data.set([r, g, b, 255], 4 * i);
      }
      context.putImageData(image, 0, 0);
      return pixels;
    };
    c.imageSmoothingEnabled = false;
    c.drawImage(small(columns, rows, matrix.weights), 0, 0, columns * cell, rows * cell);
    c.drawImage(small(1, rows, matrix.bias), columns * cell + GAP, 0, strong, rows * cell);
  }

  let canvases = [];
  /** Lay the matrices of the chosen block side by side at one scale, as large as there is room. */
  function drawMatrices() {
    const width = drawings.clientWidth;
    if (!width) return;
    const now = block(), isOpen = Boolean(lane()[frame]), look = looks();
    if (drawings.dataset.gate !== now.gate) {
      drawings.dataset.gate = now.gate;
      canvases = now.matrices.map((matrix) => {
        const canvas = h("canvas", { role: "img" });
        const point = (event) => describe(matrix, canvas, event);
        canvas.addEventListener("pointermove", point);
        canvas.addEventListener("pointerdown", point);
        return { matrix, canvas };
      });
      drawings.replaceChildren(...canvases.map(({ matrix, canvas }) => h("figure", {}, h("figcaption", {},
        h("b", {}, matrix.name), ` ${matrix.rows} \u00d7 ${matrix.columns}`), canvas,
        h("small", {}, `rows: ${matrix.rowWord}; columns: ${matrix.columnWord}`))));
    }
    const total = now.matrices.reduce((sum, { columns }) => sum + columns, 0), room = 40 * now.matrices.length;
    const widest = Math.max(...now.matrices.map(({ columns }) => columns));
    const tallest = Math.max(...now.matrices.map(({ rows }) => rows));
    const high = Math.min(Math.max(TALLEST / tallest, SMALLEST), LARGEST);
    let cell = Math.min((width - room) / total, high);
    if (cell < SMALLEST) cell = Math.min((width - 20) / widest, high); // below each other, then
    const dots = devicePixelRatio || 1;
    cell = Math.max(Math.floor(cell * dots), 1) / dots; // whole pixels of the screen
    for (const one of canvases) {
      paint(one, cell, isOpen, look);
      one.cell = cell;
      const { matrix } = one;
      one.canvas.setAttribute("aria-label", `${matrix.name}: ${matrix.rows} by ${matrix.columns} weights, ` +
        (isRead(matrix, isOpen) ? "read." : "not read."));
    }
  }

  /** Words for the number under the pointer. */
  function describe(matrix, canvas, event) {
    const box = canvas.getBoundingClientRect(), { cell } = canvases.find((one) => one.canvas === canvas);
    const column = Math.floor((event.clientX - box.left) / cell), row = Math.floor((event.clientY - box.top) / cell);
    const isOpen = Boolean(lane()[frame]), { rows, columns } = matrix;
    if (!(row >= 0 && row < rows && column >= 0)) return;
    const isBias = column >= columns, value = isBias ? matrix.bias[row] : matrix.weights[row * columns + column];
    const where = `${matrix.name}, ${isBias ? `bias ${row}` : `row ${row}, column ${column}`}`;
    const state = !matrix.gated ? "read on every frame" : isOpen ? "read: the gate is open" : "not read: the gate is closed";
    readout.textContent = `${where}: ${minus((value * matrix.scale).toFixed(3))}, ${state}`;
  }

  // ------------------------------------------------------------------------------------------------------------ words
  function show() {
    const now = block(), values = lane(), n = values.length;
    frame = Math.min(frame, n - 1);
    const isOpen = Boolean(values[frame]);
    kinds.show(now.gate);
    if (strip.children.length !== n) {
      strip.replaceChildren(...values.map((_, t) => h("button", { type: "button", class: "dsn-cell", onclick: () => flip(t) },
        h("span", { class: "dsn-level" }), h("span", { class: "dsn-bit" }))));
    }
    stripTitle.replaceChildren("gate ", h("b", {}, now.gate), `, ${n} frames: 1 open, 0 closed; a click flips it`);
    strip.setAttribute("aria-label", `gate ${now.gate}, frame by frame`);
    const low = now.static / (now.static + now.dynamic);
    values.forEach((value, t) => {
      const button = strip.children[t];
      button.setAttribute("aria-pressed", String(Boolean(value)));
      button.setAttribute("aria-label", `frame ${t}: ${value ? "open" : "closed"}, ${grouped(macs(now, value))} MACs`);
      button.tabIndex = t === frame ? 0 : -1;
      button.classList.toggle("dsn-here", t === frame);
      button.firstChild.style.height = `${100 * (value ? 1 : low)}%`;
      button.lastChild.textContent = value;
    });
    const opened = values.reduce((sum, value) => sum + value, 0), sum = n * now.static + opened * now.dynamic;
    const most = n * (now.static + now.dynamic);
    fillBar.style.width = `${(100 * sum) / most}%`;
    mark.style.left = `${100 * low}%`;
    meter.setAttribute("aria-valuenow", ((100 * sum) / most).toFixed(1));
    laneText.textContent = `${opened} of ${n} frames open: ${grouped(sum)} of ${grouped(most)} MACs (${percent(sum / most)}), ` +
      `${rate(sum / n)} MMAC/s`;
    meter.setAttribute("aria-valuetext", laneText.textContent);
    const weights = weightsRead(now, isOpen), extra = now.products[0] + (isOpen ? now.products[1] : 0);
    frameText.replaceChildren(h("b", {}, `Frame ${frame}, gate ${isOpen ? "open" : "closed"}:`),
      ` ${grouped(weights)} of ${grouped(weightsRead(now, true))} weights are read, each once in ${now.uses} bands` +
      `${extra ? `, and ${grouped(extra)} products need no weight` : ""}: ` +
      `${grouped(weights)} \u00d7 ${now.uses}${extra ? ` + ${grouped(extra)}` : ""} = ${grouped(macs(now, isOpen))} MACs.`);
    note.textContent = now.note;
    tableHead.replaceChildren(...["", "gate closed", "gate open"].map((x) => h("th", { scope: "col" }, x)));
    const row = (name, a, b) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, a), h("td", {}, b));
    table.replaceChildren(
      ...now.matrices.map(({ name, gated, size }) => row(`weights of ${name}`, grouped(gated ? 0 : size), grouped(size))),
      row("bands", String(now.uses), String(now.uses)),
      ...(now.products[1] ? [row("products without weights", grouped(now.products[0]), grouped(now.products[0] + now.products[1]))] : []),
      row("MACs a frame", grouped(now.static), grouped(now.static + now.dynamic)),
      row("MMAC/s", rate(now.static), rate(now.static + now.dynamic)));
    Object.assign(root.dataset, { gate: now.gate, frame, open: isOpen });
    drawMatrices();
  }

  function fresh() {
    readout.textContent = "Point at a matrix to read its numbers.";
    show();
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onLane = event.target.classList.contains("dsn-cell"), last = lane().length - 1;
    const to = { ArrowLeft: frame - 1, ArrowRight: frame + 1, Home: 0, End: last }[event.key];
    if (event.key.toLowerCase() === "r") run(!timer);
    else if (onLane && to !== undefined) go(to, true);
    else return;
    event.preventDefault();
    event.stopPropagation(); // Jupyter and the page have keys of their own
  }

  // ------------------------------------------------------------------------------------------------- life and death
  model.on("change:chosen", fresh);
  model.on("change:lanes", show);
  const unwatch = watchLooks(drawings, drawMatrices);
  fresh();
  return () => {
    run(false); unwatch(); root.remove();
    model.off("change:chosen", fresh); model.off("change:lanes", show);
  };
}

export default { render };
