/* Who does the chosen instance look at? Five kernels on the same points of a plane (chapters 7 to 10).
 *
 * One minute: distances feel neither a shift nor a rotation, dot products feel the shift, the L1 distance the rotation;
 * and values between 0 and 1 cannot make a large weight in a large bag, however the points lie.
 */
samilLite.figures.kernels = (function () {
  "use strict";
  const { element, slider, checkbox, button, summary, draggable, bars, softmax, sum, show } = samilLite;
  const KERNELS = {
    dot: ["dot product", "⟨k, q⟩"],
    rbf: ["RBF", "exp(−α‖k − q‖²)", "−α‖k − q‖²"],
    inverse_quadratic: ["inverse quadratic", "1 / (α‖k − q‖² + 1)", "−log(α‖k − q‖² + 1)"],
    laplace: ["Laplace", "−‖k − q‖₁"],
    module: ["module", "‖k − q‖ᵅ − ‖k‖ᵅ − ‖q‖ᵅ"],
  };
  const EDGE = 3.8; // points stay within this circle, so that a rotation keeps them in sight
  const MOST = 500; // instances in the largest bag

  /* κ of one key and one query, up to what the softmax cancels; `log` takes the logarithm of RBF and IQ. */
  function score(kernel, k, q, alpha, log) {
    const d = k.map((x, i) => x - q[i]);
    const t = sum(d.map((x) => x * x));
    if (kernel === "dot") return samilLite.dot(k, q);
    if (kernel === "rbf") return log ? -alpha * t : Math.exp(-alpha * t);
    if (kernel === "inverse_quadratic") return log ? -Math.log1p(alpha * t) : 1 / (alpha * t + 1);
    if (kernel === "laplace") return -sum(d.map(Math.abs));
    return t ** (alpha / 2) - samilLite.dot(k, k) ** (alpha / 2);
  }

  /* The row of β of one query: a weight for each of the vectors. */
  const row = (kernel, vectors, query, alpha = 1, log = false) =>
    softmax(vectors.map((k) => score(kernel, k, vectors[query], alpha, log)));

  /* No weight of a kernel with values in (0, 1] passes this in a bag of n. */
  const bound = (n) => Math.E / (Math.E + n - 1);

  /* Position of the m-th added instance: a spiral over the plane, near and far ones alike. */
  function added(m) {
    const radius = EDGE * Math.sqrt(((m * 0.618034) % 1) * 0.98 + 0.02);
    return [radius * Math.cos(2.399963 * m), radius * Math.sin(2.399963 * m)];
  }

  function rotate([x, y], degrees) {
    const angle = degrees * Math.PI / 180;
    return [x * Math.cos(angle) - y * Math.sin(angle), x * Math.sin(angle) + y * Math.cos(angle)];
  }

  const within = (p) => { const r = Math.hypot(...p); return r > EDGE ? p.map((x) => x * EDGE / r) : p; };

  function build(box, data) {
    const centre = [0, 1].map((c) => data.middle[c]);
    const start = () => data.points.map((p) => within(p.map((x, c) => x - centre[c])));
    const state = { points: start(), origin: centre.map((x) => -x), query: data.query };
    const alpha = slider("α", { min: -4, max: 4, step: 0.125, value: 0 }, (x) => show(2 ** x), draw);
    const least = data.points.length;
    const bagSize = (x) => Math.round(least * (MOST / least) ** x);
    const size = slider("bag size n", { min: 0, max: 1, step: 0.01, value: 0 }, (x) => String(bagSize(x)), draw);
    const scale = slider("scale all by", { min: -1, max: 1, step: 0.05, value: 0 }, (x) => `× ${show(10 ** x)}`, draw);
    const angle = slider("rotate", { min: 0, max: 360, step: 5, value: 0 }, (x) => `${x}°`, draw);
    const log = checkbox("log form: take the logarithm of RBF and inverse quadratic", false, draw);
    const reset = button("Start again", () => {
      state.points = start(); state.origin = centre.map((x) => -x); state.query = data.query;
      for (const [control, value] of [[alpha, 0], [size, 0], [scale, 0], [angle, 0], [log, false]]) control.value = value;
      draw();
    });

    const dots = element("path", { class: "added" });
    const svg = element("svg", { class: "plane", viewBox: "-4 -4 8 8", role: "group",
      "aria-label": "Instances in a plane. Arrow keys move the one in focus, Enter makes it the query." },
    element("path", { class: "grid", "stroke-width": 0.02,
      d: [-3, -2, -1, 0, 1, 2, 3].map((v) => `M${v} -4V4M-4 ${v}H4`).join("") }), dots);
    const cross = handle("0", element("path", { class: "cross", d: "M-8 0H8M0 -8V8", "stroke-width": 0.03 }),
      () => state.origin, (p) => { state.origin = p; });
    const marks = state.points.map((_, i) => handle(i + 1, element("circle", { class: "mark", r: 0.3 }),
      () => state.points[i], (p) => { state.points[i] = p; }));
    marks.forEach((mark, i) => {
      const choose = () => { state.query = i; draw(); };
      mark.addEventListener("pointerdown", choose);
      mark.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose();
      });
    });

    function handle(name, shape, get, set) {
      const node = element("g", { class: "point", tabindex: 0, role: "button" }, shape,
        element("circle", { class: "ring", r: 0.52, "stroke-width": 0.08 }),
        element("text", { "text-anchor": "middle", dy: 0.13, "font-size": 0.38, text: name }));
      const place = () => rotate(get(), angle.value);
      draggable(node, svg, place, (x, y) => { set(within(rotate([x, y], -angle.value))); draw(); });
      svg.append(node);
      return node;
    }

    const names = [...state.points.map((_, i) => String(i + 1)), "rest"];
    const rows = Object.entries(KERNELS).map(([kernel, [name, ...formulas]]) => {
      const formula = element("code");
      const chart = bars(names, name);
      const line = element("hr", { class: "bound" });
      chart.columns.forEach((column) => column.querySelector(".track").append(line.cloneNode()));
      const node = element("div", { class: "row", "data-kernel": kernel },
        element("div", { class: "name" }, element("strong", { text: name }), " ", formula), chart.node);
      return { kernel, name, formulas, formula, chart, node };
    });
    const { node: words, say } = summary();

    function draw() {
      const n = bagSize(size.value);
      const a = 2 ** alpha.value;
      const all = [...state.points, ...Array.from({ length: n - state.points.length }, (_, m) => added(m))];
      const vectors = all.map((p) => rotate(p.map((x, c) => x - state.origin[c]), angle.value)
        .map((x) => x * 10 ** scale.value));
      place(all, vectors);
      const texts = [];
      for (const { kernel, name, formulas, formula, chart, node } of rows) {
        const beta = row(kernel, vectors, state.query, a, log.value);
        const six = beta.slice(0, state.points.length);
        const bounded = formulas.length > 1 && !log.value;
        formula.textContent = formulas.length > 1 && log.value ? formulas[1] : formulas[0];
        node.classList.toggle("bounded", bounded);
        node.style.setProperty("--bound", `${100 * bound(n)}%`);
        chart.set([...six, n > six.length ? sum(beta.slice(six.length)) : 0], {
          marks: names.map((_, i) => (i === state.query ? "query" : i === six.length ? "rest" : "")),
          label: `${name}, row of β of query ${state.query + 1}` });
        texts.push(`${name} ${show(Math.max(...beta))}`);
      }
      say(`Query ${state.query + 1} among ${n} instances. Largest weight of its row: ${texts.join(", ")}. Dashed: `
        + `e / (e + n − 1) = ${show(bound(n), 3)}, which RBF and inverse quadratic cannot pass`
        + (log.value ? " without the logarithm." : "."));
    }

    function place(all, vectors) {
      const at = (p) => { const [x, y] = rotate(p, angle.value); return [x, -y]; };
      marks.forEach((mark, i) => {
        const [x, y] = vectors[i];
        mark.setAttribute("transform", `translate(${at(state.points[i])})`);
        mark.setAttribute("aria-pressed", i === state.query);
        mark.setAttribute("aria-label", `Instance ${i + 1} at ${show(x, 1)}, ${show(y, 1)}`);
        mark.dataset.vector = vectors[i].join(" ");
      });
      cross.setAttribute("transform", `translate(${at(state.origin)})`);
      cross.setAttribute("aria-label", "0, the origin: moving it is a common shift of all instances");
      const rest = all.slice(marks.length).map(at);
      dots.setAttribute("d", rest.map(([x, y]) => `M${x.toFixed(2)} ${y.toFixed(2)}h.01`).join(""));
      box.dataset.rest = JSON.stringify(vectors.slice(marks.length));
    }

    box.append(element("div", { class: "sides" }, svg, element("div", { class: "right" }, ...rows.map((r) => r.node)),
      element("div", { class: "controls" }, alpha.row, size.row, scale.row, angle.row, log.row, reset)), words);
    draw();
  }

  return { build, row, bound, added };
})();
