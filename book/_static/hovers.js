// Beside a word of the glossary, or a formula, what it means: on hover, on focus, and gone on Escape.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const stored = document.getElementById("meanings");
  if (!stored) return;
  const { words, symbols } = JSON.parse(stored.textContent);
  const box = document.createElement("div");
  box.className = "meaning mathjax_process"; // so that MathJax sets its formulas
  box.role = "tooltip";
  box.id = "meaning";
  box.hidden = true;
  document.querySelector("article").append(box);
  let shownFor = null, waiting = null;

  /** The TeX that a set formula was made from. */
  function texOf(formula) {
    const list = MathJax.startup?.document?.math?.list;
    for (let item = list?.next; item && item !== list; item = item.next) {
      if (item.data?.typesetRoot === formula) return item.data.math;
    }
    return "";
  }

  /** The lines about the symbols in a piece of TeX, longer names first so that each counts once. */
  function linesFor(tex) {
    const lines = [];
    let rest = tex.replace(/\\(?:mathcal|mathbb|text|tag|mathrm)\s*\{[^{}]*\}/g, " ");
    for (const [symbol, line] of symbols) {
      if (symbol.startsWith("\\mathrm") || symbol.startsWith("D_")) {
        if (tex.includes(symbol)) lines.push(line);
        continue;
      }
      const escaped = symbol.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/ /g, "\\s*");
      const whole = new RegExp(`${/^[A-Za-z]/.test(symbol) ? "(?<![A-Za-z\\\\])" : ""}${escaped}(?![A-Za-z])`, "g");
      if (whole.test(rest)) {
        lines.push(line);
        rest = rest.replace(whole, " ");
      }
    }
    return lines;
  }

  function show(target, lines) {
    box.replaceChildren(
      ...lines.map((line) => {
        const paragraph = document.createElement("p");
        paragraph.textContent = line;
        return paragraph;
      }),
    );
    box.hidden = false;
    shownFor = target;
    target.setAttribute("aria-describedby", "meaning");
    const place = () => {
      const here = target.getBoundingClientRect(), frame = box.offsetParent.getBoundingClientRect();
      const left = Math.min(here.left - frame.left, frame.width - box.offsetWidth - 8);
      const below = here.bottom + box.offsetHeight + 12 < window.innerHeight;
      box.style.left = `${Math.max(left, 0)}px`;
      box.style.top = `${below ? here.bottom - frame.top + 6 : here.top - frame.top - box.offsetHeight - 6}px`;
    };
    MathJax.typesetClear?.([box]);
    Promise.resolve(MathJax.typesetPromise?.([box])).then(place);
  }

  function hide() {
    clearTimeout(waiting);
    shownFor?.removeAttribute("aria-describedby");
    shownFor = null;
    box.hidden = true;
  }

  function meaningOf(target) {
    const word = target.closest?.("a:has(> .word)");
    if (word) return [word, [words[word.textContent]].filter(Boolean)];
    const formula = target.closest?.("article mjx-container");
    if (formula && !box.contains(formula)) return [formula, linesFor(texOf(formula))];
    return [null, []];
  }

  function come(event, delay) {
    const [target, lines] = meaningOf(event.target);
    if (!target || target === shownFor) return;
    hide();
    if (lines.length) waiting = setTimeout(() => show(target, lines), delay);
  }

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch" || shownFor?.contains(document.activeElement)) return;
    come(event, 350);
  });
  document.addEventListener("pointerout", (event) => {
    const to = event.relatedTarget;
    if (shownFor && shownFor.contains(document.activeElement)) return; // the keyboard is there
    if (!to || !(box.contains(to) || (shownFor && shownFor.contains(to)))) hide();
  });
  document.addEventListener("focusin", (event) => come(event, 0));
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
});
