/* Mean and maximum of a bag in a plane (chapter 2).
 *
 * One minute: the mean lies between the instances and moves with each; the maximum takes its coordinates from several
 * instances, stands where none of them is, and neither notices when every instance comes twice.
 */
samilLite.figures.pooling = (function () {
  "use strict";
  const { element, button, checkbox, summary, draggable, sum, show } = samilLite;

  /* Mean pooling, maximum pooling, and which instance each coordinate of the maximum is from. */
  function pool(points) {
    const coordinates = [0, 1].map((c) => points.map((p) => p[c]));
    const max = coordinates.map((x) => Math.max(...x));
    return { mean: coordinates.map((x) => sum(x) / x.length), max, from: coordinates.map((x, c) => x.indexOf(max[c])) };
  }

  function build(box, data) {
    let points = data.points.map((p) => [...p]);
    const twice = checkbox("every instance twice", false, draw);
    const reset = button("Start again", () => { points = data.points.map((p) => [...p]); twice.value = false; draw(); });
    const lines = element("path", { class: "lines" });
    const mean = element("path", { class: "mean", d: "M-.22 -.22L.22 .22M-.22 .22L.22 -.22" });
    const max = element("path", { class: "max", d: "M0 -.32L.32 0L0 .32L-.32 0Z" });
    const svg = element("svg", { class: "plane", viewBox: "-4 -4 8 8", role: "group", "aria-label": "Instances in a plane. Arrow keys move the one in focus." },
      element("path", { class: "grid", "stroke-width": 0.02, d: [-3, -2, -1, 0, 1, 2, 3].map((v) => `M${v} -4V4M-4 ${v}H4`).join("") }), lines);
    const marks = points.map((_, i) => {
      const node = element("g", { class: "point", tabindex: 0, role: "button" }, element("circle", { class: "mark", r: 0.3 }),
        element("circle", { class: "ring", r: 0.52, "stroke-width": 0.08 }),
        element("text", { "text-anchor": "middle", dy: 0.13, "font-size": 0.38, text: i + 1 }));
      draggable(node, svg, () => points[i], (x, y) => { points[i] = [x, y].map((v) => Math.max(-3.8, Math.min(3.8, v))); draw(); });
      svg.append(node);
      return node;
    });
    svg.append(mean, max);
    const { node: words, say } = summary();

    function draw() {
      const bag = twice.value ? [...points, ...points] : points;
      const pooled = pool(bag);
      const [a, b] = pooled.from.map((i) => i % points.length);
      marks.forEach((node, i) => {
        const [x, y] = points[i];
        node.setAttribute("transform", `translate(${x} ${-y})`);
        node.setAttribute("aria-label", `${i + 1}: instance at ${show(x, 1)}, ${show(y, 1)}`);
        node.dataset.place = points[i].join(" ");
      });
      for (const [node, p] of [[mean, pooled.mean], [max, pooled.max]]) {
        node.setAttribute("transform", `translate(${p[0]} ${-p[1]})`);
        node.dataset.place = p.join(" ");
      }
      lines.setAttribute("d", [a, b].map((i) => `M${points[i][0]} ${-points[i][1]}L${pooled.max[0]} ${-pooled.max[1]}`).join(""));
      const from = a === b ? `both coordinates from instance ${a + 1}` : `the first coordinate from instance ${a + 1}, the second from ${b + 1}`;
      const idle = points.map((_, i) => i + 1).filter((i) => i !== a + 1 && i !== b + 1);
      say(`Bag of ${bag.length}. Mean (cross) at ${pooled.mean.map((v) => show(v)).join(", ")}. Maximum (diamond) at ${pooled.max.map((v) => show(v)).join(", ")}: ${from}. `
        + (idle.length ? `Instances ${idle.join(", ")} have no say in the maximum, and would get no gradient.` : ""));
    }

    box.append(element("div", { class: "sides" }, svg, element("div", { class: "right" },
      element("p", { text: "The cross is the mean of the bag, the diamond the largest value of each coordinate. Dashed lines lead to the instances that the maximum is from." }),
      twice.row, reset, words)));
    draw();
  }

  return { build, pool };
})();
