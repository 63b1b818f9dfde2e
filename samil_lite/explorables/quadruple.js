/* The impossible game of chapter 4: a weight and a verdict for each of two 9s and two 7s, four bags to get right.
 *
 * One minute: whatever the eight numbers, one of the four bags stays wrong, because the logit of a union lies between
 * the logits of its parts (4.6); one look at the neighbour (chapter 6) lifts the limit.
 */
samilLite.figures.quadruple = (function () {
  "use strict";
  const { element, slider, checkbox, button, summary, softmax, dot, show } = samilLite;
  const NAMES = ["9", "9′", "7", "7′"];
  const BAGS = { X: [0, 1], Y: [2, 3], Z: [0, 2], "Z′": [1, 3], "X ∪ Y": [0, 1, 2, 3] };
  const POSITIVE = { X: false, Y: false, Z: true, "Z′": true };
  const LIMIT = 8; // of the line on which logits are drawn

  /* Logit of a bag of instances: the mean of verdicts with weights u = exp(e). With `look`, a 9 first looks for 7s
   * (score 5, all other scores 0) and everyone adds to its verdict gamma times its share of attention on 7s. */
  function logit(members, e, s, gamma = 0, look = false) {
    const a = softmax(members.map((i) => e[i]));
    const seven = (i) => (i >= 2 ? 1 : 0);
    const verdicts = members.map((j) => {
      if (!look) return s[j];
      const beta = softmax(members.map((i) => (seven(j) ? 0 : 5 * seven(i))));
      return s[j] + gamma * dot(beta, members.map(seven));
    });
    return dot(a, verdicts);
  }

  /* How far the worst of the four bags is on the right side of 0; below 0: on the wrong side. */
  const worst = (logits) => Math.min(...Object.entries(POSITIVE).map(([bag, yes]) => (yes ? 1 : -1) * logits[bag]));

  function build(box, data) {
    const e = NAMES.map((name, i) => slider(`weight of ${name}`, { min: -4, max: 4, step: 0.1, value: data.scores[i] },
      (x) => `u = ${show(Math.exp(x))}`, draw));
    const s = NAMES.map((name, i) => slider(`verdict of ${name}`, { min: -8, max: 8, step: 0.1, value: data.verdicts[i] },
      (x) => show(x, 1, true), draw));
    const look = checkbox("self-attention: a 9 looks for 7s, and who sees a 7 adds γ to its verdict", data.look, draw);
    const gamma = slider("γ", { min: 0, max: 8, step: 0.1, value: 0 }, (x) => show(x, 1), draw);
    const set = (weights, verdicts, g = 0, seen = false) => {
      weights.forEach((x, i) => { e[i].value = x; });
      verdicts.forEach((x, i) => { s[i].value = x; });
      gamma.value = g;
      look.value = seen;
      draw();
    };
    let best = -Infinity;
    const { node: words, say } = summary();
    const score = element("p", { class: "score" });
    const rows = Object.entries(BAGS).map(([bag, members]) => {
      const mark = element("i");
      const verdict = element("b");
      const union = !(bag in POSITIVE);
      const target = union ? "" : POSITIVE[bag] ? "should be positive" : "should be negative";
      const node = element("div", { class: `line ${union ? "union" : POSITIVE[bag] ? "yes" : "no"}`, "data-bag": bag },
        element("span", {}, element("strong", { text: bag }), ` = {${members.map((i) => NAMES[i]).join(", ")}} `,
          element("small", { text: union ? "= Z ∪ Z′" : target })),
        verdict, element("div", { class: "axis" }, mark));
      return { bag, members, mark, verdict, union, node };
    });

    function draw() {
      gamma.row.hidden = !look.value;
      const numbers = [e, s].map((sliders) => sliders.map((x) => x.value));
      const logits = {};
      for (const { bag, members } of rows) logits[bag] = logit(members, ...numbers, gamma.value, look.value);
      let right = 0;
      for (const { bag, mark, verdict, union, node } of rows) {
        const x = logits[bag];
        const good = !union && (x > 0) === POSITIVE[bag];
        right += good;
        mark.style.left = `${50 + 50 * Math.max(-1, Math.min(1, x / LIMIT))}%`;
        verdict.textContent = `${show(x, 2, true)} ${union ? "" : good ? "✓" : "✗"}`;
        node.classList.toggle("good", good);
        node.dataset.logit = x;
      }
      const margin = worst(logits);
      if (!look.value) best = Math.max(best, margin);
      score.textContent = `${right} of 4 right.`;
      box.dataset.right = right;
      box.dataset.margin = margin;
      const [z, union, x] = [Math.min(logits.Z, logits["Z′"]), logits["X ∪ Y"], Math.max(logits.X, logits.Y)];
      const law = `The smaller of Z and Z′ is ${show(z, 2, true)}, their union ${show(union, 2, true)}, the larger of X and Y ${show(x, 2, true)}`;
      say(`${right} of 4 bags right; the worst is ${show(Math.abs(margin))} on the ${margin > 0 ? "right" : "wrong"} side. ${law}`
        + (look.value ? ": with self-attention these three need not ascend." : ": these three always ascend, as (4.6) says.")
        + (look.value ? "" : ` Closest so far: ${show(Math.max(0, -best))} short.`));
    }

    box.append(element("p", { text: "Give each of four instances a weight and a verdict, the same in every bag, so that all four bags come out right." }),
      element("div", { class: "parts" }, element("div", {}, ...rows.map((r) => r.node), score),
        element("div", {}, ...NAMES.map((name, i) => element("div", { class: "pair" }, e[i].row, s[i].row)))),
      look.row, gamma.row,
      element("div", { class: "buttons" },
        button("Start again", () => { best = -Infinity; set(data.scores, data.verdicts); }),
        button("One that self-attention solves", () => set([3, 3, -3, -3], [-2, -2, -6, -6], 4, true))), words);
    draw();
  }

  return { build, logit, worst, BAGS };
})();
