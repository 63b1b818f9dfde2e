/* A slider over pictures drawn beforehand: the stages of something that takes too long to compute in a page.
 *
 * One minute: what changes from stage to stage, since the eye compares pictures that stand in the same place.
 */
samilLite.figures.stepper = (function () {
  "use strict";
  const { element, slider } = samilLite;

  function build(box, { frames, dark, captions, label }) {
    const pictures = { light: element("img", { class: "light" }), dark: element("img", { class: "dark" }) };
    const caption = element("figcaption", { "aria-live": "polite" });
    const stage = slider(label, { min: 0, max: frames.length - 1, step: 1, value: 0 },
      (x) => `${x + 1} of ${frames.length}`, draw);

    function draw() {
      for (const [theme, source] of Object.entries({ light: frames, dark })) {
        pictures[theme].src = `data:image/png;base64,${source[stage.value]}`;
        pictures[theme].alt = captions[stage.value];
      }
      caption.textContent = captions[stage.value];
    }

    box.append(stage.row, element("figure", {}, pictures.light, pictures.dark, caption));
    draw();
  }

  return { build };
})();
