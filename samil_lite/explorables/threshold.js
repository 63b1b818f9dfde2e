/* A threshold on the scores of labelled bags (chapter 13).
 *
 * One minute: precision and recall are not of a model but of a threshold; with few positive bags both move in jumps,
 * and recall at a fixed precision hangs on one or two of them.
 */
samilLite.figures.threshold = (function () {
  "use strict";
  const { element, slider, summary, show } = samilLite;

  /* Counts and shares if bags with a score above the threshold are called positive; NaN where nothing is divided. */
  function judge(scores, labels, threshold) {
    const count = (called, label) => scores.filter((s, i) => (s > threshold) === called && labels[i] === label).length;
    const [tp, fp, fn, tn] = [count(true, 1), count(true, 0), count(false, 1), count(false, 0)];
    return { tp, fp, fn, tn, precision: tp / (tp + fp), recall: tp / (tp + fn), accuracy: (tp + tn) / scores.length };
  }

  function build(box, { scores, labels, threshold }) {
    const low = Math.floor(Math.min(...scores)) - 0.5;
    const high = Math.ceil(Math.max(...scores)) + 0.5;
    const at = (x) => `${100 * (x - low) / (high - low)}%`;
    const cut = slider("threshold", { min: low, max: high, step: 0.05, value: threshold }, (x) => show(x, 2, true), draw);
    const line = element("i", { class: "cut" });
    const dots = scores.map((s, i) => {
      const node = element("i", { class: labels[i] ? "positive" : "negative" });
      node.style.left = at(s);
      node.style.top = `${(labels[i] ? 4 : 34) + 4 * (i % 4)}px`;
      return node;
    });
    const plot = element("div", { class: "plot", role: "img" }, ...dots, line);
    const cells = Object.fromEntries(["tp", "fp", "fn", "tn", "precision", "recall", "accuracy"].map((key) => [key, element("td")]));
    const head = (text) => element("th", { scope: "row", text });
    const table = element("table", {}, element("tbody", {},
      element("tr", {}, head("called positive"), element("td", { text: "rightly" }), cells.tp, element("td", { text: "wrongly" }), cells.fp),
      element("tr", {}, head("called negative"), element("td", { text: "rightly" }), cells.tn, element("td", { text: "wrongly" }), cells.fn)));
    const shares = element("table", { class: "shares" }, element("thead", {}, element("tr", {}, ...["precision", "recall", "accuracy"].map((text) => element("th", { scope: "col", text })))),
      element("tbody", {}, element("tr", {}, cells.precision, cells.recall, cells.accuracy)));
    const { node: words, say } = summary();

    function draw() {
      const found = judge(scores, labels, cut.value);
      line.style.left = at(cut.value);
      for (const [key, cell] of Object.entries(cells)) {
        cell.textContent = Number.isNaN(found[key]) ? "—" : key.length > 2 ? show(found[key]) : found[key];
        cell.dataset.value = found[key];
      }
      plot.setAttribute("aria-label", `${labels.filter((y) => y).length} positive bags above, ${labels.filter((y) => !y).length} negative ones below, on a line of scores; the threshold at ${show(cut.value, 2, true)}.`);
      say(`Threshold ${show(cut.value, 2, true)}: precision ${cells.precision.textContent}, recall ${cells.recall.textContent}. ${found.tp} of ${found.tp + found.fn} positive bags found, ${found.fp} false alarms.`);
    }

    box.append(plot, element("p", { class: "legend", text: "Diamonds are positive bags, circles negative ones, from left to right by their logit." }), cut.row,
      element("div", { class: "parts" }, table, shares), words);
    draw();
  }

  return { build, judge };
})();
