// What scrolls sideways can be reached with the keyboard, and only that.
"use strict";

function letScroll() {
  for (const box of document.querySelectorAll("article :is(table, .math, pre, .claims-graph)")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else if (box.tabIndex === 0) box.removeAttribute("tabindex");
  }
}

window.addEventListener("load", () => {
  letScroll();
  document.fonts.ready.then(letScroll);
  window.MathJax?.startup?.promise?.then(letScroll);
});
window.addEventListener("resize", letScroll);
