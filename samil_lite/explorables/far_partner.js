/* A partner that moves away among many others: what four scores leave of its weight (chapter 8).
 *
 * One minute: with the kernel value as the score a partner hardly stands out, near or far; of the logarithms RBF
 * gives all to whatever is nearest, and the inverse quadratic shares by distance, so that many far ones add up.
 */
samilLite.figures.far_partner = (function () {
  "use strict";
  const { element, slider, summary, softmax, show } = samilLite;
  const FORMS = {
    rbf: ["RBF", (t, a) => Math.exp(-a * t)],
    inverse_quadratic: ["inverse quadratic", (t, a) => 1 / (a * t + 1)],
    log_rbf: ["log RBF", (t, a) => -a * t],
    log_inverse_quadratic: ["log inverse quadratic", (t, a) => -Math.log1p(a * t)],
  };

  /* The weight of a partner at distance d in a bag of n whose others are all at distance `others`. */
  function weight(form, d, others, n, alpha) {
    const score = FORMS[form][1];
    return softmax([score(d * d, alpha), ...new Array(n - 1).fill(score(others * others, alpha))])[0];
  }

  function build(box, data) {
    const distance = slider("partner at", { min: 0, max: 10, step: 0.1, value: data.distance }, (x) => show(x, 1), draw);
    const others = slider("others at", { min: 0, max: 20, step: 0.1, value: data.others }, (x) => show(x, 1), draw);
    const size = slider("bag size n", { min: 0.35, max: 3, step: 0.05, value: Math.log10(data.n) }, (x) => String(Math.round(10 ** x)), draw);
    const alpha = slider("α", { min: -4, max: 4, step: 0.125, value: 0 }, (x) => show(2 ** x), draw);
    const rows = Object.entries(FORMS).map(([form, [name]]) => {
      const bar = element("i");
      const value = element("b");
      return { form, name, bar, value, node: element("div", { class: "form", "data-form": form }, element("span", { text: name }), value, element("div", { class: "axis" }, bar)) };
    });
    const { node: words, say } = summary();

    function draw() {
      const n = Math.round(10 ** size.value);
      const texts = rows.map(({ form, name, bar, value, node }) => {
        const w = weight(form, distance.value, others.value, n, 2 ** alpha.value);
        bar.style.width = `${100 * w}%`;
        value.textContent = show(w, 3);
        node.dataset.value = w;
        return `${name} ${show(w, 3)}`;
      });
      box.style.setProperty("--even", `${100 / n}%`);
      say(`Weight of the partner at ${show(distance.value, 1)} among ${n - 1} others at ${show(others.value, 1)}: ${texts.join(", ")}. Even weight ${show(1 / n, 3)}, the dotted line.`);
    }

    box.append(distance.row, others.row, size.row, alpha.row, ...rows.map((r) => r.node), words);
    draw();
  }

  return { build, weight };
})();
