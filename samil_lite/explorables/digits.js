/* Fill a bag with digits, or draw one, and two trained models judge it in the page (front page and chapter 3).
 *
 * One minute: a verdict on the bag is a sum of weight times verdict over its instances; without self-attention two 9s,
 * two 7s and a 9 with a 7 cannot all come out right, and what no training digit looked like gets a verdict as well.
 */
samilLite.figures.digits = (function () {
  "use strict";
  const { element, button, summary, softmax, sum, dot, sigmoid, show } = samilLite;
  const SIDE = 28;
  const MODELS = { abmilp: "AbMILP", "sa-abmilp": "SA-AbMILP" };
  const MOST = 12; // instances in a bag, as in training

  function bytes(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  }

  /* Weights by name as { shape, values }, from whole numbers of 8 bits and one scale for each row. */
  function unpack({ shapes, whole, scales }) {
    const numbers = new Int8Array(bytes(whole).buffer);
    const factors = new Float32Array(bytes(scales).buffer);
    const weights = {};
    let [first, row] = [0, 0];
    for (const [name, shape] of Object.entries(shapes)) {
      const rows = shape.length > 1 ? shape[0] : 1;
      const size = shape.reduce((a, b) => a * b, 1);
      const values = Float64Array.from(numbers.subarray(first, first + size),
        (x, i) => Math.fround(x * factors[row + Math.floor(i / (size / rows))]));
      weights[name] = { shape, values };
      first += size;
      row += rows;
    }
    return weights;
  }

  /* Convolution 5 × 5, maximum over 2 × 2, ReLU: maps (inputs, side, side) to maps (outputs, (side − 4) / 2, …). */
  function convolve(maps, side, weight, bias) {
    const [outputs, inputs] = weight.shape;
    const [full, half] = [side - 4, (side - 4) / 2];
    const result = new Float64Array(outputs * half * half);
    for (let o = 0; o < outputs; o++) {
      for (let y = 0; y < full; y++) {
        for (let x = 0; x < full; x++) {
          let total = bias.values[o];
          for (let i = 0; i < inputs; i++) {
            for (let r = 0; r < 5; r++) {
              const w = ((o * inputs + i) * 5 + r) * 5;
              const m = (i * side + y + r) * side + x;
              for (let c = 0; c < 5; c++) total += weight.values[w + c] * maps[m + c];
            }
          }
          const place = (o * half + (y >> 1)) * half + (x >> 1);
          if (total > result[place]) result[place] = total; // starts at 0: that is the ReLU
        }
      }
    }
    return result;
  }

  /* W x + b, or W x without b. */
  function linear(x, weight, bias) {
    const [rows, columns] = weight.shape;
    return Array.from({ length: rows }, (_, r) => {
      let total = bias ? bias.values[r] : 0;
      for (let c = 0; c < columns; c++) total += weight.values[r * columns + c] * x[c];
      return total;
    });
  }

  /* The embedding of a picture of 784 numbers between 0 and 255. */
  function encode(pixels, weights) {
    const layer = (n) => [weights[`encoder.layers.${n}.weight`], weights[`encoder.layers.${n}.bias`]];
    const scaled = Float64Array.from(pixels, (p) => (p / 255 - 0.1307) / 0.3081);
    const maps = convolve(convolve(scaled, 28, ...layer(0)), 12, ...layer(3));
    return linear(maps, ...layer(7)).map((x) => Math.max(x, 0));
  }

  /* ĥ and β of the self-attention with the dot product. */
  function mix(h, of) {
    const [q, k, v] = ["q", "k", "v"].map((x) => h.map((one) => linear(one, of(`self_attention.W_${x}.weight`))));
    const beta = q.map((query) => softmax(k.map((key) => dot(key, query))));
    const gamma = of("self_attention.gamma").values[0];
    const mixed = beta.map((row) => v[0].map((_, c) => sum(row.map((b, i) => b * v[i][c]))));
    return { beta, hHat: h.map((one, j) => one.map((x, c) => x + gamma * mixed[j][c])) };
  }

  /* What a model says of a bag of embeddings: weights a, the verdict on each instance, and the logit. */
  function judge(h, name, weights) {
    const of = (key) => weights[`${name}.${key}`];
    const { hHat, beta } = name === "abmilp" ? { hHat: h, beta: null } : mix(h, of);
    const scores = hHat.map((x) =>
      linear(linear(x, of("pool.V.weight"), of("pool.V.bias")).map(Math.tanh), of("pool.w.weight"))[0]);
    const a = softmax(scores);
    const verdicts = hHat.map((x) => linear(x, of("classifier.weight"), of("classifier.bias"))[0]);
    return { a, verdicts, beta, logit: dot(a, verdicts) };
  }

  /* A quarter turn clockwise. */
  const turn = (pixels) => pixels.map((_, i) => pixels[(SIDE - 1 - i % SIDE) * SIDE + Math.floor(i / SIDE)]);

  /* Adds ink along a line from a to b, a pen of about two pixels, as strokes in MNIST have. */
  function stroke(pixels, a, b) {
    const d = [b[0] - a[0], b[1] - a[1]];
    const length = dot(d, d);
    for (let i = 0; i < pixels.length; i++) {
      const p = [i % SIDE + 0.5 - a[0], Math.floor(i / SIDE) + 0.5 - a[1]];
      const t = length ? Math.min(1, Math.max(0, dot(p, d) / length)) : 0;
      const far = Math.hypot(p[0] - t * d[0], p[1] - t * d[1]);
      pixels[i] = Math.max(pixels[i], Math.round(255 * Math.min(1, Math.max(0, 1.9 - far))));
    }
  }

  function picture(pixels, label, size) {
    const canvas = element("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": label });
    canvas.style.width = canvas.style.height = `${size}px`;
    paint(canvas, pixels);
    return canvas;
  }

  function paint(canvas, pixels) {
    const rgba = new Uint8ClampedArray(4 * SIDE * SIDE).fill(255);
    pixels.forEach((p, i) => rgba.fill(255 - p, 4 * i, 4 * i + 3));
    canvas.getContext("2d").putImageData(new ImageData(rgba, SIDE, SIDE), 0, 0);
  }

  function build(box, data) {
    const weights = unpack(data.weights);
    const tray = data.tray.map(({ digit, pixels }) => make(digit, [...bytes(pixels)]));
    let bag = data.bag.map((i) => ({ ...tray[i] }));

    function make(digit, pixels, turns = 0) {
      return { digit, pixels, turns, h: encode(pixels, weights) };
    }
    const nameOf = ({ digit, turns }) => (digit === null ? "drawing" : String(digit)) + (turns ? ", turned" : "");

    const { node: words, say } = summary();
    const results = Object.entries(MODELS).map(([key, name]) => {
      const meter = element("i");
      const text = element("p", { class: "says" });
      const node = element("div", { class: `result ${key}` }, element("strong", { text: name }), text,
        element("div", { class: "meter" }, meter));
      return { key, name, meter, text, node };
    });
    const cards = element("div", { class: "cards" });
    const full = () => bag.length >= MOST;
    const add = (instance) => { if (!full()) { bag.push({ ...instance }); draw(); } };
    const take = (members) => { bag = members.map((i) => ({ ...tray[i] })); draw(); };

    function card(instance, i) {
      const name = nameOf(instance);
      const turned = () => { bag[i] = make(instance.digit, turn(instance.pixels), (instance.turns + 1) % 4); draw(i, 0); };
      const gone = () => { if (bag.length > 1) bag.splice(i, 1); draw(Math.min(i, bag.length - 1), 1); };
      const cells = results.map(({ key }) => ({ key, cells: ["a", "s", "product"].map(() => element("td")) }));
      const node = element("div", { class: "card", role: "group", "aria-label": `Instance ${i + 1}: ${name}` },
        element("div", { class: "top" }, picture(instance.pixels, name, 56),
          button("↻", turned, `Turn instance ${i + 1}, ${name}`), button("×", gone, `Remove instance ${i + 1}, ${name}`)),
        element("table", {},
          element("tr", {}, element("td"), ...["a", "s", "a·s"].map((text) => element("th", { scope: "col", text }))),
          ...cells.map((row) => element("tr", { class: row.key },
            element("th", { scope: "row", text: row.key === "abmilp" ? "Ab" : "SA" }), ...row.cells))));
      return { node, cells };
    }

    /* Draws all; focus = [card, button] goes back to where it was when a card was made anew. */
    function draw(focusCard = -1, focusButton = 0) {
      const made = bag.map(card);
      const right = truth();
      const texts = [];
      results.forEach(({ key, name, meter, text, node }, m) => {
        const { a, verdicts, logit } = judge(bag.map((x) => x.h), key, weights);
        made.forEach(({ cells }, i) => {
          const [cellA, cellS, cellP] = cells[m].cells;
          cellA.textContent = show(a[i]);
          cellA.style.setProperty("--share", `${100 * a[i]}%`);
          cellA.className = "weight";
          cellS.textContent = show(verdicts[i], 1, true);
          cellP.textContent = show(a[i] * verdicts[i], 1, true);
          cells[m].cells.forEach((cell, c) => { cell.dataset.value = [a[i], verdicts[i], a[i] * verdicts[i]][c]; });
        });
        const p = sigmoid(logit);
        const says = `${logit > 0 ? "positive" : "negative"}`;
        const mark = right === null ? "" : (logit > 0) === right ? " ✓ right" : " ✗ wrong";
        text.textContent = `logit ${show(logit, 2, true)}, probability ${show(p)}: ${says}${mark}`;
        meter.style.width = `${100 * p}%`;
        node.dataset.logit = logit;
        node.dataset.probability = p;
        texts.push(`${name} says ${says}, probability ${show(p)}${mark}`);
      });
      cards.replaceChildren(...made.map((x) => x.node));
      if (focusCard >= 0) cards.children[focusCard].querySelectorAll("button")[focusButton].focus();
      for (const adder of box.querySelectorAll(".tray button, .adder")) adder.disabled = full();
      const by = right === null ? "The rule cannot tell, for a drawing has no label" : `By the rule it is ${right ? "positive" : "negative"}`;
      say(`Bag of ${bag.length}: ${bag.map(nameOf).join(", ")}. ${by}. ${texts.join(". ")}.`);
    }

    /* Positive if there is a 9 and a 7; null if a drawing is among them. */
    function truth() {
      const digits = bag.map((x) => x.digit);
      return digits.includes(null) ? null : digits.includes(9) && digits.includes(7);
    }

    const trayNode = element("div", { class: "tray" }, ...tray.map((instance) => {
      const node = button("", () => add(instance), `Add a ${instance.digit}`);
      node.append(picture(instance.pixels, `a ${instance.digit}`, 40));
      node.firstChild.setAttribute("aria-hidden", "true");
      return node;
    }));
    box.append(element("p", { text: "The rule: a bag is positive if it holds a 9 and a 7." }),
      element("div", { class: "buttons" }, ...data.examples.map(({ name, members }) => button(name, () => take(members)))),
      element("div", { class: "results" }, ...results.map((r) => r.node)),
      element("p", { class: "legend", text: "Of every instance: its weight a, the verdict s on it, and a·s. The products of a model add up to its logit." }),
      cards,
      element("p", { class: "label", text: `Add a digit that no training has seen (up to ${MOST}):` }), trayNode,
      drawing((pixels) => add(make(null, pixels)), say), words);
    draw();
  }

  /* The field for a digit of one's own, by pointer or by keys. */
  function drawing(onadd, say) {
    const pixels = new Array(SIDE * SIDE).fill(0);
    let [pen, down] = [[14, 6], false];
    const field = picture(pixels, "", 196);
    const dotNode = element("i", { class: "pen" });
    const frame = element("div", { class: "frame", tabindex: 0, role: "application",
      "aria-label": "Drawing field. Arrow keys move the pen, Space lowers or lifts it." }, field, dotNode);
    field.setAttribute("aria-hidden", "true");
    const moveTo = (p) => {
      const next = p.map((x) => Math.max(1, Math.min(SIDE - 1, x)));
      if (down) stroke(pixels, pen, next);
      pen = next;
      redraw();
    };
    const redraw = () => {
      paint(field, pixels);
      dotNode.style.left = `${100 * pen[0] / SIDE}%`;
      dotNode.style.top = `${100 * pen[1] / SIDE}%`;
      frame.classList.toggle("down", down);
    };
    const at = (event) => {
      const r = field.getBoundingClientRect();
      return [(event.clientX - r.left) / r.width * SIDE, (event.clientY - r.top) / r.height * SIDE];
    };
    frame.onpointerdown = (event) => {
      frame.setPointerCapture(event.pointerId);
      pen = at(event);
      down = true;
      moveTo(pen);
    };
    frame.onpointermove = (event) => { if (down && event.buttons) moveTo(at(event)); };
    frame.onpointerup = frame.onpointercancel = () => { down = false; redraw(); };
    frame.onkeydown = (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      if (!step) {
        down = !down;
        say(down ? "Pen down." : "Pen up.");
      }
      moveTo(step ? pen.map((x, c) => x + step[c]) : pen);
    };
    frame.onblur = () => { down = false; redraw(); };
    const clear = () => { pixels.fill(0); down = false; redraw(); };
    const adder = button("Add the drawing", () => { if (pixels.some((p) => p)) { onadd([...pixels]); clear(); } });
    adder.className = "adder";
    redraw();
    return element("div", { class: "draw" }, frame,
      element("div", {}, element("p", { text: "Or draw one with mouse or finger; with keys: arrows move the pen, Space lowers or lifts it." }),
        element("div", { class: "buttons" }, adder, button("Clear", clear))));
  }

  return { build, unpack, encode, judge, turn };
})();
