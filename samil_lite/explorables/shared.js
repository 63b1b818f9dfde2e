/* What all figures share: elements, controls, theme, and how a figure comes alive.
 *
 * A classic script that defines one global, samilLite. Every figure adds itself as samilLite.figures[name], an object
 * whose build(box, data) fills an empty element; the functions that compute are beside it, so that they run in Node
 * too. A figure lives in a shadow tree: no style of the page reaches it, and none of its own leaves it.
 */
globalThis.samilLite = Object.assign(globalThis.samilLite || {}, (function () {
  "use strict";
  const SVG = ["svg", "g", "circle", "path", "rect", "text", "line"];

  /* exp(s - max) / sum: the weights of some scores. */
  function softmax(scores) {
    const high = Math.max(...scores);
    const e = scores.map((s) => Math.exp(s - high));
    const total = sum(e);
    return e.map((x) => x / total);
  }

  const sum = (xs) => xs.reduce((a, b) => a + b, 0);
  const dot = (a, b) => sum(a.map((x, i) => x * b[i]));
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  /* A number for people: a true minus sign, and plus where a sign is wanted. */
  function show(x, decimals = 2, signed = false) {
    const text = Math.abs(x).toFixed(decimals);
    const zero = Number(text) === 0;
    return (x < 0 && !zero ? "−" : signed && !zero ? "+" : "") + text;
  }

  /* An element with attributes and children; `text` and functions such as `onclick` are properties. */
  function element(tag, attributes = {}, ...children) {
    const node = SVG.includes(tag)
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") node.textContent = value;
      else if (typeof value === "function") node[name] = value;
      else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }

  /* A slider with its name and its value. `show` makes the text of the value; the number itself is input.value. */
  function slider(name, range, show, onchange) {
    const input = element("input", { type: "range", ...range });
    const output = element("output");
    const change = () => {
      output.value = show(Number(input.value));
      input.setAttribute("aria-valuetext", output.value);
    };
    input.oninput = () => { change(); onchange(); };
    change();
    const row = element("label", { class: "slider" }, element("span", { text: name }), input, output);
    return { row, input, get value() { return Number(input.value); },
      set value(x) { input.value = x; change(); } };
  }

  function checkbox(name, checked, onchange) {
    const input = element("input", { type: "checkbox", checked, onchange });
    return { row: element("label", { class: "check" }, input, element("span", { text: name })), input,
      get value() { return input.checked; }, set value(x) { input.checked = x; } };
  }

  /* One of several, as radio buttons; options are [value, text]. */
  function choice(name, options, value, onchange) {
    const group = `g${choice.count = (choice.count || 0) + 1}`; // radio buttons of one figure, not of its neighbour
    const row = element("fieldset", { class: "choice" }, element("legend", { text: name }));
    for (const [key, text] of options) {
      const input = element("input", { type: "radio", name: group, value: key, checked: key === value, onchange });
      row.append(element("label", { class: "check" }, input, element("span", { text })));
    }
    return { row, get value() { return row.querySelector("input:checked").value; },
      set value(x) { row.querySelector(`input[value="${x}"]`).checked = true; } };
  }

  function button(text, onclick, label = null) {
    return element("button", { type: "button", text, onclick, "aria-label": label });
  }

  /* The line that says in words what is seen; read out by screen readers once the hand rests. */
  function summary() {
    const node = element("p", { class: "summary", "aria-live": "polite" });
    let timer = 0;
    const say = (text) => {
      clearTimeout(timer);
      if (!node.textContent) node.textContent = text;
      else timer = setTimeout(() => { if (node.textContent !== text) node.textContent = text; }, 250);
    };
    return { node, say };
  }

  /* Lets a focusable point of a plane be moved by pointer and by arrow keys: move(x, y), both in units of the plane. */
  function draggable(node, svg, place, move, step = 0.1) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    let held = null; // from the pointer to the middle of the point
    const at = (event) => {
      const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return [p.x, -p.y]; // up is positive
    };
    node.addEventListener("pointerdown", (event) => {
      const [x, y] = at(event);
      held = [place()[0] - x, place()[1] - y];
      node.setPointerCapture(event.pointerId);
    });
    node.addEventListener("pointermove", (event) => {
      if (!held) return;
      const [x, y] = at(event);
      move(x + held[0], y + held[1]);
    });
    for (const end of ["pointerup", "pointercancel"]) node.addEventListener(end, () => { held = null; });
    node.addEventListener("keydown", (event) => {
      const arrow = arrows[event.key];
      if (!arrow) return;
      event.preventDefault();
      event.stopPropagation();
      const size = step * (event.shiftKey ? 10 : 1);
      move(place()[0] + arrow[0] * size, place()[1] + arrow[1] * size);
    });
  }

  /* A row of upright bars for weights between 0 and 1, each with its number above and its name below. */
  function bars(names, label) {
    const columns = names.map((name) => {
      const bar = element("i");
      const value = element("b");
      const column = element("div", { class: "column" }, value, element("div", { class: "track" }, bar),
        element("span", { text: name }));
      return { bar, value, column };
    });
    const node = element("div", { class: "bars", role: "img" }, ...columns.map((c) => c.column));
    const set = (weights, options = {}) => {
      columns.forEach(({ bar, value, column }, i) => {
        bar.style.height = `${100 * weights[i]}%`;
        value.textContent = show(weights[i]);
        column.dataset.value = weights[i];
        column.className = `column ${options.marks?.[i] || ""}`;
      });
      const texts = weights.map((w, i) => `${names[i]}: ${show(w)}`);
      node.setAttribute("aria-label", `${options.label || label}: ${texts.join(", ")}`);
    };
    return { node, columns: columns.map((c) => c.column), set };
  }

  /* "dark" or "light": what the page says of itself (the book, JupyterLab, VS Code, Colab), else the system. */
  function theme() {
    const { documentElement: page, body } = document;
    const said = page.dataset.theme || page.getAttribute("theme") || body.dataset.vscodeThemeKind
      || { true: "light", false: "dark" }[body.dataset.jpThemeLight] || "";
    if (/dark|high-contrast$/.test(said)) return "dark";
    if (/light/.test(said)) return "light";
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }

  function followTheme(host) {
    const apply = () => { host.dataset.theme = theme(); };
    apply();
    const watcher = new MutationObserver(apply);
    const attributeFilter = ["data-theme", "theme", "data-vscode-theme-kind", "data-jp-theme-light"];
    for (const node of [document.documentElement, document.body]) watcher.observe(node, { attributeFilter });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  }

  /* Makes every figure of this name alive that is not yet; its picture stays for printing. */
  function start(name, style) {
    for (const host of document.querySelectorAll(`.samil-explorable[data-figure="${name}"]`)) {
      if (host.shadowRoot) continue;
      const box = element("div", { class: `figure ${name}`, role: "group", "aria-label": host.dataset.title });
      host.attachShadow({ mode: "open" });
      followTheme(host);
      samilLite.figures[name].build(box, JSON.parse(host.dataset.values));
      host.shadowRoot.append(element("style", { text: style }), box, element("slot"));
    }
  }

  return { figures: {}, softmax, sum, dot, sigmoid, show, element, slider, checkbox, choice, button, summary, draggable,
    bars, start };
})());
