"use strict";
// Reads a chart's figures under the pointer, or with the arrow keys. Without this script the page loses only that.
(() => {
  const readings = JSON.parse(document.getElementById("readings").textContent);

  const nearest = (points, fraction) => {
    let best = 0;
    points.forEach((point, index) => {
      if (Math.abs(point[0] - fraction) < Math.abs(points[best][0] - fraction)) best = index;
    });
    return best;
  };

  const attach = (figure, points) => {
    const output = figure.querySelector("output");
    const drawings = Array.from(figure.querySelectorAll("svg"));
    let at = -1;

    const show = (index) => {
      at = index;
      output.textContent = index < 0 ? "" : points[index][1];
      for (const drawing of drawings) {
        const cursor = drawing.querySelector(".cursor");
        cursor.classList.toggle("shown", index >= 0);
        if (index < 0) continue;
        const left = Number(drawing.dataset.left);
        const x = left + points[index][0] * (Number(drawing.dataset.right) - left);
        cursor.setAttribute("x1", x);
        cursor.setAttribute("x2", x);
      }
    };

    for (const drawing of drawings) {
      drawing.addEventListener("pointermove", (event) => {
        const box = drawing.getBoundingClientRect();
        const left = Number(drawing.dataset.left);
        const x = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
        show(nearest(points, (x - left) / (Number(drawing.dataset.right) - left)));
      });
      drawing.addEventListener("pointerleave", () => show(-1));
    }
    figure.tabIndex = 0;
    figure.addEventListener("keydown", (event) => {
      const last = points.length - 1;
      const moves = {
        ArrowLeft: Math.max(0, at - 1),
        ArrowRight: Math.min(last, at + 1),
        Home: 0,
        End: last,
        Escape: -1,
      };
      if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key]);
    });
  };

  const hint = document.getElementById("chart-hint");
  if (hint) hint.hidden = false;
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    attach(figure, readings[figure.dataset.chart]);
  }

  // Paper has nothing to click on: folded parts are printed open.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    for (const part of folded) part.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const part of folded) part.open = false;
  });
})();
