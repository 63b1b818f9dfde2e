/* A small lesion in a large photograph that is shrunk and cut into patches (chapter 16).
 *
 * One minute: shrinking makes bags small and lesions vanish; large patches keep the lesion whole and make it a speck
 * of its patch; no setting has all three, few patches, a visible lesion, and a large share of a patch.
 */
samilLite.figures.lesion = (function () {
  "use strict";
  const { element, slider, summary, show } = samilLite;

  /* What is left: width of the image and of the lesion in pixels after shrinking, patches that fit, and the lesion's
   * share of the area of the patch that it lies in, at most 1. */
  function left(side, lesion, shrink, patch) {
    const width = Math.floor(side / shrink);
    const seen = lesion / shrink;
    const patches = Math.floor(width / patch) ** 2;
    return { width, seen, patches, share: Math.min(1, Math.PI * (seen / 2) ** 2 / patch ** 2) };
  }

  function build(box, data) {
    const shrink = slider("shrunk by", { min: 1, max: 12, step: 0.5, value: data.shrink }, (x) => `${show(x, 1)} ×`, draw);
    const patch = slider("patch side", { min: 32, max: 448, step: 32, value: data.patch }, (x) => `${x} px`, draw);
    const lesion = slider("lesion", { min: 8, max: 120, step: 4, value: data.lesion }, (x) => `${x} px`, draw);
    const grid = element("path", { class: "cut" });
    const spot = element("circle", { class: "spot", cx: 62, cy: 38 });
    const home = element("rect", { class: "home" });
    const svg = element("svg", { class: "photo", viewBox: "-1 -1 102 102", role: "img" }, element("circle", { class: "retina", cx: 50, cy: 50, r: 50 }), home, grid, spot);
    const cells = Object.fromEntries(["width", "patches", "seen", "share"].map((key) => [key, element("td")]));
    const names = { width: "image after shrinking", patches: "patches in the bag", seen: "lesion after shrinking", share: "lesion's share of its patch" };
    const table = element("table", {}, ...Object.entries(names).map(([key, text]) => element("tr", {}, element("th", { scope: "row", text }), cells[key])));
    const { node: words, say } = summary();

    function draw() {
      const found = left(data.side, lesion.value, shrink.value, patch.value);
      const step = 100 * patch.value / found.width;
      const n = Math.floor(100 / step + 1e-9);
      grid.setAttribute("d", Array.from({ length: n + 1 }, (_, i) => `M${i * step} 0V${n * step}M0 ${i * step}H${n * step}`).join(""));
      const [column, row] = [Math.floor(62 / step), Math.floor(38 / step)];
      for (const [name, value] of Object.entries({ x: column * step, y: row * step, width: step, height: step })) home.setAttribute(name, value);
      home.setAttribute("visibility", column < n && row < n ? "visible" : "hidden");
      spot.setAttribute("r", Math.max(0.4, 50 * lesion.value / data.side));
      const texts = { width: `${found.width} px`, patches: String(found.patches), seen: `${show(found.seen, 1)} px`, share: `${show(100 * found.share, 2)} %` };
      for (const [key, cell] of Object.entries(cells)) {
        cell.textContent = texts[key];
        cell.dataset.value = found[key];
      }
      const note = found.patches === 0 ? " No patch fits." : found.seen < 3 ? " So few pixels may be nothing but noise." : "";
      say(`${found.patches} patches; the lesion is ${texts.seen} wide and takes ${texts.share} of its patch.${note}`);
      svg.setAttribute("aria-label", `A photograph ${found.width} pixels wide, cut into ${n} by ${n} patches; the patch with the lesion is shaded.`);
    }

    box.append(element("div", { class: "sides" }, svg, element("div", { class: "right" }, shrink.row, patch.row, lesion.row, table, words)));
    draw();
  }

  return { build, left };
})();
