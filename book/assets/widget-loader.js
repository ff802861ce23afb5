// Shows the anywidgets of a page without a kernel, require.js or any other host: on http and from disk (file://).
//
// The page holds the state of its widgets as JSON (application/vnd.jupyter.widget-state+json) and a view
// (application/vnd.jupyter.widget-view+json) where each was displayed. An anywidget keeps its module (_esm), its style
// (_css), its values and its binary values in that state: import the module from a blob URL and let it draw.
(() => {
  "use strict";
  if (window.dsnWidgetsLoaded) return;
  window.dsnWidgetsLoaded = true;
  const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
  const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';

  const bytesOf = (base64) => new DataView(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer);

  /** Values of one model, the binary ones put back in their places. */
  function valuesOf(entry) {
    const values = { ...entry.state };
    for (const { path, data } of entry.buffers ?? []) {
      let holder = values;
      for (const step of path.slice(0, -1)) holder = holder[step];
      holder[path[path.length - 1]] = bytesOf(data);
    }
    return values;
  }

  /** What a module expects of its model; nobody is at the other end, so messages go nowhere. */
  function modelOf(values) {
    const listeners = new EventTarget();
    return {
      get: (name) => values[name],
      set(name, value) {
        values[name] = value;
        listeners.dispatchEvent(new CustomEvent(`change:${name}`, { detail: value }));
        listeners.dispatchEvent(new CustomEvent("change"));
      },
      on: (name, listener) => listeners.addEventListener(name, listener),
      off: (name, listener) => listeners.removeEventListener(name, listener),
      save_changes() {},
      send() {},
    };
  }

  async function mount(script, entry) {
    const place = document.createElement("div");
    place.className = "dsn-widget";
    script.after(place);
    try {
      const values = valuesOf(entry), model = modelOf(values);
      if (values._css) {
        const style = document.createElement("style");
        style.textContent = values._css;
        document.head.append(style);
      }
      const url = URL.createObjectURL(new Blob([values._esm], { type: "text/javascript" }));
      const module = (await import(url)).default;
      URL.revokeObjectURL(url);
      const widget = typeof module === "function" ? await module() : module;
      await widget.initialize?.({ model });
      await widget.render({ model, el: place });
    } catch (error) {
      place.textContent = `This interactive picture could not be shown: ${error.message}`;
      console.error(error);
    }
  }

  function start() {
    const models = {};
    for (const script of document.querySelectorAll(STATE)) Object.assign(models, JSON.parse(script.textContent).state);
    for (const script of document.querySelectorAll(VIEW)) {
      const view = JSON.parse(script.textContent), entry = models[view.model_id];
      if (entry?.model_module === "anywidget") mount(script, entry);
    }
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
