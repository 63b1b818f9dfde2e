/* The two paths of an instance into the bag vector: its own weight a, and through the eyes of others, b (chapter 6).
 *
 * One minute: with self-attention the weight a alone does not say which instances mattered; a 7 may have none of it
 * and still decide, because the 9 that has all of it looked at the 7.
 */
samilLite.figures.two_paths = (function () {
  "use strict";
  const { element, slider, choice, bars, summary, softmax, dot, show } = samilLite;
  const KINDS = { 9: [1, 0, 0], 7: [0, 1, 0], other: [0, 0, 1] };

  /* The model built by hand in (6.1) and (6.2): a, β, b = aβ and the logit of a bag of kinds. The query of a 9 is
   * `search`, the key and the value of a 7 are 1; the pooling scores a 9 with `pool` · tanh. */
  function model(kinds, { search, pool, gamma, verdict, offset }) {
    const h = kinds.map((kind) => KINDS[kind]);
    const beta = h.map((x) => softmax(h.map((k) => search * x[0] * k[1])));
    const hHat = h.map((x, j) => [x[0], x[1] + gamma * dot(beta[j], h.map((k) => k[1])), x[2]]);
    const a = softmax(hHat.map((x) => pool * Math.tanh(x[0])));
    const b = h.map((_, i) => dot(a, beta.map((row) => row[i])));
    return { a, beta, b, logit: dot(a, hHat.map((x) => dot(verdict, x))) + offset };
  }

  function build(box, data) {
    const bag = choice("bag", Object.keys(data.bags).map((name) => [name, name]), data.bag, draw);
    const search = slider("how hard 9s look for 7s", { min: 0, max: 8, step: 0.1, value: data.search }, (x) => show(x, 1), draw);
    const gamma = slider("γ", { min: 0, max: 1, step: 0.02, value: data.gamma }, (x) => show(x), draw);
    const logitNode = element("p", { class: "logit" });
    const charts = element("div", { class: "parts" });
    const { node: words, say } = summary();
    let shown = null; // the bag whose names the bars have

    function draw() {
      const kinds = data.bags[bag.value];
      const settings = { ...data, search: search.value, gamma: gamma.value };
      const { a, b, logit } = model(kinds, settings);
      if (shown?.name !== bag.value) {
        shown = { name: bag.value, direct: bars(kinds, "direct weight a"), indirect: bars(kinds, "indirect weight b") };
        charts.replaceChildren(...[["direct", "Direct: a, its own weight in the pooling"], ["indirect", "Indirect: b = aβ, seen through others"]]
          .map(([key, title]) => element("div", { class: key }, element("strong", { text: title }), shown[key].node)));
      }
      const marks = kinds.map((kind) => (kind === "9" ? "query" : ""));
      shown.direct.set(a, { marks });
      shown.indirect.set(b, { marks });
      logitNode.textContent = `logit ${show(logit, 2, true)}: ${logit > 0 ? "positive" : "negative"}`;
      logitNode.dataset.value = logit;
      const sum = (weights, kind) => show(weights.filter((_, i) => kinds[i] === kind).reduce((x, y) => x + y, 0));
      say(`${bag.value}: logit ${show(logit, 2, true)}. All 9s together: direct ${sum(a, "9")}, indirect ${sum(b, "9")}; all 7s: direct ${sum(a, "7")}, indirect ${sum(b, "7")}.`
        + (gamma.value === 0 ? " With γ = 0 the indirect path is closed: b counts for nothing." : ""));
    }

    box.append(bag.row, search.row, gamma.row, charts, logitNode, words);
    draw();
  }

  return { build, model };
})();
