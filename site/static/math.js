// Formulas, by KaTeX, which lies beside this file.
document.addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll(".math"))
    katex.render(formula.textContent, formula, { displayMode: formula.tagName === "DIV" });
});
