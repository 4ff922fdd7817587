"use strict";
(() => {
  // Charts name colours of the style sheet ("--blue"); read them anew when light changes to dark.
  const themed = (value, style) => {
    if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((item) => themed(item, style));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, style)]));
    return value;
  };
  const draw = (place) => {
    const style = getComputedStyle(document.documentElement);
    const plot = themed(JSON.parse(place.nextElementSibling.textContent), style);
    Plotly.react(place, plot.data, plot.layout, { displayModeBar: false, responsive: true, doubleClick: "reset" });
  };
  // Drawn when scrolled near: a page that reloads every few seconds must not take the processor from the training.
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      near.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  document.querySelectorAll(".drawing").forEach((place) => near.observe(place));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.querySelectorAll(".drawing.js-plotly-plot").forEach(draw));
  // Paper shows all of it.
  addEventListener("beforeprint", () => document.querySelectorAll(".drawing").forEach(draw));

  // A page that reloads itself keeps its reading position and what was unfolded.
  const seconds = Number(document.body.dataset.refresh);
  if (!seconds) return;
  const key = "opendino:" + location.pathname;
  const folds = [...document.querySelectorAll("details")];
  try {
    history.scrollRestoration = "manual";
    const kept = JSON.parse(sessionStorage.getItem(key) || "null");
    if (kept) {
      folds.forEach((fold, index) => (fold.open = Boolean(kept.open[index])));
      scrollTo(0, kept.y);
    }
    addEventListener("pagehide", () =>
      sessionStorage.setItem(key, JSON.stringify({ y: scrollY, open: folds.map((fold) => fold.open) })));
  } catch (error) {
    // Storage may be forbidden for local files: then the page starts at its top.
  }
  const age = Date.now() / 1000 - Number(document.body.dataset.written);
  if (age > 300) {
    const note = document.getElementById("stale");
    note.textContent = `Not rewritten for ${Math.round(age / 60)} minutes: the run is paused or has died. ` +
      "Start the same command again to go on from its last save.";
    note.hidden = false;
  }
})();
