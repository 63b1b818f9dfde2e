/* Images of a few preparations dealt into folds, one by one or preparation by preparation (chapter 15).
 *
 * One minute: dealt one by one, nearly every test image has a sister in training; dealt by group, none has.
 */
samilLite.figures.folds = (function () {
  "use strict";
  const { element, button, checkbox, slider, summary, show } = samilLite;

  /* Random numbers in [0, 1) that are the same for everyone. */
  function generator(seed) {
    let state = (seed * 2654435761) >>> 0;
    return () => { state = (Math.imul(state, 1664525) + 1013904223) >>> 0; return state / 2 ** 32; };
  }

  function shuffled(items, random) {
    const result = [...items];
    for (let i = result.length - 1; i > 0; i--) {
      const k = Math.floor(random() * (i + 1));
      [result[i], result[k]] = [result[k], result[i]];
    }
    return result;
  }

  /* The fold of each image; grouped: all images of a group in one fold, the fold with the fewest images so far. */
  function deal(groups, k, seed, grouped) {
    const random = generator(seed);
    const fold = new Array(groups.length);
    if (!grouped) {
      shuffled(groups.keys(), random).forEach((image, place) => { fold[image] = place % k; });
      return fold;
    }
    const sizes = new Array(k).fill(0);
    for (const group of shuffled(new Set(groups), random)) {
      const smallest = sizes.indexOf(Math.min(...sizes));
      groups.forEach((g, i) => { if (g === group) { fold[i] = smallest; sizes[smallest] += 1; } });
    }
    return fold;
  }

  /* How many images of the tested fold have a sister, an image of their group, in training. */
  function leaks(groups, fold, test) {
    return groups.filter((g, i) => fold[i] === test && groups.some((other, k) => other === g && fold[k] !== test)).length;
  }

  function build(box, { groups, k, seed }) {
    let deals = seed;
    const grouped = checkbox("keep a preparation together", false, draw);
    const test = slider("tested fold", { min: 1, max: k, step: 1, value: 1 }, (x) => `${x} of ${k}`, draw);
    const again = button("Deal again", () => { deals += 1; draw(); });
    const names = [...new Set(groups)];
    const lanes = names.map((name) => element("div", { class: "lane", role: "img" }, element("b", { text: name })));
    const { node: words, say } = summary();

    function draw() {
      const fold = deal(groups, k, deals, grouped.value);
      const chosen = test.value - 1;
      names.forEach((name, lane) => {
        const images = [...groups.keys()].filter((i) => groups[i] === name);
        const mixed = new Set(images.map((i) => fold[i] === chosen)).size > 1;
        lanes[lane].replaceChildren(lanes[lane].firstChild, ...images.map((i) =>
          element("i", { class: fold[i] === chosen ? "test" : "", "data-fold": fold[i], text: fold[i] + 1 })));
        lanes[lane].classList.toggle("mixed", mixed);
        lanes[lane].setAttribute("aria-label", `Preparation ${name}: folds ${images.map((i) => fold[i] + 1).join(", ")}${mixed ? ", in test and training" : ""}`);
      });
      const count = fold.filter((f) => f === chosen).length;
      const found = leaks(groups, fold, chosen);
      box.dataset.leaks = found;
      say(`Fold ${test.value} tests ${count} images; ${found} of them ${found === 1 ? "has" : "have"} a sister in training${found ? `, ${show(100 * found / count, 0)} %` : ""}.`);
    }

    box.append(element("div", { class: "lanes" }, ...lanes), grouped.row, test.row, again, words);
    draw();
  }

  return { build, deal, leaks };
})();
