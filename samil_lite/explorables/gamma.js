/* γ from 0 to 1: what a look at the neighbours does to a bag of two 9s and to a bag of a 9 and a 7 (chapter 5).
 *
 * One minute: at γ = 0 the two bags are twins to the pooling; γ moves the instances of the mixed bag out, each towards
 * what it found, and those of the other one hardly, until a straight line parts them.
 */
samilLite.figures.gamma = (function () {
  "use strict";
  const { element, slider, summary, softmax, dot, sum, show } = samilLite;
  const [SIZE, LIMIT] = [100, 2.1]; // of the picture, and the largest coordinate shown

  /* ĥ of each instance (5.3), with queries W_q h and keys and values h, and the logit of the book's plain pooling. */
  function look(h, ask, gamma) {
    const queries = h.map((x) => ask.map((row) => dot(row, x)));
    const beta = queries.map((q) => softmax(h.map((k) => dot(k, q))));
    const hHat = h.map((x, j) => x.map((value, c) => value + gamma * sum(beta[j].map((b, i) => b * h[i][c]))));
    const totals = hHat.map(sum);
    return { beta, hHat, logit: dot(softmax(totals.map((t) => 10 * t)), totals.map((t) => t - 1.6)) };
  }

  function build(box, data) {
    const gamma = slider("γ", { min: 0, max: 1, step: 0.01, value: data.gamma }, (x) => show(x), draw);
    const { node: words, say } = summary();
    const at = (x) => SIZE * (0.12 + 0.84 * x / LIMIT);
    const up = (y) => SIZE - at(y);
    const plots = data.bags.map(({ name, positive, h }) => {
      const svg = element("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img" },
        element("path", { class: "grid", d: `M${at(0)} ${up(LIMIT)}V${up(0)}H${at(LIMIT)}` }),
        element("path", { class: "border", d: `M${at(1.6)} ${up(0)}L${at(0)} ${up(1.6)}` }),
        element("text", { x: at(LIMIT) - 26, y: up(0) + 8, text: "as a 9 →" }),
        element("text", { x: at(0) + 3, y: up(LIMIT) + 4, text: "↑ as a 7" }));
      const marks = h.map((start) => {
        const trail = element("path", { class: "trail" });
        const dotNode = element("circle", { r: 3.2, class: start[0] ? "nine" : start[1] ? "seven" : "other" });
        svg.append(trail, dotNode);
        return { start, trail, dotNode };
      });
      const text = element("p", { class: "says" });
      return { name, positive, h, svg, marks, text,
        node: element("div", {}, element("strong", { text: name }), svg, text) };
    });

    function draw() {
      const texts = plots.map(({ name, positive, h, svg, marks, text, node }) => {
        const { hHat, logit } = look(h, data.ask, gamma.value);
        marks.forEach(({ start, trail, dotNode }, i) => {
          dotNode.setAttribute("cx", at(hHat[i][0]));
          dotNode.setAttribute("cy", up(hHat[i][1]));
          trail.setAttribute("d", `M${start.map((x, c) => (c ? up(x) : at(x))).join(" ")}L${at(hHat[i][0])} ${up(hHat[i][1])}`);
          dotNode.dataset.place = hHat[i].join(" ");
        });
        const right = (logit > 0) === positive;
        text.textContent = `logit ${show(logit, 2, true)}, should be ${positive ? "positive ✓" : "negative ✓"}`.replace("✓", right ? "✓" : "✗");
        node.dataset.logit = logit;
        svg.setAttribute("aria-label", `${name}: instances at ${hHat.map((x) => x.map((v) => show(v)).join(", ")).join("; ")}`);
        return `${name} has the logit ${show(logit, 2, true)}`;
      });
      say(`γ = ${show(gamma.value)}: ${texts.join(", ")}. Above the dashed line a verdict is positive.`);
    }

    box.append(gamma.row, element("div", { class: "plots" }, ...plots.map((p) => p.node)),
      element("p", { class: "legend", text: "Full dots are 9s, rings are 7s, small dots any other digit. A line leads back to where an instance was at γ = 0." }), words);
    draw();
  }

  return { build, look };
})();
