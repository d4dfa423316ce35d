// Inside a page of the course's site: the theme of its menu, light or dark, and not only that of the system.
(() => {
  if (window.parent === window) return;
  let site;
  try { site = window.parent.document.documentElement; } catch { return; } // a page of another host
  const copy = () => (document.documentElement.dataset.theme = site.dataset.theme ?? "");
  new MutationObserver(copy).observe(site, { attributeFilter: ["data-theme"] });
  copy();
})();
