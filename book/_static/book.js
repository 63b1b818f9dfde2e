/* Small repairs that the theme leaves to its users: names, landmarks, and keys for what scrolls. */
window.addEventListener("DOMContentLoaded", () => {
  const search = ".search-button-field, .search-button, .theme-switch-button";
  for (const button of document.querySelectorAll(search)) {
    const name = button.textContent.replace(/\s+/g, " ").trim() || button.getAttribute("aria-label");
    button.removeAttribute("aria-label"); // the name is what is seen, or hidden text where that is a picture
    if (!button.textContent.trim()) {
      const text = document.createElement("span");
      text.className = "visually-hidden";
      text.textContent = name;
      button.append(text);
    }
  }
  const side = document.querySelector(".bd-sidebar-primary");
  if (side && !side.getAttribute("role")) {
    side.setAttribute("role", "region");
    side.setAttribute("aria-label", "The book");
  }
});

function helpScrolling() {
  for (const formula of document.querySelectorAll("span.math")) {
    formula.classList.remove("long");
    const drawn = formula.querySelector("mjx-math");
    const room = formula.closest("p, li, dd, td, h1, h2, h3, figcaption, div");
    if (drawn && room && drawn.getBoundingClientRect().width > room.clientWidth) formula.classList.add("long");
  }
  const scrolling = "pre, div.math, .pst-scrollable-table-container, .output, .text_html, span.math.long, table";
  for (const area of document.querySelectorAll(scrolling)) {
    const wide = area.scrollWidth > area.clientWidth + 1 && getComputedStyle(area).overflowX !== "visible";
    if (wide && !area.hasAttribute("tabindex")) area.tabIndex = 0;
  }
}

window.addEventListener("load", () => {
  Promise.resolve(window.MathJax?.startup?.promise).then(helpScrolling);
  window.addEventListener("resize", helpScrolling);
});
