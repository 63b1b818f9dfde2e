/* Fill a bag and see three rules for its label light up (chapter 1).
 *
 * One minute: one bag, three labels; whether an instance matters depends on the rule and on its company.
 */
samilLite.figures.three_rules = (function () {
  "use strict";
  const { element, button, summary } = samilLite;
  const RULES = {
    standard: ["standard", "a 9", (digits) => count(digits, 9) >= 1],
    presence: ["presence", "a 9 and a 7", (digits) => count(digits, 9) >= 1 && count(digits, 7) >= 1],
    threshold: ["threshold", "two 9s or more", (digits) => count(digits, 9) >= 2],
  };
  const count = (digits, digit) => digits.filter((d) => d === digit).length;

  /* The label under each rule. */
  const labels = (digits) => Object.fromEntries(Object.entries(RULES).map(([key, [, , rule]]) => [key, Number(rule(digits))]));

  /* Which instances are key: those without which, each on its own, some rule would say something else. */
  const pivotal = (digits, key) => digits.map((_, i) => labels(digits.filter((_, k) => k !== i))[key] !== labels(digits)[key]);

  function build(box, data) {
    let digits = [...data.digits];
    const { node: words, say } = summary();
    const bag = element("div", { class: "bag", role: "group", "aria-label": "The bag; press an instance to take it out" });
    const lamps = Object.entries(RULES).map(([key, [name, text]]) => {
      const verdict = element("b");
      const note = element("small");
      return { key, name, verdict, note, node: element("div", { class: "lamp" }, element("strong", { text: name }), element("span", { text: `positive with ${text}` }), verdict, note) };
    });
    const tray = element("div", { class: "buttons" }, ...Array.from({ length: 10 }, (_, d) =>
      button(String(d), () => { if (digits.length < data.most) { digits.push(d); draw(); } }, `Put in a ${d}`)));

    function draw(focus = -1) {
      bag.replaceChildren(...digits.map((d, i) => {
        const node = button(String(d), () => { digits.splice(i, 1); draw(Math.min(i, digits.length - 1)); }, `${d}, instance ${i + 1}: take out`);
        node.className = d === 9 ? "nine" : d === 7 ? "seven" : "";
        return node;
      }));
      if (focus >= 0) bag.children[focus].focus();
      const now = labels(digits);
      for (const { key, verdict, note, node } of lamps) {
        const decisive = pivotal(digits, key).filter(Boolean).length;
        node.classList.toggle("on", now[key] === 1);
        node.dataset.value = now[key];
        verdict.textContent = now[key] ? "● positive" : "○ negative";
        note.textContent = digits.length && now[key]
          ? decisive ? `${decisive === 1 ? "one instance decides" : `${decisive} instances decide`}: without it the label changes` : "no single instance decides"
          : "";
      }
      for (const adder of tray.children) adder.disabled = digits.length >= data.most;
      say(`Bag of ${digits.length}: ${digits.join(", ") || "empty"}. ${lamps.map(({ key, name }) => `${name} ${now[key] ? "positive" : "negative"}`).join(", ")}.`);
    }

    box.append(element("p", { text: "The bag (press an instance to take it out):" }), bag,
      element("p", { text: "Put in:" }), tray, element("div", { class: "lamps" }, ...lamps.map((l) => l.node)), words);
    draw();
  }

  return { build, labels, pivotal };
})();
