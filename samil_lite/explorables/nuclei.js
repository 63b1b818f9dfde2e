/* One nucleus of a tissue image and its row of β over all others: a trained model, from a record (chapter 14).
 *
 * One minute: whom a nucleus looks at is a map of its own for each; near or far does not decide, likeness does, and
 * some nuclei are looked at whoever asks.
 */
samilLite.figures.nuclei = (function () {
  "use strict";
  const { element, choice, slider, summary, softmax, show } = samilLite;

  /* Rows of numbers from bytes in base64, signed, times their scale. */
  function rows(text, scale, n) {
    const whole = Int8Array.from(atob(text), (c) => c.charCodeAt(0));
    const width = whole.length / n;
    return Array.from({ length: n }, (_, i) => Array.from(whole.subarray(i * width, (i + 1) * width), (x) => x * scale));
  }

  /* β of one query, for keys and queries of the record, with all scores multiplied by a factor. */
  const row = ({ q, k }, query, factor = 1) => softmax(k.map((key) => factor * samilLite.dot(key, q[query])));

  function build(box, data) {
    const n = data.places.length;
    const vectors = { q: rows(data.q, data.q_scale, n), k: rows(data.k, data.k_scale, n) };
    const size = Math.max(...data.places.flat()) + 15;
    let query = data.query;
    const what = choice("shown", [["look", "row of β of the chosen nucleus"], ["attention", "weight a of the pooling"]], "look", draw);
    const factor = slider("all scores ×", { min: -3, max: 0, step: 0.1, value: data.factor },
      (x) => show(10 ** x, 3), draw);
    const { node: words, say } = summary();
    const svg = element("svg", { class: "plane", viewBox: `-5 -5 ${size} ${size}`, tabindex: 0, role: "application",
      "aria-label": "Nuclei of one image. Arrow keys go to the next nucleus in that direction; a click takes the nearest." });
    const shapes = data.places.map(([x, y], i) => {
      const node = element("path", { class: data.epithelial[i] ? "epithelial" : "other", transform: `translate(${x} ${y})` });
      svg.append(node);
      return node;
    });
    const star = element("circle", { class: "star", r: 13 });
    svg.append(star);
    const circle = (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
    const square = (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`;

    svg.addEventListener("pointerdown", (event) => {
      const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      choose(nearest(data.places.map(([x, y]) => Math.hypot(x - p.x, y - p.y))));
    });
    svg.addEventListener("keydown", (event) => {
      const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!arrow) return;
      event.preventDefault();
      event.stopPropagation();
      choose(next(data.places, query, arrow));
    });
    const nearest = (distances) => distances.indexOf(Math.min(...distances));
    const choose = (i) => { query = i; draw(); };

    function draw() {
      const look = what.value === "look";
      const weights = look ? row(vectors, query, 10 ** factor.value).map((b) => n * b) : data.attention; // even weight = 1
      shapes.forEach((node, i) => {
        const r = Math.min(16, Math.max(2.2, 4.5 * Math.sqrt(weights[i])));
        node.setAttribute("d", data.epithelial[i] ? circle(r) : square(r * 0.88));
        node.classList.toggle("above", weights[i] > 1);
        node.dataset.value = weights[i];
      });
      star.setAttribute("transform", `translate(${data.places[query]})`);
      box.dataset.query = query;
      const mean = (kind) => { const some = weights.filter((_, i) => data.epithelial[i] === kind); return samilLite.sum(some) / some.length; };
      const top = weights.indexOf(Math.max(...weights));
      const far = Math.hypot(...[0, 1].map((c) => data.places[top][c] - data.places[query][c]));
      say(`${look ? `Nucleus ${query + 1}, ${data.epithelial[query] ? "epithelial" : "of another type"}, looks` : "The pooling looks"} at nucleus ${top + 1} most, `
        + `${show(weights[top], 1)} times the even weight${look ? `, ${Math.round(far)} pixels away` : ""}. `
        + `Mean on epithelial nuclei ${show(mean(1))}, on others ${show(mean(0))}.`);
    }

    box.append(what.row, element("div", { class: "sides" }, svg, element("div", { class: "right" },
      element("p", { text: "Circles are epithelial nuclei, squares other types. The area grows with the weight; filled marks are above the even weight." }), factor.row, words)));
    draw();
  }

  /* The nearest place within 45° of a direction; the same one if there is none. */
  function next(places, from, [dx, dy]) {
    let [best, distance] = [from, Infinity];
    places.forEach(([x, y], i) => {
      const [ex, ey] = [x - places[from][0], y - places[from][1]];
      const [along, across] = [ex * dx + ey * dy, Math.abs(ex * dy) + Math.abs(ey * dx)];
      const d = Math.hypot(ex, ey);
      if (along > 0 && across <= along && d < distance) [best, distance] = [i, d];
    });
    return best;
  }

  return { build, rows, row, next };
})();
