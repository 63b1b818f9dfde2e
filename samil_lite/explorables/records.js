/* The records of chapter 11: two models, pair by pair, and what another five seeds might have said.
 *
 * One minute: compare pairs on the same bags, not means; and five seeds drawn again give intervals that wander, so that
 * one interval that just misses zero is weak evidence.
 */
samilLite.figures.records = (function () {
  "use strict";
  const { element, choice, slider, button, summary, sum, show } = samilLite;
  const DRAWN = 20; // draws that are kept in sight

  /* Differences of the scores of two variants, seed by seed: { seed: difference } for the seeds that both have. */
  function pairs(first, second) {
    return Object.keys(first).filter((seed) => seed in second).map((seed) => [seed, first[seed] - second[seed]]);
  }

  /* Mean and Student's 95 % interval; t[df − 1] is the quantile. One number has no interval. */
  function interval(x, t) {
    const mean = sum(x) / x.length;
    if (x.length < 2) return { mean, low: NaN, high: NaN };
    const spread = Math.sqrt(sum(x.map((v) => (v - mean) ** 2)) / (x.length - 1));
    const half = t[x.length - 2] * spread / Math.sqrt(x.length);
    return { mean, low: mean - half, high: mean + half };
  }

  /* Random numbers in [0, 1) that are the same for everyone. */
  function generator(seed) {
    let state = seed;
    return () => { state = (Math.imul(state, 1664525) + 1013904223) >>> 0; return state / 2 ** 32; };
  }

  const verdict = ({ low, high }) => (Number.isNaN(low) ? "one pair, no interval" : low > 0 ? "above zero" : high < 0 ? "below zero" : "holds zero");

  function build(box, data) {
    const rule = choice("rule", Object.keys(data.scores).map((name) => [name, name]), data.rule, redraw);
    const menu = (label, value) => {
      const select = element("select", { onchange: redraw }, ...data.variants.map((name) => element("option", { text: name, value: name, selected: name === value })));
      return { row: element("label", { class: "menu" }, element("span", { text: label }), select), select };
    };
    const first = menu("model", data.first);
    const second = menu("minus", data.second);
    const bags = slider("training bags", { min: 0, max: data.bags.length - 1, step: 1, value: data.bags.indexOf(data.n_bags) }, (i) => String(data.bags[i]), redraw);
    const again = button("Draw five seeds again", () => { draws.push(draw()); if (draws.length > DRAWN) draws.shift(); paint(); });
    let random = generator(1);
    let draws = [];
    let now = [];
    const axis = element("div", { class: "plot", role: "img" });
    const tally = element("p", { class: "tally" });
    const { node: words, say } = summary();

    function draw() {
      const chosen = Array.from({ length: 5 }, () => now[Math.floor(random() * now.length)][1]);
      return interval(chosen, data.t);
    }

    function redraw() {
      random = generator(1);
      draws = [];
      paint();
    }

    function paint() {
      const of = data.scores[rule.value];
      const scores = (menu_) => of[menu_.select.value]?.[data.bags[bags.value]] || {};
      now = pairs(scores(first), scores(second));
      again.disabled = now.length < 2;
      if (!now.length) {
        axis.replaceChildren();
        tally.textContent = "";
        say("No seed has runs of both with these settings.");
        return;
      }
      const whole = interval(now.map(([, d]) => d), data.t);
      const all = [...now.map(([, d]) => d), whole.low, whole.high, ...draws.flatMap((d) => [d.low, d.high])].filter(Number.isFinite);
      const reach = Math.max(0.02, ...all.map(Math.abs)) * 1.05;
      const at = (x) => `${50 + 50 * Math.max(-1, Math.min(1, x / reach))}%`;
      const line = ({ mean, low, high }, kind) => {
        const bar = element("i", { class: `bar ${kind}` });
        bar.style.left = at(low);
        bar.style.right = `calc(100% - ${at(high)})`;
        const mark = element("i", { class: `mark ${kind}` });
        mark.style.left = at(mean);
        return element("div", { class: `track ${kind}`, "data-mean": mean, "data-low": low, "data-high": high }, ...(Number.isNaN(low) ? [] : [bar]), mark);
      };
      const dots = element("div", { class: "track seeds" }, ...now.map(([seed, d], i) => {
        const dotNode = element("i", { class: "dot", "data-seed": seed, "data-value": d });
        dotNode.style.left = at(d);
        dotNode.style.top = `${6 + 20 * (i / Math.max(1, now.length - 1))}px`;
        return dotNode;
      }));
      const ends = element("div", { class: "ends" }, element("span", { text: show(-reach, 2, true) }), element("span", { text: "0" }), element("span", { text: show(reach, 2, true) }));
      axis.replaceChildren(dots, line(whole, "whole"), ...draws.map((d) => line(d, `drawn ${verdict(d).replaceAll(" ", "-")}`)), ends);
      axis.setAttribute("aria-label", `Differences by seed: ${now.map(([seed, d]) => `seed ${seed} ${show(d, 3, true)}`).join(", ")}`);
      const counts = ["above zero", "holds zero", "below zero"].map((v) => `${draws.filter((d) => verdict(d) === v).length} ${v}`);
      tally.textContent = draws.length ? `Five seeds drawn ${draws.length === 1 ? "once" : `${draws.length} times`} from these ${now.length}: ${counts.join(", ")}.` : "";
      say(`${first.select.value} minus ${second.select.value}, ${rule.value}, ${data.bags[bags.value]} training bags: ${now.length} pairs, mean ${show(whole.mean, 3, true)}`
        + `${Number.isNaN(whole.low) ? "" : `, 95 % interval ${show(whole.low, 3, true)} to ${show(whole.high, 3, true)}`}: ${verdict(whole)}.`);
    }

    box.append(rule.row, element("div", { class: "menus" }, first.row, second.row), bags.row, axis, element("div", { class: "buttons" }, again), tally, words);
    paint();
  }

  return { build, pairs, interval };
})();
