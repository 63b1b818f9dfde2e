/* A softmax that never sees its whole row, block by block, and what the ways to make β hold in memory (chapter 12).
 *
 * One minute: three numbers are enough, the largest score so far, the sum and the mix; when a larger score comes, one
 * factor repairs both sums, the last line is exact, and memory grows with n and not with n².
 */
samilLite.figures.running_softmax = (function () {
  "use strict";
  const { element, slider, choice, button, summary, softmax, dot, sum, show } = samilLite;
  const [SMALLEST, LARGEST] = [1e3, 1e16]; // bytes, the ends of the scale of memory

  /* What is kept after each block: m, l and u as in (12.1), and the factor that l and u were shrunk by. */
  function run(scores, values, size) {
    const steps = [];
    let [m, l, u] = [-Infinity, 0, 0];
    for (let first = 0; first < scores.length; first += size) {
      const block = scores.slice(first, first + size);
      const high = Math.max(m, ...block);
      const factor = Math.exp(m - high);
      const e = block.map((s) => Math.exp(s - high));
      l = factor * l + sum(e);
      u = factor * u + dot(e, values.slice(first, first + size));
      m = high;
      steps.push({ m, factor, l, u, o: u / l });
    }
    return steps;
  }

  /* Bytes in single precision that each way holds at once, or moves on the way back, for a bag of n. */
  function memory(n, { rows, keys, d, d_v: dv }) {
    return {
      broadcast: 4 * n * n * d,
      dense: 4 * n * n,
      loop: 4 * n * n * n,
      tiles: 4 * (Math.min(rows, n) * Math.min(keys, n) + n * (dv + 1)),
    };
  }

  function bytes(x) {
    const units = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"];
    const power = Math.max(0, Math.floor(Math.log10(x) / 3 + 1e-9));
    return `${Number((x / 1000 ** power).toPrecision(2))} ${units[power]}`;
  }

  function build(box, data) {
    const n = data.scores.length;
    const orders = { given: data.scores, rising: [...data.scores].sort((a, b) => a - b),
      falling: [...data.scores].sort((a, b) => b - a) };
    const order = choice("scores", [["given", "as they come"], ["rising", "rising"], ["falling", "falling"]], "given", draw);
    const size = choice("keys in a block", [1, 2, 4, 8].map((x) => [String(x), String(x)]), "4", () => {
      done.input.max = blocks();
      done.value = 1;
      draw();
    });
    const blocks = () => Math.ceil(n / Number(size.value));
    const done = slider("blocks seen", { min: 0, max: Math.ceil(n / 4), step: 1, value: 1 },
      (x) => `${x} of ${blocks()}`, draw);
    const next = button("Next block", () => { done.value = done.value + 1; draw(); });
    const bar = (label) => {
      const fill = element("i");
      const ghost = element("em");
      return { fill, ghost, node: element("div", { class: "key" }, element("div", { class: "track" }, ghost, fill), element("span", { text: label })) };
    };
    const keys = data.scores.map((_, i) => bar(String(i + 1)));
    const chart = element("div", { class: "keys", role: "img" }, ...keys.map((k) => k.node));
    const body = element("tbody");
    const table = element("table", {}, element("caption", { text: "What is kept after each block" }),
      element("thead", {}, element("tr", {}, ...["block", "m", "factor", "ℓ", "u", "o = u / ℓ"].map((text) => element("th", { scope: "col", text })))), body);
    const exact = element("p", { class: "exact" });
    const { node: words, say } = summary();

    /* The right side: the square of all pairs in tiles, and memory against n. */
    const tiles = element("svg", { viewBox: "0 0 8 8", role: "img", class: "tiles" });
    const cells = Array.from({ length: 64 }, (_, i) => element("rect", { x: i % 8 + 0.06, y: Math.floor(i / 8) + 0.06, width: 0.88, height: 0.88 }));
    tiles.append(...cells);
    const round = (x) => Number(x.toPrecision(2));
    const instances = slider("instances n", { min: 1, max: 6, step: 0.1, value: 5 }, (x) => round(10 ** x).toLocaleString("en"), drawMemory);
    const meters = Object.entries({ loop: "loop over columns, moved on the way back", broadcast: "all differences at once",
      dense: "one product: β whole", tiles: `tiles of ${data.rows} × ${data.keys}` }).map(([key, name]) => {
      const fill = element("i");
      const value = element("b");
      return { key, name, fill, value, node: element("div", { class: `meter ${key}` }, element("span", { text: name }), value, element("div", { class: "axis" }, fill)) };
    });
    const heard = summary();

    function draw() {
      const scores = orders[order.value];
      const width = Number(size.value);
      const steps = run(scores, data.values, width).slice(0, done.value);
      const seen = Math.min(n, done.value * width);
      const now = steps.at(-1);
      const top = Math.max(...scores);
      keys.forEach(({ fill, ghost, node }, i) => {
        const e = i < seen ? Math.exp(scores[i] - now.m) : 0;
        fill.style.height = `${100 * e}%`;
        ghost.style.bottom = `${100 * (scores[i] + 0.5) / (top + 1)}%`;
        node.className = `key ${i < seen ? (i >= seen - width ? "now" : "seen") : ""} ${i % width === 0 ? "first" : ""}`;
        node.dataset.value = e;
      });
      chart.setAttribute("aria-label", `Scores ${scores.map((s) => show(s, 1)).join(", ")}; exp(s − m) of the ${seen} seen: `
        + scores.slice(0, seen).map((s) => show(Math.exp(s - now.m))).join(", "));
      body.replaceChildren(...Array.from({ length: blocks() }, (_, i) => {
        const step = steps[i];
        if (!step) return element("tr", {}, ...Array.from({ length: 6 }, (_, c) => element("td", { text: c ? "·" : i + 1 })));
        const values = [step.m, step.factor, step.l, step.u, step.o];
        const texts = [show(step.m, 1), i ? show(step.factor, 3) : "–", show(step.l, 3), show(step.u, 2), show(step.o, 3)];
        return element("tr", { class: step.factor < 1 && i ? "shrunk" : "" }, element("td", { text: i + 1 }),
          ...texts.map((text, c) => element("td", { text, "data-value": values[c] })));
      }));
      const whole = dot(softmax(scores), data.values);
      exact.textContent = `Softmax over the whole row: ${show(whole, 3)}`;
      exact.dataset.value = whole;
      next.disabled = seen >= n;
      cells.forEach((cell, i) => {
        const [r, c] = [Math.floor(i / 8), i % 8];
        const part = Math.ceil(8 * seen / n);
        cell.setAttribute("class", r === 2 && c === part - 1 ? "now" : r < 2 || (r === 2 && c < part) ? "seen" : "");
      });
      tiles.setAttribute("aria-label", `The square of queries and keys in 8 × 8 tiles; in the third row ${Math.ceil(8 * seen / n)} tiles are done, one at a time is held.`);
      const shrunk = now && steps.length > 1 && now.factor < 1;
      say(now ? `Block ${steps.length}: largest so far ${show(now.m, 1)}; what was summed before ${shrunk ? `shrank to ${show(now.factor, 3)} of itself` : "stays"}. `
        + `So far o is ${show(now.o, 3)}${seen >= n ? ", exactly the softmax over the whole row" : `, right for the ${seen} keys seen`}.` : "Nothing seen yet.");
    }

    function drawMemory() {
      const count = round(10 ** instances.value);
      const need = memory(count, data);
      for (const { key, fill, value, node } of meters) {
        value.textContent = bytes(need[key]);
        node.dataset.value = need[key];
        fill.style.width = `${100 * Math.min(1, Math.max(0.01, Math.log(need[key] / SMALLEST) / Math.log(LARGEST / SMALLEST)))}%`;
      }
      heard.say(`With ${count.toLocaleString("en")} instances: ${meters.map(({ key, name }) => `${name} ${bytes(need[key])}`).join("; ")}. `
        + "The bars are on a scale of powers of ten; the line is 16 GB.");
    }

    const line = `${100 * Math.log(16e9 / SMALLEST) / Math.log(LARGEST / SMALLEST)}%`;
    box.style.setProperty("--line-at", line);
    box.append(chart, element("p", { class: "legend", text: "Dashes: the scores s. Bars: exp(s − m), with m the largest score so far." }),
      element("div", { class: "controls" }, done.row, next), size.row, order.row,
      table, exact, words,
      element("div", { class: "memory" }, element("div", {}, tiles),
        element("div", {}, instances.row, ...meters.map((m) => m.node), heard.node)));
    draw();
    drawMemory();
  }

  return { build, run, memory };
})();
